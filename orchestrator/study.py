"""What a study measured: every variant's repeats side by side, as rows, as summaries and as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.comparisons import compare_variants
from orchestrator.statistics import summarize
from orchestrator.trials import TrialRecord
from search_spaces import Space
from trainables.evaluation import Metrics
from trainables.files import write_atomically

__all__ = ["range_text", "study_rows", "summarize_study", "write_study"]

_TESTED = ("accuracy", "macro_f1", "macro_recall")


def study_rows(
    space: Space, records: Sequence[TrialRecord], measured: Mapping[Any, Sequence[Metrics]]
) -> list[dict[str, Any]]:
    """Return a row for every trial that did all its iterations: what it ran, and what it is worth.

    Args:
        space: The study.
        records: Its trials that ended.
        measured: What fresh networks reached on the test split, by trial number; a row has their mean.
    """
    shown = dict.fromkeys(["variant", "repeat", "T_minus", "T", "T_plus", *space.varied])
    return [
        {
            "trial": record.name,
            **{key: record.settings[key] for key in shown},
            "validation_accuracy": record.last,
            **{metric: fmean(getattr(each, metric) for each in measured[record.number]) for metric in _TESTED},
            "networks": len(measured[record.number]),
        }
        for record in records
        if record.status == "finished" and record.number in measured
    ]


def summarize_study(space: Space, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `study` of result.json: by variant what it sets, and mean, std and n over its repeats; the differences.

    A repeat's value is the mean over its networks, so n counts distillations, and std is how much those differ. A
    variant without any repeat that did all its iterations has null in place of a summary.
    """
    variants = {}
    for name, settings in space.variants.items():
        repeats = [row for row in rows if row["variant"] == name]
        variants[name] = {
            "settings": dict(settings),
            **{
                metric: summarize([row[metric] for row in repeats]) if repeats else None
                for metric in ("validation_accuracy", *_TESTED)
            },
        }
    return {"variants": variants, "comparisons": compare_variants(rows)}


def write_study(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row a variant and repeat: the figure's data."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    write_atomically(path, lambda aside: pq.write_table(table, aside))


def range_text(space: Space, variant: str) -> str:
    """Return a variant's matching range as people write it: 0–15→20, or 10–50 if it does not grow."""
    point = space.resolve({"variant": variant, "repeat": 0})
    growth = "" if point["T"] == point["T_plus"] else f"→{point['T_plus']}"
    return f"{point['T_minus']}–{point['T']}{growth}"
