"""The trials of a search or study: their records, ranking and file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.state.stage import SEARCH
from search_spaces.vocabulary import VOCABULARY
from trainables.storage.atomic import write_atomically

__all__ = [
    "REFERENCE_TRIAL",
    "STATUSES",
    "TrialRecord",
    "best_trial",
    "images_of",
    "ranked",
    "read_parquet",
    "trial_name",
    "write_parquet",
]

_NUMBERS_OR_WORDS = {name for name, entry in VOCABULARY.items() if entry.words}
_RUNG, _LAST = "validation_accuracy_", "_last"  # in names of columns

REFERENCE_TRIAL = 0
"""Number of the trial that runs the paper's, or our reference, setting."""
STATUSES = ("finished", "pruned", "failed", "paused")
"""A paused trial has not ended: the time budget ended before it, and with more time it continues."""


def trial_name(number: int, stage: str = SEARCH) -> str:
    """Return the name of a trial of a stage; the search's trial-000 is the reference setting."""
    return f"{stage}-{number:03d}"


def images_of(state: Mapping[str, Any]) -> Any:
    """Return the synthetic images of a trial's state: their moving average where the state has one."""
    return state["ema"] if "ema" in state else state["images"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial that has begun."""

    number: int
    status: str
    """One of `STATUSES`; unfinished before the trial has ended, in a sweep that has not."""
    settings: dict[str, Any]
    """All resolved settings."""
    rungs: dict[int, float]
    """Validation accuracy by distillation iteration."""
    seconds: float
    """Wall-clock time of the trial, s; 0 before it has ended."""
    reason: str
    """Why it ended or is paused; empty if it finished."""
    measures: dict[str, float] = field(default_factory=dict)
    """Other measures at the last rung: `RungResult.kept`."""
    stage: str = SEARCH

    @property
    def name(self) -> str:
        """The trial's name."""
        return trial_name(self.number, self.stage)

    @property
    def iterations(self) -> int:
        """Distillation iterations done."""
        return max(self.rungs, default=0)

    @property
    def last(self) -> float | None:
        """Validation accuracy at the last rung."""
        return self.rungs[self.iterations] if self.rungs else None

    @property
    def best(self) -> float | None:
        """Highest validation accuracy at any rung."""
        return max(self.rungs.values(), default=None)


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trials best first: by iterations done, then by their last validation accuracy."""
    return sorted(records, key=lambda record: (record.iterations, record.last or 0.0, -record.number), reverse=True)


def best_trial(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the best trial: of those with most iterations, the one with the highest last validation accuracy.

    The last rung counts, not the best: more measurements must not raise a trial's chance to win. A paused trial can win
    by its rungs so far.
    """
    candidates = [record for record in records if record.status != "failed" and record.rungs]
    return ranked(candidates)[0] if candidates else None


def write_parquet(path: Path, records: list[TrialRecord], keys: Iterable[str]) -> None:
    """Write a row a trial: id, status, number, own settings, accuracy at each rung, iterations, seconds, reason.

    Args:
        path: The file.
        records: The trials.
        keys: Names of the settings in which trials differ: `Space.trial_keys`.
    """
    rungs = sorted({iteration for record in records for iteration in record.rungs})
    columns: dict[str, list[Any]] = {
        "id": [record.name for record in records],
        "status": [record.status for record in records],
        "number": [record.number for record in records],
    }
    for key in sorted(keys):
        columns[key] = _of_one_type([record.settings[key] for record in records])
    for rung in rungs:
        columns[f"{_RUNG}{rung}"] = [record.rungs.get(rung) for record in records]
    columns[f"{_RUNG}last"] = [record.last for record in records]
    columns[f"{_RUNG}best"] = [record.best for record in records]
    for name in dict.fromkeys(name for record in records for name in record.measures):
        columns[f"{name}{_LAST}"] = [record.measures.get(name) for record in records]
    columns["iterations_done"] = [record.iterations for record in records]
    columns["seconds"] = [record.seconds for record in records]
    columns["reason"] = [record.reason for record in records]
    table = pa.table(columns)
    write_atomically(path, lambda aside: pq.write_table(table, aside))


def read_parquet(path: Path, shared: Mapping[str, Any]) -> list[TrialRecord]:
    """Return the trials that `write_parquet` wrote, with the settings that all of them share."""
    records = []
    for row in pq.read_table(path).to_pylist():
        _, number, status, seconds, reason = (row.pop(name) for name in ("id", "number", "status", "seconds", "reason"))
        for name in ("iterations_done", f"{_RUNG}last", f"{_RUNG}best"):
            del row[name]
        rungs = {int(name.removeprefix(_RUNG)): row.pop(name) for name in list(row) if name.startswith(_RUNG)}
        measures = {name.removesuffix(_LAST): row.pop(name) for name in list(row) if name.endswith(_LAST)}
        records.append(
            TrialRecord(
                number=number, status=status, settings={**shared, **_as_given(row)}, seconds=seconds, reason=reason,
                rungs={iteration: accuracy for iteration, accuracy in rungs.items() if accuracy is not None},
                measures={name: value for name, value in measures.items() if value is not None},
            )
        )  # fmt: skip
    return records


def _of_one_type(values: list[Any]) -> list[Any]:
    """Return the values of a column: all as text where some are words, as of an alpha_init that is a number or auto."""
    return [str(value) for value in values] if any(isinstance(value, str) for value in values) else values


def _as_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's settings with numbers that were written as text as numbers again."""
    return {
        name: VOCABULARY[name].parse(value) if isinstance(value, str) and name in _NUMBERS_OR_WORDS else value
        for name, value in settings.items()
    }
