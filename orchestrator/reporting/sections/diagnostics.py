"""Sections on the diagnostics: matching loss by epoch, label inconsistency, and matching loss against accuracy.

docs/method.md, "What a review asks for": "theory for early range" and "label inconsistency".
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.reporting.templating import render
from orchestrator.reporting.words import method_name
from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.statistics import ALPHA, rank_correlation, summarize
from orchestrator.results.trials import TrialRecord, ranked

__all__ = ["diagnostics_section", "draw_diagnostics", "label_section", "loss_section"]

NEGLIGIBLE = 0.01
"""Share of the early value below which a difference to the late one counts as none, at any spread of the experts."""
_LABELLED = 10
"""Soft-label trials that are listed at most."""
_STYLES = {
    "before": {"color": "#4d4d4d", "marker": "^", "linestyle": "--"},
    WINNER: {"color": "#0072b2", "marker": "o", "linestyle": "-"},
    PAPER_SETTING: {"color": "#d55e00", "marker": "s", "linestyle": "-."},
}
"""Colours by Okabe and Ito; markers and dashes distinguish the series without colours."""


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
        if entry["name"] == WINNER:
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
        part = inside if entry["T_minus"] <= start <= entry["last_start"] else outside
        part[start] = math.nan if mean is None else mean
    return inside, outside


def _title(entry: Mapping[str, Any]) -> str:
    return f"before: {_origin(entry)}" if entry["name"] == "before" else f"after: {method_name(entry['name'])}"


def _origin(entry: Mapping[str, Any]) -> str:
    return "noise" if entry["initialization"] == "noise" else "real images"


def diagnostics_section(facts: Mapping[str, Any]) -> str:
    """Return the section about `measure_diagnostics`' facts in Markdown; its picture is figures/diagnostics.png."""
    sets = {entry["name"]: entry for entry in facts["losses"]}
    before, winner = sets["before"], sets[WINNER]
    starts, distances = before["start_epochs"], facts["distance"]["mean"]
    start = None if None in before["mean"] else _thirds(before["values"])
    third = start.places if start else 0
    better, worse = _gains(winner, before)
    return render(
        "sections/diagnostics.md.j2",
        experts=facts["experts"],
        epochs=facts["epochs"],
        steps=_thirds(facts["step_length"]["values"]),
        distance=distances[-1],
        half=next(epoch for epoch, distance in enumerate(distances, start=1) if distance >= distances[-1] / 2),
        origin=_origin(before),
        start=start,
        early_starts=_spans(starts[:third], starts),
        late_starts=_spans(starts[-third:], starts),
        winner=winner,
        better=_spans(better, winner["start_epochs"]),
        worse=_spans(worse, winner["start_epochs"]),
        rows=[_row(entry) for entry in facts["losses"]],
    )


class _Thirds(NamedTuple):
    """The first third of some epochs against the last."""

    places: int
    """Epochs of a third."""
    early: float
    late: float
    verdict: str
    """Whether the late mean is "more" or "less" than the early one, or "unclear"."""


def _thirds(rows: Sequence[Sequence[float]]) -> _Thirds:
    """Compare the first with the last third of rows by place and expert.

    The verdict is the side of 0 on which the 95 % interval of the experts' differences lies. It is unclear where the
    interval contains 0, with one expert, and where the difference is below NEGLIGIBLE.

    Args:
        rows: By epoch, one value per expert.
    """
    third = max(1, len(rows) // 3)
    early, late = ([fmean(values) for values in zip(*part, strict=True)] for part in (rows[:third], rows[-third:]))
    interval = summarize([after - before for before, after in zip(early, late, strict=True)])["interval_95"]
    first, last, verdict = fmean(early), fmean(late), "unclear"
    if interval and not interval[0] <= 0 <= interval[1] and abs(last - first) > NEGLIGIBLE * first:
        verdict = "more" if last > first else "less"
    return _Thirds(third, first, last, verdict)


def _gains(after: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the start epochs at which a set's loss is lower, and higher, than before distillation on all experts."""
    better: list[int] = []
    worse: list[int] = []
    for start, *rows in zip(after["start_epochs"], after["values"], before["values"], strict=True):
        gains = [theirs - ours for ours, theirs in zip(*rows, strict=True) if None not in (ours, theirs)]
        if gains and min(gains) > 0:
            better.append(start)
        elif gains and max(gains) < 0:
            worse.append(start)
    return better, worse


def _spans(chosen: Sequence[int], starts: Sequence[int]) -> str:
    """Return some of the start epochs as spans of neighbours: "0–7, 12"; "none" for none."""
    runs = groupby(enumerate(chosen), lambda each: starts.index(each[1]) - each[0])  # constant along neighbours
    spans = [[start for _, start in run] for _, run in runs]
    return ", ".join(f"{span[0]}–{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in spans) or "none"


def _row(entry: Mapping[str, Any]) -> list[str]:
    means = [fmean(losses.values()) if losses else None for losses in _by_range(entry)]
    losses_text = ["–" if mean is None else "diverges" if math.isnan(mean) else f"{mean:.3g}" for mean in means]
    figures = [str(entry["N"]), str(entry["M"]), f"{entry['alpha']:.3g}", f"{entry['T_minus']}–{entry['last_start']}"]
    return [_title(entry), entry["trial"], *figures, *losses_text]


def label_section(records: Sequence[TrialRecord]) -> str:
    """Return the section about the labels of soft-label trials in Markdown; "" where there is no such trial."""
    soft = [record for record in ranked(records) if "label_inconsistency" in record.measures]
    if not soft:
        return ""
    rows = [
        [record.name, str(record.iterations), f"{record.measures['label_inconsistency']:.1%}", f"{record.last:.3f}"]
        for record in soft[:_LABELLED]
    ]
    return render("sections/labels.md.j2", shown=len(rows), trials=len(soft), rows=rows)


def loss_section(records: list[TrialRecord]) -> str:
    """Return the section on whether the matching loss predicts accuracy in Markdown; "" where ρ is not defined.

    Source: docs/method.md, "DCS".
    """
    pairs = [
        (record.measures["matching_loss"], record.last)
        for record in records
        if "matching_loss" in record.measures and record.last is not None
    ]
    correlation = rank_correlation([loss for loss, _ in pairs], [accuracy for _, accuracy in pairs])
    if correlation is None:
        return ""
    rho, p = correlation
    return render("sections/loss.md.j2", rho=rho, p=p, significant=p <= ALPHA, trials=len(pairs))
