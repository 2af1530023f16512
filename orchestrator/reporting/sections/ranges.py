"""Accuracy against the matching range over the trials of a search, after the paper's Fig. 3."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.reporting.templating import render
from orchestrator.reporting.words import mean_std
from orchestrator.results.statistics import summarize
from orchestrator.results.trials import TrialRecord
from search_spaces import Space

__all__ = ["draw_ranges", "range_section"]

LEAST, FEWEST_BINS, MOST_BINS = 3, 3, 5
"""Fewest trials of a bin: fewer give no useful spread. Bins: two show no middle, and six show no more than five."""
_RANGE = ("T_minus", "T_width", "T_growth")


class _Bin(NamedTuple):
    """Trials with neighbouring ranges."""

    middles: list[float]
    """Midpoints of their ranges, (T_minus + T_plus) / 2, in expert epochs, ascending."""
    accuracies: dict[str, Any]
    """`summarize` of their validation accuracies, in that order."""


def draw_ranges(path: Path, space: Space, records: Sequence[TrialRecord]) -> None:
    """Draw, as a PNG, each trial's accuracy over the middle of its matching range, and mean ± std of bins of them.

    All at the last iteration at which every trial was validated. Draws nothing where `range_section` is empty.

    Args:
        path: The file to write.
        space: What was searched.
        records: Its trials that ended.
    """
    iteration, bins = _binned(space, records)
    if not bins:
        return
    figure, axis = plt.subplots(figsize=(4.8, 3.6), dpi=160, layout="constrained")
    for number, group in enumerate(bins):
        label = "a trial" if number == 0 else None
        axis.plot(group.middles, group.accuracies["values"], "o", color="#56b4e9", alpha=0.7, markersize=4, label=label)
    axis.errorbar(
        [sum(group.middles) / len(group.middles) for group in bins],
        [group.accuracies["mean"] for group in bins],
        [group.accuracies["std"] for group in bins],
        fmt="D", color="#0b3c5d", capsize=5, markersize=6, label="mean ± std of a bin",
    )  # fmt: skip
    for left, right in pairwise(bins):
        axis.axvline((left.middles[-1] + right.middles[0]) / 2, color="#b9c4cc", linewidth=0.8, linestyle=":")
    axis.set(
        xlabel="middle of the matching range (expert epochs)", ylabel=f"validation accuracy, iteration {iteration}"
    )
    axis.grid(alpha=0.25, axis="y")
    axis.legend(fontsize=8)
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def range_section(space: Space, records: Sequence[TrialRecord]) -> str:
    """Return the section about accuracy by matching range in Markdown; its picture is figures/ranges.png.

    It is "" where trials do not differ in their range, where variants are compared, or where the trials that were
    validated do not make FEWEST_BINS bins of LEAST trials each.

    Args:
        space: What was searched.
        records: Its trials that ended.
    """
    iteration, bins = _binned(space, records)
    if not bins:
        return ""
    rows = [
        [
            _span(group.middles),
            str(group.accuracies["n"]),
            mean_std(group.accuracies),
            f"{max(group.accuracies['values']):.3f}",
        ]
        for group in bins
    ]
    return render("sections/ranges.md.j2", iteration=iteration, rows=rows)


def _binned(space: Space, records: Sequence[TrialRecord]) -> tuple[int, list[_Bin]]:
    """Return the last iteration that all validated trials share, and their bins; no bins where they would be too few.

    Bins have about equally many trials, at least LEAST; trials with the same middle are in one bin.
    """
    validated = [record for record in records if record.rungs]
    shared = set.intersection(*(set(record.rungs) for record in validated)) if validated else set()
    if not shared or not any(name in space.searched for name in _RANGE):
        return 0, []
    iteration = max(shared)
    ordered = sorted(validated, key=_middle)
    least = max(LEAST, math.ceil(len(ordered) / MOST_BINS))
    bins: list[list[TrialRecord]] = [[]]
    for _, alike in groupby(ordered, key=_middle):
        if len(bins[-1]) >= least:
            bins.append([])
        bins[-1] += alike
    if len(bins[-1]) < LEAST:
        last = bins.pop()
        bins[-1:] = [bins[-1] + last] if bins else []
    if len(bins) < FEWEST_BINS:
        return iteration, []
    return iteration, [
        _Bin([_middle(trial) for trial in group], summarize([trial.rungs[iteration] for trial in group]))
        for group in bins
    ]


def _middle(record: TrialRecord) -> float:
    settings: Mapping[str, Any] = record.settings
    return float(settings["T_minus"] + settings["T_plus"]) / 2


def _span(middles: Sequence[float]) -> str:
    return f"{middles[0]:g}" if middles[0] == middles[-1] else f"{middles[0]:g}–{middles[-1]:g}"
