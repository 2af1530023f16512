"""What a report says and draws of diagnostics.json: why early is easy; and of soft-label trials, what became of labels.

METHOD §7: "theory for early range" and "label inconsistency".
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.statistics import summarize
from orchestrator.tables import FINAL_NAMES, markdown_table
from orchestrator.trials import TrialRecord, ranked

__all__ = ["diagnostics_parts", "draw_diagnostics", "label_parts"]

NEGLIGIBLE = 0.01
"""Share of the early value below which a difference to the late one is none, however alike the experts are."""
_LABELLED = 10
"""Soft-label trials that are listed."""
_STYLES = {
    "before": {"color": "#4d4d4d", "marker": "^", "linestyle": "--"},
    "winner": {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    "paper_setting": {"color": "#d55e00", "marker": "s", "linestyle": "-."},
}
"""Colours by Okabe and Ito; markers and dashes tell the same without colours."""


def draw_diagnostics(path: Path, facts: Mapping[str, Any]) -> None:
    """Draw, as a PNG, how far each epoch moves the experts, and the matching loss of each set by start epoch.

    Args:
        path: The file to write.
        facts: What `measure_diagnostics` returned.
    """
    figure, (steps, losses) = plt.subplots(2, 1, figsize=(4.8, 6.0), dpi=160, sharex=True, layout="constrained")
    _draw_series(steps, range(facts["epochs"]), facts["step_length"], color="#4d4d4d", marker=".")
    steps.set(ylabel=r"$\|\theta^*_{t+1}-\theta^*_t\|_2$", title="How far an epoch moves an expert")
    steps.set_ylim(bottom=0)
    losses.axhline(1, color="#999999", linewidth=1, label="no training")
    for entry in facts["losses"]:
        style, label = _STYLES[entry["name"]], f"{_title(entry)}, α = {entry['alpha']:.3g}"
        _draw_series(losses, entry["start_epochs"], entry, **style, markerfacecolor="white", label=label)
        if entry["name"] != "before":
            inside = _by_range(entry)[0]
            losses.plot(list(inside), list(inside.values()), **style, markersize=4)
        if entry["name"] == "winner":
            for axis in (steps, losses):
                axis.axvspan(entry["T_minus"], entry["last_start"], color=style["color"], alpha=0.12, linewidth=0)
    known = [mean for entry in facts["losses"] for mean in entry["mean"] if mean is not None]
    if known and max(known) > 20 * min(known):
        losses.set_yscale("log")
    else:
        losses.set_ylim(bottom=0)
    losses.set(xlabel="expert epoch t  (filled, shaded: matched)", ylabel="loss", title="Matching loss from t on")
    losses.legend(fontsize=8)
    for axis in (steps, losses):
        axis.grid(alpha=0.25)
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def _draw_series(axis: Any, places: Sequence[int], series: Mapping[str, Any], **style: Any) -> None:
    """Draw means, and a band of one standard deviation over experts; gaps where there is none."""
    mean, std = ([math.nan if value is None else value for value in series[name]] for name in ("mean", "std"))
    axis.plot(places, mean, markersize=4, **style)
    low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
    axis.fill_between(places, low, high, color=style["color"], alpha=0.25, linewidth=0)


def _by_range(entry: Mapping[str, Any]) -> tuple[dict[int, float], dict[int, float]]:
    """Return a set's mean loss by start epoch: in its trial's range, and elsewhere; NaN where it diverges."""
    inside: dict[int, float] = {}
    outside: dict[int, float] = {}
    for start, mean in zip(entry["start_epochs"], entry["mean"], strict=True):
        there = inside if entry["T_minus"] <= start <= entry["last_start"] else outside
        there[start] = math.nan if mean is None else mean
    return inside, outside


def _title(entry: Mapping[str, Any]) -> str:
    return f"before: {_origin(entry)}" if entry["name"] == "before" else f"after: {FINAL_NAMES[entry['name']]}"


def _origin(entry: Mapping[str, Any]) -> str:
    return "noise" if entry["initialization"] == "noise" else "real images"


def diagnostics_parts(facts: Mapping[str, Any]) -> list[str]:
    """Return what a report says, in Markdown, of `measure_diagnostics`' facts; its picture: figures/diagnostics.png."""
    sets = {entry["name"]: entry for entry in facts["losses"]}
    readings = (_distance_reading(facts), _early_reading(sets["before"]), _set_reading(sets["winner"], sets["before"]))
    headings = ["set", "trial", "N", "M", "α", "range, start epochs", "loss in it", "loss elsewhere"]
    return [
        "## Is early easier?",
        f"Seen on {facts['experts']} of the experts; bands are ± one standard deviation over them. The matching loss "
        "from an epoch on is what N steps on a set, as it is, leave of the squared distance that the expert goes in M "
        "epochs: 0 is where the expert is then, 1 as far off as without any training.",
        "![Trajectory diagnostics](figures/diagnostics.png)",
        "\n".join(f"- {each}" for each in readings),
        markdown_table(headings, [_row(entry) for entry in facts["losses"]]),
        "N·α is the same at every start epoch. Where experts move less, the same steps go too far, up to losses above "
        "1: so much of a late loss says that this N·α suits no late epoch, and not that late patterns are hard.",
    ]


