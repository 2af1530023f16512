"""Diagnostics of experts and synthetic sets: distances between epochs, and matching losses by start epoch.

docs/method.md, "What a review asks for": ‖θ*_t − θ*_{t+1}‖ per epoch, and the matching loss by start epoch.

Shape legend: E experts, P parameters.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trainables.distillation.diagnostics import matching_losses, parameter_distances
from trainables.distillation.starting_alpha import AlphaCurve
from trainables.experts.store import Trajectories
from trainables.storage.checkpoints import read_checkpoint
from trainables.workers.process import prepare_process
from trainables.workers.workbench import TrialWork, Workbench

__all__ = ["SetLosses", "distances_of_experts", "losses_of_trial"]


class SetLosses(NamedTuple):
    """The matching losses of a synthetic set, in plain values."""

    alpha: float
    """Its α."""
    start_epochs: list[int]
    losses: list[list[float]]
    """Losses by start epoch and expert; not finite if the inner steps diverge."""
    alpha_curve: Sequence[tuple[float, float]] | None
    """The trial's `AlphaCurve.points`; None: its alpha_init is a number."""


def distances_of_experts(work: TrialWork, experts: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return `parameter_distances` of the first `experts` experts over the whole horizon, by epoch and expert.

    Raises:
        ExpertFileError: An expert is missing, short or corrupt.
    """
    prepare_process(work.device, work.arithmetic)
    steps, totals = parameter_distances(_first_experts(work, experts), work.epochs)
    return steps.tolist(), totals.tolist()


def losses_of_trial(
    work: TrialWork, own: Mapping[str, Any], checkpoint: str | None, experts: int, most_starts: int, seed: int
) -> SetLosses | None:
    """Return the `matching_losses` of a trial's set on the sweep's first experts; None if it has no checkpoint.

    The inner steps have the trial's N, M, batch_syn and α, for a set of any method. If the method did not learn α, it
    is alpha_init.

    Args:
        work: Settings that all trials of the sweep share.
        own: The settings in which the trial differs from others.
        checkpoint: Path or URI of the set; None: the initial images, labels and α of the trial.
        experts: Number of experts to match, from number 0 on.
        most_starts: Maximum number of start epochs, evenly spaced from 0 to the last, horizon − M.
        seed: Seed of the draws.

    Raises:
        CheckpointError: The file is not a checkpoint.
        ExpertFileError: An expert is missing, short or corrupt.
    """
    prepare_process(work.device, work.arithmetic)
    state = read_checkpoint(checkpoint) if checkpoint else None
    if checkpoint and state is None:  # the settings of a trial without a checkpoint may be invalid
        return None
    bench = Workbench(work)
    curve = AlphaCurve.of_state(state) or bench.starting_alpha(own)
    distiller = bench.trajectory_matching(own if curve is None else {**own, "alpha_init": curve.best})
    if state is not None:  # the state of another method lacks the quantities that only trajectory matching learns
        own = distiller.state_dict()
        distiller.load_state_dict({name: state.get(name, value) for name, value in own.items()})
    starts = _evenly_spread(work.epochs - distiller.config.M, most_starts)
    losses = matching_losses(distiller, _first_experts(work, experts), starts, seed)
    return SetLosses(distiller.alpha, starts, losses.tolist(), None if curve is None else curve.points)


def _evenly_spread(last: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced whole numbers from 0 to `last`, including both."""
    count = min(most, last + 1)
    return [round(place * last / max(1, count - 1)) for place in range(count)]


def _first_experts(work: TrialWork, experts: int) -> Trajectories:
    return work.store.open(range(experts), work.epochs)
