"""Diagnostics of a sweep's experts and sets, on why early trajectories are easier to match: diagnostics.json.

Source: docs/method.md, "What a review asks for".
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.results.entries import PAPER_SETTING, WINNER
from orchestrator.results.statistics import summarize
from orchestrator.results.trials import TrialRecord
from orchestrator.stages.inputs import Inputs
from orchestrator.terminal.progress_bar import progress_bar
from orchestrator.terminal.steps import Steps
from trainables.seeding import seed_of
from trainables.storage.checkpoints import checkpoint_place
from trainables.workers.diagnostics import SetLosses, distances_of_experts, losses_of_trial

__all__ = ["measure_diagnostics"]

FORMAT_VERSION = 1
EXPERTS = 4
"""Experts that are measured: on the digits they differ by a few per cent, and four are enough for an interval."""
DISTANCES_SHARE = 0.05
"""Time that the distances take, as a share of a set's losses: for the estimate of the time left."""
STARTS = 25
"""Most start epochs, evenly spread: more do not change the curve, and one costs N gradients per expert and set."""


def measure_diagnostics(
    inputs: Inputs,
    resources: Resources,
    best: TrialRecord,
    reference: TrialRecord | None,
    console: Console,
    patience: Patience,
    *,
    follow: Callable[[Steps], None],
) -> dict[str, Any]:
    """Return the content of diagnostics.json, measured on workers; nothing is learned, and no test image is read.

    Cost: N · STARTS · EXPERTS inner steps per set, without second derivatives: about 30 iterations of the set's
    distillation, for two or three sets. On the digits about 3 s of a core per set.

    Args:
        inputs: The sweep's inputs, with trained experts.
        resources: Resources of one worker.
        best: The best trial: its set is measured, and the images that the set started from.
        reference: The reference trial, or None; it is left out if it is the best trial or has no set.
        console: Shows the progress.
        patience: Decides when a lost measurement is started again.
        follow: Called with the measurements as steps when they begin.

    Raises:
        ClusterError: Processes were lost for longer than the patience.

    Returns:
        version, experts (how many), epochs (the horizon); step_length and distance, ‖θ*_t − θ*_{t−1}‖₂ and
        ‖θ*_t − θ*_0‖₂ for t = 1 … epochs; losses, one entry per set: name (before, winner or paper_setting), trial,
        initialization, alpha, N, M, T_minus, T_plus, last_start (the last start epoch of its range), start_epochs,
        experts, and where alpha_init is auto alpha_curve, pairs of α and loss. Step_length, distance and every entry of
        losses have mean and std over experts, and values by epoch and expert; null where a value is not finite.
    """
    work = inputs.trial_work(resources, compiled=False)
    experts, seed = min(EXPERTS, work.experts), seed_of(inputs.settings.seed, "diagnostics")
    sets: list[tuple[str, TrialRecord]] = [("before", best), (WINNER, best)]
    if reference is not None and reference.number != best.number:
        sets.append((PAPER_SETTING, reference))
    distances, losses = (remote_task(measure, resources) for measure in (distances_of_experts, losses_of_trial))
    tasks = [Task("the distances of experts", partial(distances.remote, work, experts))]
    for name, record in sets:
        _, own = inputs.settings.space.split(record.settings)
        place = None if name == "before" else checkpoint_place(work.checkpoints, record.number)
        run = partial(losses.remote, work, own, place, experts, STARTS, seed)
        tasks.append(Task(f"the diagnostics of {record.name} ({name})", run))
    answers: list[Any] = [None] * len(tasks)
    costs = [DISTANCES_SHARE, *(1.0 for _ in sets)]
    with progress_bar(console, "Diagnostics", len(tasks), follow) as show:
        measured, done = 0, 0.0

        def record_answer(number: int, answer: Any) -> None:
            nonlocal measured, done
            answers[number] = answer
            measured += 1
            done += costs[number]
            show(measured, done / sum(costs))

        run_tasks(dict(enumerate(tasks)), resources, patience, record_answer)
    return {
        "version": FORMAT_VERSION,
        "experts": experts,
        "epochs": work.epochs,
        "step_length": _series(answers[0][0]),
        "distance": _series(answers[0][1]),
        "losses": [
            _set_facts(name, record, measured)
            for (name, record), measured in zip(sets, answers[1:], strict=True)
            if measured is not None
        ],
    }


def _series(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return mean, std and values of rows by epoch and expert; null where a value is not finite."""
    summaries = [summarize(row) if all(map(math.isfinite, row)) else None for row in rows]
    return {
        **{name: [summary and summary[name] for summary in summaries] for name in ("mean", "std")},
        "values": [[value if math.isfinite(value) else None for value in row] for row in rows],
    }


def _set_facts(name: str, record: TrialRecord, measured: SetLosses) -> dict[str, Any]:
    settings = record.settings
    return {
        "name": name,
        "trial": record.name,
        **{key: settings[key] for key in ("initialization", "N", "M", "T_minus", "T_plus")},
        "last_start": settings["T_plus"] - (settings["range_end"] == "exclusive"),
        "alpha": measured.alpha,
        "start_epochs": measured.start_epochs,
        "experts": len(measured.losses[0]),
        **({"alpha_curve": _finite_points(measured.alpha_curve)} if measured.alpha_curve else {}),
        **_series(measured.losses),
    }


def _finite_points(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float | None]]:
    """Return the points of a curve; null where a loss is not finite."""
    return [(alpha, loss if math.isfinite(loss) else None) for alpha, loss in curve]
