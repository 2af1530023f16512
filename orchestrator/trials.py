"""What became of the trials: their record, their ranking and their file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.settings import SEARCH
from trainables.files import write_atomically

__all__ = ["TrialRecord", "best_trial", "images_of", "ranked", "read_parquet", "trial_name", "write_parquet"]

_RUNG, _LAST = "validation_accuracy_", "_last"  # in names of columns


def trial_name(number: int, stage: str = SEARCH) -> str:
    """Return the name by which people see a trial of a stage; the search's trial-000 is the reference setting."""
    return f"{stage}-{number:03d}"


def images_of(state: Mapping[str, Any]) -> Any:
    """Return the synthetic images that a trial's state stands for: their moving average where it keeps one."""
    return state["ema"] if "ema" in state else state["images"]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial that has ended."""

    number: int
    status: str
    """finished, pruned or failed."""
    settings: dict[str, Any]
    """All resolved settings."""
    rungs: dict[int, float]
    """Validation accuracy by distillation iteration."""
    seconds: float
    """Wall-clock time in which the trial ran."""
    reason: str
    """Why it ended; empty if it finished."""
    measures: dict[str, float] = field(default_factory=dict)
    """What else the last rung came to: `searcher.MEASURES`, as far as it was reported."""
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
    """Return the trials best first: those that went further before others, then by their last validation accuracy."""
    return sorted(records, key=lambda record: (record.iterations, record.last or 0.0, -record.number), reverse=True)


def best_trial(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the best trial: of those that went furthest, the one with the highest last validation accuracy.

    The last and not the best rung, so that nobody wins by having been measured more often.
    """
    candidates = [record for record in records if record.status != "failed" and record.rungs]
    return ranked(candidates)[0] if candidates else None


def write_parquet(path: Path, records: list[TrialRecord], varied: Iterable[str]) -> None:
    """Write a row a trial: id, status, number, every setting, accuracy at each rung, iterations, seconds, reason."""
    rungs = sorted({iteration for record in records for iteration in record.rungs})
    first = set(varied)
    columns: dict[str, list[Any]] = {
        "id": [record.name for record in records],
        "status": [record.status for record in records],
        "number": [record.number for record in records],
    }
    for key in sorted(records[0].settings, key=lambda key: (key not in first, key)) if records else ():
        columns[key] = [record.settings[key] for record in records]
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


def read_parquet(path: Path) -> list[TrialRecord]:
    """Return the trials that `write_parquet` wrote."""
    records = []
    for row in pq.read_table(path).to_pylist():
        _, number, status, seconds, reason = (row.pop(name) for name in ("id", "number", "status", "seconds", "reason"))
        for name in ("iterations_done", f"{_RUNG}last", f"{_RUNG}best"):
            del row[name]
        rungs = {int(name.removeprefix(_RUNG)): row.pop(name) for name in list(row) if name.startswith(_RUNG)}
        measures = {name.removesuffix(_LAST): row.pop(name) for name in list(row) if name.endswith(_LAST)}
        records.append(
            TrialRecord(
                number=number, status=status, settings=row, seconds=seconds, reason=reason,
                rungs={iteration: accuracy for iteration, accuracy in rungs.items() if accuracy is not None},
                measures={name: value for name, value in measures.items() if value is not None},
            )
        )  # fmt: skip
    return records
