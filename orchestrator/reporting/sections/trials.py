"""The figure of all trials: accuracy over iterations, and by matching range."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from orchestrator.results.trials import TrialRecord

__all__ = ["draw_trials"]

_COLOURS = {
    "finished": "#1b6ca8", "pruned": "#b9c4cc", "failed": "#c0392b", "paused": "#8e6bbf", "unfinished": "#8e44ad",
}  # fmt: skip


def draw_trials(path: Path, records: Sequence[TrialRecord], best: TrialRecord) -> None:
    """Draw accuracy over iterations, and the matching range of every trial against its accuracy."""
    figure, (curves, ranges) = plt.subplots(2, 1, figsize=(6.4, 7.2), dpi=120, constrained_layout=True)
    for record in records:
        marked = {"linewidth": 2.5, "zorder": 3} if record.number in (0, best.number) else {"linewidth": 1.0}
        colour = "#d35400" if record.number == 0 else _COLOURS[record.status]
        if record.number == best.number:
            colour = "#1e8449"
        curves.plot(list(record.rungs), list(record.rungs.values()), marker="o", markersize=3, color=colour, **marked)
        if record.last is not None:
            settings = record.settings
            ranges.plot([settings["T_minus"], settings["T_plus"]], [record.last] * 2, color=colour, **marked)
    curves.set(xlabel="distillation iteration", ylabel="validation accuracy", title="Search")
    ranges.set(xlabel="expert epoch (matching range T⁻ to T⁺)", ylabel="validation accuracy, last rung", title="Ranges")
    if best.number == 0:
        legend = {"best, the reference (trial 0)": "#1e8449", **_COLOURS}
    else:
        legend = {"best": "#1e8449", "reference (trial 0)": "#d35400", **_COLOURS}
    statuses = {record.status for record in records}
    shown = {name: colour for name, colour in legend.items() if name not in _COLOURS or name in statuses}
    curves.legend(
        [Line2D([], [], color=colour) for colour in shown.values()], list(shown), fontsize=7, loc="lower right"
    )
    for axis in (curves, ranges):
        axis.grid(alpha=0.25)
    figure.savefig(path)
    plt.close(figure)
