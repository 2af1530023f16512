"""Accuracy against the matching range, over a search's trials: the paper's Fig. 3 as far as a search can show it."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.statistics import summarize
from orchestrator.tables import markdown_table, mean_std
from orchestrator.trials import TrialRecord
from search_spaces import Space

__all__ = ["draw_ranges", "range_parts"]

LEAST, FEWEST_BINS, MOST_BINS = 3, 3, 5
"""Trials of a bin: fewer have no spread to speak of. Bins: two would not show a middle, and six no more than five."""
_RANGE = ("T_minus", "T_width", "T_growth")


class _Bin(NamedTuple):
    """Trials whose ranges lie next to each other."""

    middles: list[float]
    """Midpoints of their ranges, (T_minus + T_plus) / 2, in expert epochs, ascending."""
    accuracies: dict[str, Any]
    """`summarize` of their validation accuracies, in that order."""


def draw_ranges(path: Path, space: Space, records: Sequence[TrialRecord]) -> None:
    """Draw, as a PNG, each trial's accuracy over the middle of its matching range, and mean ± std of bins of them.

    All at the last iteration at which every trial was validated. Draws nothing where `range_parts` is empty.

    Args:
        path: The file to write.
        space: What was searched.
        records: Its trials that ended.
    """
    iteration, bins = _binned(space, records)
    if not bins:
        return
    figure, axis = plt.subplots(figsize=(4.8, 3.6), dpi=160, layout="constrained")
    for number, each in enumerate(bins):
        label = "a trial" if number == 0 else None
        axis.plot(each.middles, each.accuracies["values"], "o", color="#56b4e9", alpha=0.7, markersize=4, label=label)
    axis.errorbar(
        [sum(each.middles) / len(each.middles) for each in bins],
        [each.accuracies["mean"] for each in bins],
        [each.accuracies["std"] for each in bins],
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


def range_parts(space: Space, records: Sequence[TrialRecord]) -> list[str]:
    """Return what a report says, in Markdown, of accuracy by matching range; its picture: figures/ranges.png.

    Nothing where trials do not differ in their range, where variants are compared, or where the trials that were
    validated do not make FEWEST_BINS bins of LEAST trials each.

    Args:
        space: What was searched.
        records: Its trials that ended.
    """
    iteration, bins = _binned(space, records)
    if not bins:
        return []
    rows = [
        [
            _span(each.middles),
            str(each.accuracies["n"]),
            mean_std(each.accuracies),
            f"{max(each.accuracies['values']):.3f}",
        ]
        for each in bins
    ]
    return [
        "## Accuracy by matching range",
        f"All trials in bins of neighbours, by the middle of their range T⁻ … T⁺. Validation accuracy at iteration "
        f"{iteration}, the last at which every one of them was validated: later ones know only those that went on.",
        "![Accuracy by matching range](figures/ranges.png)",
        markdown_table(["middle of the range, epochs", "trials", "accuracy, mean ± std", "best"], rows),
        "This is what was observed, not an experiment: the trials of a bin differ in their other settings too, and the "
        "search drew more of them, with better settings, where it had found good ones. What a range alone does, a "
        "study of ranges tells, with everything else alike.",
    ]


def _binned(space: Space, records: Sequence[TrialRecord]) -> tuple[int, list[_Bin]]:
    """Return the last iteration that all validated trials share, and their bins; no bins where there is nothing to say.

    Bins have about equally many trials, at least LEAST, and never part trials of the same middle.
    """
    told = [record for record in records if record.rungs]
    shared = set.intersection(*(set(record.rungs) for record in told)) if told else set()
    if space.variants or not shared or not any(name in space.searched for name in _RANGE):
        return 0, []
    iteration = max(shared)
    ordered = sorted(told, key=_middle)
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
        _Bin([_middle(each) for each in group], summarize([each.rungs[iteration] for each in group])) for group in bins
    ]


def _middle(record: TrialRecord) -> float:
    settings: Mapping[str, Any] = record.settings
    return float(settings["T_minus"] + settings["T_plus"]) / 2


def _span(middles: Sequence[float]) -> str:
    return f"{middles[0]:g}" if middles[0] == middles[-1] else f"{middles[0]:g}–{middles[-1]:g}"
