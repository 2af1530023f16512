"""What a sweep's own experts and sets show of why early is easy: diagnostics.json. METHOD §7."""

import math
from collections.abc import Sequence
from typing import Any

import ray
from rich.console import Console

from orchestrator.cluster import Resources
from orchestrator.inputs import Inputs
from orchestrator.live import progress_bar
from orchestrator.statistics import summarize
from orchestrator.trials import TrialRecord
from trainables.checkpoints import checkpoint_place
from trainables.diagnostics import SetLosses, distances_of_experts, losses_of_trial
from trainables.seeding import seed_of

__all__ = ["measure_diagnostics"]

FORMAT_VERSION = 1
EXPERTS = 4
"""Experts that are looked at: they differ by a few per cent, on the digits, and four are enough for an interval."""
STARTS = 25
"""Start epochs at most, evenly spread: more make no other curve, and each costs N gradients an expert and set."""


def measure_diagnostics(
    inputs: Inputs, resources: Resources, best: TrialRecord, reference: TrialRecord | None, console: Console
) -> dict[str, Any]:
    """Return what diagnostics.json holds, measured on workers; nothing is learned, and no test image read.

    Cost: N · STARTS · EXPERTS inner steps a set, without second derivatives: as much as some 30 iterations of its
    distillation, for two or three sets. On the digits about 3 s of a core a set.

    Args:
        inputs: The sweep's inputs, with experts that are trained.
        resources: What one worker takes.
        best: The best trial: its set, and what that began as.
        reference: The reference trial, if there is one; left out where it is the best trial or has left no set.
        console: Where progress is shown.

    Returns:
        version, experts (how many), epochs (the horizon); step_length and distance, ‖θ*_t − θ*_{t−1}‖₂ and
        ‖θ*_t − θ*_0‖₂ for t = 1 … epochs; losses, a set each: name (before, winner or paper_setting), trial,
        initialization, alpha, N, M, T_minus, T_plus, last_start (the last start epoch of its range), start_epochs,
        experts. Each has mean and std over experts, and values by place and expert; null where one is not finite.
    """
    work = inputs.trial_work(resources, compiled=False)
    experts, seed = min(EXPERTS, work.experts), seed_of(inputs.settings.seed, "diagnostics")
    sets: list[tuple[str, TrialRecord]] = [("before", best), ("winner", best)]
    if reference is not None and reference.number != best.number:
        sets.append(("paper_setting", reference))
    losses = ray.remote(losses_of_trial).options(**resources.actor_options)
    jobs: list[Any] = [ray.remote(distances_of_experts).options(**resources.actor_options).remote(work, experts)]
    for name, record in sets:
        place = None if name == "before" else checkpoint_place(work.checkpoints, record.number)
        jobs.append(losses.remote(work, record.settings, place, experts, STARTS, seed))
    with progress_bar(console, "Diagnostics", len(jobs)) as show:
        waiting = list(jobs)
        while waiting:
            _, waiting = ray.wait(waiting)
            show(len(jobs) - len(waiting))
    answers = ray.get(jobs)
    return {
        "version": FORMAT_VERSION,
        "experts": experts,
        "epochs": work.epochs,
        "step_length": _series(answers[0][0]),
        "distance": _series(answers[0][1]),
        "losses": [_set_facts(*each, told) for each, told in zip(sets, answers[1:], strict=True) if told is not None],
    }


def _series(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return mean, std and values of rows by place and expert; null where a value is not finite."""
    summaries = [summarize(row) if all(map(math.isfinite, row)) else None for row in rows]
    return {
        **{name: [each and each[name] for each in summaries] for name in ("mean", "std")},
        "values": [[value if math.isfinite(value) else None for value in row] for row in rows],
    }


def _set_facts(name: str, record: TrialRecord, told: SetLosses) -> dict[str, Any]:
    settings = record.settings
    return {
        "name": name,
        "trial": record.name,
        **{key: settings[key] for key in ("initialization", "N", "M", "T_minus", "T_plus")},
        "last_start": settings["T_plus"] - (settings["range_end"] == "exclusive"),
        "alpha": told.alpha,
        "start_epochs": told.start_epochs,
        "experts": len(told.losses[0]),
        **_series(told.losses),
    }
