"""The α that a distillation starts with where `alpha_init` is auto.

Source: docs/design/method.md, "Settings for your own data".

Of a logarithmic range it is the α at which N inner steps on the initial images come nearest the target: the mean
matching loss of a few paths is lowest. A path is that of an iteration without a gradient (`Matcher.loss`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from trainables.config.distillation import DistillationConfig
from trainables.distillation.matching import Chunk, Matcher, draw_chunks
from trainables.experts.store import Trajectories
from trainables.seeding import generator

__all__ = ["AlphaCurve", "find_alpha"]

RANGE = [10.0 ** (half / 2) for half in range(-10, 3)]
"""1e-5 to 10, two a decade: the α of published and own settings lie between 5e-4 and 0.1."""
NEARER = (10**0.25, 10**0.125)
"""Ratios at which the neighbours of the best α are tried too, one after the other."""
PATHS = 4
"""Paths that are averaged: from start epochs that are spread evenly over the matching range, each with an expert."""
TOO_FAR = 4.0
"""A loss at which steps go past the target by twice its distance; a larger α goes further, so it is not tried."""


@dataclass(frozen=True)
class AlphaCurve:
    """Mean matching losses of the initial images over α, before the first iteration."""

    KEY: ClassVar[str] = "alpha_curve"
    """Name of the points in a trial's checkpoint, which has it where α was found."""

    points: Sequence[tuple[float, float]]
    """α and loss, by ascending α; the loss is infinite where a path diverges."""

    @classmethod
    def of_state(cls, state: Mapping[str, Any] | None) -> "AlphaCurve | None":
        """Return the curve that a trial's checkpoint holds; None: there is no checkpoint, or α was given."""
        points = (state or {}).get(cls.KEY)
        return None if points is None else cls([(alpha, loss) for alpha, loss in points])

    @property
    def best(self) -> float:
        """The α with the lowest loss; of equal ones the smallest."""
        return min(self.points, key=lambda point: point[1])[0]

    @property
    def lowest(self) -> float:
        """The lowest loss."""
        return min(loss for _, loss in self.points)


def find_alpha(
    config: DistillationConfig,
    *,
    matcher: Matcher,
    trajectories: Trajectories,
    images: Tensor,
    labels: Tensor,
    seed: int,
) -> AlphaCurve:
    """Return the losses over α; its `best` is the α to start with. The same arguments give the same bits.

    Args:
        config: Settings of the distillation, of which alpha_init is not read.
        matcher: Computes the losses; it has the augmentation of the inner steps.
        trajectories: Experts with snapshots up to the last start epoch + M.
        images: Initial images, normalised float [S, ch, H, W].
        labels: Hard labels, int64 [S], or initial logits of soft ones, float [S, C].
        seed: Seed of the paths: experts, chunks and augmentations. All α are tried on the same paths.

    Cost: about N · 4 paths · 11 α gradients of a chunk, as much as ten iterations, without second derivatives.
    """
    paths = [_path(config, number, matcher, trajectories, images, seed) for number in range(PATHS)]

    def mean_loss(alpha: float) -> float:
        losses = []
        for expert, start_epoch, chunks in paths:
            start, target = (
                trajectories.snapshot(expert, epoch).to(images) for epoch in (start_epoch, start_epoch + config.M)
            )
            loss = matcher.loss(start=start, target=target, images=images, labels=labels, alpha=alpha, chunks=chunks)
            losses.append(loss if math.isfinite(loss) else math.inf)
        return sum(losses) / len(losses)

    return _search(mean_loss, least=config.alpha_floor)


def _search(mean_loss: Callable[[float], float], *, least: float) -> AlphaCurve:
    """Return the losses that a scan of the range, and then of the best α's neighbours, measures; α is at least `least`.

    The scan ascends and ends at the first α that goes too far.
    """
    losses: dict[float, float] = {}

    def measure(alpha: float) -> float:
        alpha = max(alpha, least)
        if alpha not in losses:
            losses[alpha] = mean_loss(alpha)
        return losses[alpha]

    def curve() -> AlphaCurve:
        return AlphaCurve(sorted(losses.items()))

    for alpha in RANGE:
        if measure(alpha) >= TOO_FAR:
            break
    for ratio in NEARER:
        best = curve().best
        measure(best / ratio)
        measure(best * ratio)
    return curve()


def _path(
    config: DistillationConfig, number: int, matcher: Matcher, trajectories: Trajectories, images: Tensor, seed: int
) -> tuple[int, int, list[Chunk]]:
    """Return a path's expert, start epoch and inner steps."""
    starts = config.matching_range.starts(config.iterations - 1)
    order = torch.randperm(len(trajectories), generator=generator(seed, "starting alpha", "experts"))
    draws = generator(seed, "starting alpha", number)
    chunks = draw_chunks(images, config.N, config.batch_syn, matcher.augmentation, draws)
    start_epoch = starts[round(number * (len(starts) - 1) / (PATHS - 1))]
    return int(order[number % len(order)]), start_epoch, chunks
