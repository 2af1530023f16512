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
from trainables.files import write_atomically
from trainables.metrics import TESTED, Metrics

__all__ = ["range_text", "study_rows", "summarize_study", "variant_range", "write_study"]


def study_rows(
    space: Space, records: Sequence[TrialRecord], measured: Mapping[str, Sequence[Metrics]]
) -> list[dict[str, Any]]:
    """Return a row for every trial that did all its iterations: what it ran, and what it is worth.

    Args:
        space: The study.
        records: Its trials that ended.
        measured: What fresh networks reached on the test split, by trial's name; a row has their mean.
    """
    shown = dict.fromkeys(["variant", "repeat", "T_minus", "T", "T_plus", *space.varied])
    return [
        {
            "trial": record.name,
            **{key: record.settings[key] for key in shown},
            "validation_accuracy": record.last,
            **{metric: fmean(getattr(each, metric) for each in measured[record.name]) for metric in TESTED},
            "networks": len(measured[record.name]),
            "skip_rate": record.measures.get("skip_rate"),
        }
        for record in records
        if record.status == "finished" and record.name in measured
    ]


def summarize_study(
    space: Space, rows: Sequence[Mapping[str, Any]], finals: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return `study` of result.json: by variant what it sets, and mean, std and n over its repeats; the differences.

    That of a search's `repeats` also has the differences of its winner from the baselines of `finals`.

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
                for metric in ("validation_accuracy", *TESTED)
            },
        }
    return {"variants": variants, "comparisons": compare_variants(rows, finals or {})}


def write_study(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row a variant and repeat: the figure's data."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    write_atomically(path, lambda aside: pq.write_table(table, aside))


def range_text(settings: Mapping[str, Any]) -> str:
    """Return the matching range of resolved settings as people write it: 0–15→20, or 10–50 if it does not grow."""
    growth = "" if settings["T"] == settings["T_plus"] else f"→{settings['T_plus']}"
    return f"{settings['T_minus']}–{settings['T']}{growth}"


def variant_range(space: Space, variant: str) -> str:
    """Return the matching range of a study's variant as people write it."""
    return range_text(space.resolve({"variant": variant, "repeat": 0}))
