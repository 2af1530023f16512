"""Measurements of a study: the repeats of every variant as rows, as summaries and as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.results.differences import compare_variants
from orchestrator.results.statistics import summarize
from orchestrator.results.trials import TrialRecord
from search_spaces import Study
from trainables.evaluation.metrics import TESTED, Metrics
from trainables.storage.atomic import write_atomically

__all__ = ["range_text", "study_rows", "summarize_study", "summarize_variants", "variant_range", "write_study"]


def study_rows(
    space: Study, records: Sequence[TrialRecord], measured: Mapping[str, Sequence[Metrics]]
) -> list[dict[str, Any]]:
    """Return a row for every trial that did all its iterations: its settings and its test metrics.

    Args:
        space: The study.
        records: Its trials that ended.
        measured: Test metrics of fresh networks, by trial's name; a row has their means.
    """
    shown = dict.fromkeys(["variant", "repeat", "T_minus", "T", "T_plus", *space.varied])
    return [
        {
            "trial": record.name,
            **{key: record.settings[key] for key in shown},
            "validation_accuracy": record.last,
            **{metric: fmean(getattr(network, metric) for network in measured[record.name]) for metric in TESTED},
            "networks": len(measured[record.name]),
            "skip_rate": record.measures.get("skip_rate"),
        }
        for record in records
        if record.status == "finished" and record.name in measured
    ]


def summarize_study(
    space: Study, rows: Sequence[Mapping[str, Any]], finals: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Return `study` of result.json: `summarize_variants`, and the differences between variants.

    `repeats` of a search also has the differences of its winner from the baselines of `finals`.
    """
    return {"variants": summarize_variants(space, rows), "comparisons": compare_variants(rows, finals or {})}


def summarize_variants(space: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return by variant its settings and the summaries of its repeats.

    A repeat's value is the mean over its networks, so n counts distillations, and std is the deviation between them. A
    variant of which no repeat did all its iterations has null in place of a summary.
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
    return variants


def write_study(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row a variant and repeat: the data of the study's figure."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    write_atomically(path, lambda aside: pq.write_table(table, aside))


def range_text(settings: Mapping[str, Any]) -> str:
    """Return the matching range of resolved settings as text: 0–15→20, or 10–50 if it does not grow."""
    growth = "" if settings["T"] == settings["T_plus"] else f"→{settings['T_plus']}"
    return f"{settings['T_minus']}–{settings['T']}{growth}"


def variant_range(space: Study, variant: str) -> str:
    """Return the matching range of a study's variant as text; see `range_text`."""
    return range_text(space.resolve({"variant": variant, "repeat": 0}))
