"""What a sweep cost: by the clock, in hours of CPU cores and GPUs, and against a search that stops no trial early."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.reporting.templating import render
from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord

__all__ = ["cost_section"]


class _Unpruned(NamedTuple):
    """The estimated cost of the same search without early stopping."""

    core_hours: str
    gpu_hours: str
    factor: float
    """As a multiple of the search's own cost."""


def cost_section(iterations: int, result: Mapping[str, Any], records: Sequence[TrialRecord]) -> str:
    """Return the section about cost in Markdown.

    Args:
        iterations: Distillation iterations of a trial that is not stopped early.
        result: The content of result.json.
        records: The search's trials.
    """
    seconds, workers, experts = result["seconds"], result["workers"], result["experts"]
    gpus = workers["gpus_each"]
    searched = sum(record.seconds for record in records)
    held = {
        "experts": seconds["experts"] * workers["count"],
        "search": searched,
        "finals": seconds["finals"] * workers["count"],
    }
    rows = [[stage, f"{seconds[stage]:.0f} s", *_hours(taken, gpus)] for stage, taken in held.items()]
    rows.append(["all", f"{seconds['total']:.0f} s", *_hours(sum(held.values()), gpus)])
    measured = [record for record in records if record.iterations and record.seconds]
    unpruned = None
    if any(record.iterations < iterations for record in measured):
        whole = sum(record.seconds * iterations / record.iterations for record in measured)
        unpruned = _Unpruned(*_hours(whole, gpus), whole / searched)
    return render(
        "sections/cost.md.j2",
        rows=rows,
        workers=workers["count"],
        gpus=gpus,
        trained=experts["trained"],
        reused=experts["reused"],
        unpruned=unpruned,
        against_plan=_against_plan(result.get("planned_trial"), records),
    )


def _against_plan(planned: Mapping[str, Any] | None, records: Sequence[TrialRecord]) -> str | None:
    """Return the measured time of trial 0 beside the plan's; None: one of them is not known."""
    first = next((record for record in records if record.number == REFERENCE_TRIAL), None)
    if planned is None or first is None or first.status != "finished" or not first.seconds:
        return None
    low, high = (_seconds(planned[name]) for name in ("low_s", "high_s"))
    said = low if low == high else f"{low} to {high}"
    factor = first.seconds / math.sqrt(planned["low_s"] * planned["high_s"])
    took = f"Trial 0 took {_seconds(first.seconds)}; the plan says {said} on {planned['device']}"
    return f"{took}: {factor:.2g} times as long."


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


def _hours(seconds: float, gpus: float) -> tuple[str, str]:
    """Return the CPU-core-hours and GPU-hours of so many worker-seconds; a dash without GPUs."""
    return f"{seconds / 3600:.3g}", f"{gpus * seconds / 3600:.3g}" if gpus else "–"
