"""What an expert's trajectory and a synthetic set show without learning: how far epochs go, what is easy to match.

METHOD §7, "theory for early range": ‖θ*_t − θ*_{t+1}‖ an epoch, and the matching loss by start epoch.

Shape legend: E experts, P parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.checkpoints import read_checkpoint
from trainables.distillation import Distiller
from trainables.inner_step import InnerStep
from trainables.matching import Matcher
from trainables.schedule import MatchingRange
from trainables.trajectories import Trajectories, TrajectoryStore
from trainables.workbench import TrialWork, Workbench

__all__ = ["SetLosses", "distances_of_experts", "losses_of_trial", "matching_losses", "parameter_distances"]


class SetLosses(NamedTuple):
    """The matching losses of a synthetic set, in plain values."""

    alpha: float
    """Its α."""
    start_epochs: list[int]
    losses: list[list[float]]
    """By start epoch and expert; not finite where the inner steps diverge."""


def parameter_distances(trajectories: Trajectories, epochs: int) -> tuple[Tensor, Tensor]:
    """Return how far each epoch moves the experts' parameters, and how far from the start they are after it.

    Args:
        trajectories: The experts; three snapshots at a time are in memory.
        epochs: Epochs to look at; every expert has as many.

    Returns:
        ‖θ*_t − θ*_{t−1}‖₂ and ‖θ*_t − θ*_0‖₂ for t = 1 … epochs, each float64 [epochs, E].
    """
    steps, totals = (torch.empty(epochs, len(trajectories), dtype=torch.float64) for _ in range(2))
    for expert in range(len(trajectories)):
        start = before = trajectories.snapshot(expert, 0).double()
        for epoch in range(epochs):
            after = trajectories.snapshot(expert, epoch + 1).double()
            steps[epoch, expert] = torch.linalg.vector_norm(after - before)
            totals[epoch, expert] = torch.linalg.vector_norm(after - start)
            before = after
    return steps, totals


def matching_losses(distiller: Distiller, trajectories: Trajectories, starts: Sequence[int], seed: int) -> Tensor:
    """Return the matching loss of a synthetic set, as it is, from each start epoch of each expert. METHOD §2, step 4.

    The set is trained on as in an iteration of its distillation, with its settings and its α; nothing is learned. The
    chunks and augmentations are the same at every start epoch, and those of any other set of the same size under the
    same N and batch_syn, so that their losses differ by set and epoch alone.

    Args:
        distiller: The set: its result images, labels, α, settings and matcher; left as it is.
        trajectories: The experts to match, with snapshots up to the last start epoch + M.
        starts: Start epochs t.
        seed: Names the draws.

    Returns:
        ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖², float64 [starts, E]; not finite where the inner steps diverge.

    Cost: N gradients for each start epoch and expert, and memory for N parameter vectors; no second derivatives.
    """
    losses = torch.empty(len(starts), len(trajectories), dtype=torch.float64)
    step = distiller.matcher.step
    matcher = Matcher(
        _ForwardStep(step.network, precision=step.precision, micro_batch=step.micro_batch),
        distiller.matcher.augmentation,
    )
    for row, start in enumerate(starts):
        only = MatchingRange(T_minus=start, T=start + 1, T_plus=start + 1, interval=1)
        probe = Distiller(
            replace(distiller.config, **asdict(only)),
            matcher=matcher,
            trajectories=trajectories,
            images=distiller.result_images,
            labels=distiller.labels,
            seed=seed,
        )
        probe.load_state_dict({**probe.state_dict(), "alpha": distiller.alpha})
        for _ in range(len(trajectories)):  # every expert once
            done = probe.step()
            losses[row, done.expert] = done.loss
    return losses


def distances_of_experts(work: TrialWork, experts: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return `parameter_distances` of a sweep's first experts over its whole horizon, by epoch and expert.

    Raises:
        ExpertFileError: An expert is missing, short or corrupt.
    """
    _one_thread(work)
    steps, totals = parameter_distances(_first_experts(work, experts), work.epochs)
    return steps.tolist(), totals.tolist()


def losses_of_trial(
    work: TrialWork, config: Mapping[str, Any], checkpoint: str | None, experts: int, most_starts: int, seed: int
) -> SetLosses | None:
    """Return the `matching_losses` of a trial's set on a sweep's first experts; None if its checkpoint is not there.

    A set of any method is trained on with the trial's N, M, batch_syn and α: what no method learned is alpha_init.

    Args:
        work: What all trials of the sweep share.
        config: The trial's settings.
        checkpoint: Where the set is; None: the set that the trial began with, its first images, labels and α.
        experts: How many experts to match, from number 0 on.
        most_starts: How many start epochs at most: evenly spread from 0 to the last, horizon − M.
        seed: Names the draws.

    Raises:
        CheckpointError: What is there is no checkpoint.
        ExpertFileError: An expert is missing, short or corrupt.
    """
    _one_thread(work)
    state = read_checkpoint(checkpoint) if checkpoint else None
    if checkpoint and state is None:  # the settings of a trial that left none may not even make a distiller
        return None
    distiller = Workbench(work).trajectory_matching(config)
    if state is not None:  # that of another method lacks what only trajectory matching learns
        own = distiller.state_dict()
        distiller.load_state_dict({name: state.get(name, value) for name, value in own.items()})
    starts = _evenly_spread(work.epochs - distiller.config.M, most_starts)
    losses = matching_losses(distiller, _first_experts(work, experts), starts, seed)
    return SetLosses(distiller.alpha, starts, losses.tolist())


def _evenly_spread(last: int, most: int) -> list[int]:
    """Return at most so many whole numbers from 0 to `last`, both among them."""
    count = min(most, last + 1)
    return [round(place * last / max(1, count - 1)) for place in range(count)]


def _first_experts(work: TrialWork, experts: int) -> Trajectories:
    return TrajectoryStore(work.store, work.identity, work.network).open(range(experts), work.epochs)


def _one_thread(work: TrialWork) -> None:
    """Keep a worker on a CPU to its one core."""
    if work.device == "cpu":
        torch.set_num_threads(1)


class _ForwardStep(InnerStep):
    """An inner step whose products are zeros, at no cost: a matcher that has it finds the loss and no gradient."""

    def products(
        self, theta: Tensor, images: Tensor, targets: Tensor, adjoint: Tensor, *, curvature: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return torch.zeros_like(theta), torch.zeros_like(images), torch.zeros_like(targets), theta.new_zeros(())
