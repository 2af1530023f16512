"""Diagnostics of matching ranges: how far the experts move, and the matching loss by start epoch."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor

from trainables.config.matching_range import MatchingRange
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher
from trainables.distillation.trajectory import Distiller
from trainables.experts.store import Trajectories

__all__ = ["matching_losses", "parameter_distances"]


def parameter_distances(trajectories: Trajectories, epochs: int) -> tuple[Tensor, Tensor]:
    """Return the distance that the experts' parameters move in each epoch, and their distance from the start after it.

    Args:
        trajectories: The experts; three snapshots at a time are in memory.
        epochs: Number of epochs to measure; every expert has at least as many.

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
    """Return the matching loss of an unchanged synthetic set for each start epoch and expert.

    Source: docs/method.md, "Distillation", step 4.

    The inner steps are those of an iteration of its distillation, with its settings and its α. The set is not updated.
    The chunks and augmentations are the same at every start epoch, and the same for every set of this size under the
    same N and batch_syn, so that losses differ only by set and epoch.

    Args:
        distiller: The set: its result images, labels, α, settings and matcher; not changed.
        trajectories: The experts to match, with snapshots up to the last start epoch + M.
        starts: Start epochs t.
        seed: Seed of the draws.

    Returns:
        ‖θ_N − θ*_{t+M}‖² / ‖θ*_t − θ*_{t+M}‖², float64 [starts, E]; not finite where the inner steps diverge.

    Cost: N gradients for each start epoch and expert, and memory for two parameter vectors; no second derivatives.
    """
    losses = torch.empty(len(starts), len(trajectories), dtype=torch.float64)
    step = distiller.matcher.step
    matcher = Matcher(
        InnerStep(step.network, precision=step.precision, micro_batch=step.micro_batch),
        distiller.matcher.augmentation,
    )
    for row, start in enumerate(starts):
        single_epoch = MatchingRange(T_minus=start, T=start + 1, T_plus=start + 1, interval=1, range_end="exclusive")
        probe = Distiller(
            replace(distiller.config, alpha_init=1.0, alpha_floor=0.0, alpha_update="linear", **asdict(single_epoch)),
            matcher=matcher,
            trajectories=trajectories,
            images=distiller.result_images,
            labels=distiller.labels,
            seed=seed,
        )
        probe.load_state_dict({**probe.state_dict(), "alpha": distiller.alpha})
        for iteration in range(len(trajectories)):  # every expert once
            probe.iteration = iteration
            expert, loss = probe.next_loss()
            losses[row, expert] = loss
    return losses