def _distance_reading(facts: Mapping[str, Any]) -> str:
    distances, epochs = facts["distance"]["mean"], facts["epochs"]
    third, early, late, verdict = _thirds(facts["step_length"]["values"])
    told = {
        "less": "early epochs go further",
        "more": "early epochs do not go further here, but less far",
        "unclear": "these experts do not show that early epochs go further",
    }[verdict]
    half = next(epoch for epoch, distance in enumerate(distances, start=1) if distance >= distances[-1] / 2)
    return (
        f"An epoch moves an expert's parameters by {early:.3g} in the first {third} epochs and by {late:.3g} in the "
        f"last {third}: {told}. Half of the final distance from the start, {distances[-1]:.3g}, is passed in epoch "
        f"{half} of {epochs}."
    )


def _early_reading(before: Mapping[str, Any]) -> str:
    starts, whose = before["start_epochs"], f"the {_origin(before)} that the best trial began with"
    if None in before["mean"]:
        return f"Training on {whose} diverges at some start epochs, so early and late do not compare."
    third, early, late, verdict = _thirds(before["values"])
    told = {
        "more": "before anything is learned, early is easier at this N·α",
        "less": "before anything is learned, early is not easier at this N·α, but harder",
        "unclear": "these data do not show that early is easier",
    }[verdict]
    return (
        f"Training on {whose} leaves a loss of {early:.3g} from start epochs {_spans(starts[:third], starts)} and of "
        f"{late:.3g} from {_spans(starts[-third:], starts)}: {told}."
    )


def _thirds(rows: Sequence[Sequence[float]]) -> tuple[int, float, float, str]:
    """Compare the first with the last third of rows by place and expert.

    Returns:
        Places of a third, mean of the first and of the last, and whether the last is more or less: on which side of 0
        the 95 % interval of the experts' differences lies. Unclear if on neither, where there is one expert, and where
        it is less than NEGLIGIBLE.
    """
    third = max(1, len(rows) // 3)
    early, late = ([fmean(values) for values in zip(*part, strict=True)] for part in (rows[:third], rows[-third:]))
    interval = summarize([after - before for before, after in zip(early, late, strict=True)])["interval_95"]
    first, last, verdict = fmean(early), fmean(late), "unclear"
    if interval and not interval[0] <= 0 <= interval[1] and abs(last - first) > NEGLIGIBLE * first:
        verdict = "more" if last > first else "less"
    return third, first, last, verdict


def _set_reading(after: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Say at which start epochs the best trial's set matches better, and worse, than what it began as."""
    better, worse = [], []
    for start, *rows in zip(after["start_epochs"], after["values"], before["values"], strict=True):
        gains = [theirs - ours for ours, theirs in zip(*rows, strict=True) if None not in (ours, theirs)]
        if gains and min(gains) > 0:
            better.append(start)
        elif gains and max(gains) < 0:
            worse.append(start)
    return (
        f"Matched at start epochs {after['T_minus']}–{after['last_start']}, the best trial's set ({after['trial']}) "
        f"leaves a lower loss than the {_origin(before)}, whichever the expert, at "
        f"{_spans(better, after['start_epochs'])}, and a higher one at {_spans(worse, after['start_epochs'])}."
    )


def _spans(chosen: Sequence[int], starts: Sequence[int]) -> str:
    """Return some of the start epochs as people write them: 0–7, 12."""
    runs = groupby(enumerate(chosen), lambda each: starts.index(each[1]) - each[0])  # constant along neighbours
    spans = [[start for _, start in run] for _, run in runs]
    return ", ".join(f"{span[0]}–{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans) or "none"


def _row(entry: Mapping[str, Any]) -> list[str]:
    means = [fmean(losses.values()) if losses else None for losses in _by_range(entry)]
    told = ["–" if mean is None else "diverges" if math.isnan(mean) else f"{mean:.3g}" for mean in means]
    figures = [str(entry["N"]), str(entry["M"]), f"{entry['alpha']:.3g}", f"{entry['T_minus']}–{entry['last_start']}"]
    return [_title(entry), entry["trial"], *figures, *told]


def label_parts(records: Sequence[TrialRecord]) -> list[str]:
    """Return what a report says of the labels of soft-label trials, in Markdown; nothing where there is none."""
    soft = [record for record in ranked(records) if "label_inconsistency" in record.measures]
    if not soft:
        return []
    rows = [
        [record.name, str(record.iterations), f"{record.measures['label_inconsistency']:.1%}", f"{record.last:.3f}"]
        for record in soft[:_LABELLED]
    ]
    more = f" The best {_LABELLED} of {len(soft)}." if len(soft) > _LABELLED else ""
    return [
        "## Label inconsistency",
        "The share of a set's images whose learned soft label has its largest value at another class than the one that "
        "the image counts as, by default order, where the set is judged: those images are learned as one thing and "
        "tested as another. Hard labels, as in M-DATM, have none. At each trial's last rung; accuracy is that on the "
        f"validation split.{more}",
        markdown_table(["soft-label trial", "iterations", "label inconsistency", "validation accuracy"], rows),
    ]
