"""M-DATM: images trained so that inner steps on them follow an expert's trajectory. docs/method.md, "Distillation".

Shape legend: S synthetic images, ch channels, H = W side, C classes, P parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainables.config.distillation import DistillationConfig
from trainables.distillation.learned_images import Learned, LearnedImages, Update
from trainables.distillation.matching import Chunk, Matcher, MatchingGradient, draw_chunks
from trainables.errors import ConfigError
from trainables.experts.store import Trajectories
from trainables.seeding import generator

__all__ = ["Distiller", "Iteration"]

_Matched = TypeVar("_Matched")


@dataclass(frozen=True, kw_only=True)
class Iteration(Update):
    """The result of one iteration; it is skipped if its loss exceeds the threshold or something is not finite."""

    expert: int
    """Number of the expert that was matched."""
    start_epoch: int
    """t, the epoch at which the matching started."""
    upper: int
    """Upper bound of the start epoch."""
    floored: bool
    """Whether the update would have taken α below its floor."""


class Distiller(LearnedImages):
    """A distillation by trajectory matching; it can stop after any iteration and resume bit for bit.

    Every random choice is drawn from a generator named by seed and iteration. The state therefore consists of the
    images, soft labels and α, or its logarithm, with their momentum, the moving average, and four counters. An update
    that would make any of them not finite is skipped.
    """

    loss_name = "matching_loss"
    """Name of the loss in a trial's result; the losses of different methods are different quantities."""

    def __init__(
        self,
        config: DistillationConfig,
        *,
        matcher: Matcher,
        trajectories: Trajectories,
        images: Tensor,
        labels: Tensor,
        seed: int,
    ) -> None:
        """Start a distillation.

        Args:
            config: Settings of the distillation; the matcher was made from its `gradient`, `precision` and `compile`.
            matcher: Computes the gradients; it has the augmentation of the inner steps.
            trajectories: Experts with snapshots up to epoch T_plus + M (one less if `range_end` is exclusive).
            images: Initial images, normalised float [S, ch, H, W]; copied. Their device and dtype are those of the
                whole computation.
            labels: Hard labels, int64 [S], or initial logits of soft ones, float [S, C], as `label_mode` says.
            seed: Seed of every random choice.

        Raises:
            ConfigError: There is not one label per image, or the labels do not fit `label_mode`.
        """
        if len(images) != len(labels):
            raise ConfigError(f"a synthetic set needs one label an image: {len(images)} images, {len(labels)} labels")
        soft = config.label_mode == "soft"
        if labels.is_floating_point() != soft:
            raise ConfigError(f"label_mode {config.label_mode} does not go with labels of {labels.dtype}")
        super().__init__(config, images, seed)
        self.matcher = matcher
        self.trajectories = trajectories
        self.floored = 0
        """Iterations so far whose update was stopped by α's floor."""
        self._alpha = Learned.start(self._as_learned(config.alpha))
        """α, or log α where `alpha_update` is log; float64 []."""
        self._soft = Learned.start(labels.to(images).clone()) if soft else None
        self._initial_labels = labels.to(images.device)

    @property
    def labels(self) -> Tensor:
        """Hard labels, int64 [S], or the current logits of soft labels, float [S, C]."""
        return self._initial_labels if self._soft is None else self._soft.values

    @property
    def alpha(self) -> float:
        """The learning rate of the inner steps."""
        return float(self._alpha_of(self._alpha.values))

    @property
    def micro_batch(self) -> int | None:
        """Largest number of images that pass through the network at a time; None: a whole chunk."""
        return self.matcher.step.micro_batch

    def step(self) -> Iteration:
        """Run one iteration: draw a start, compute the matching loss and its gradient, update images, labels and α."""
        expert, start_epoch, gradient = self._match(self.matcher)
        finite, skipped, floored = self._descend(gradient)
        upper = self.config.matching_range.upper(self.iteration)
        self.iteration += 1
        return Iteration(
            gradient.loss, finite, skipped, expert=expert, start_epoch=start_epoch, upper=upper, floored=floored
        )

    def next_loss(self) -> tuple[int, float]:
        """Return the expert of the next iteration and its matching loss, which is not finite if the steps diverge.

        Nothing is changed. Cost: that of `Matcher.loss`.
        """
        expert, _, loss = self._match(self.matcher.loss)
        return expert, loss

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on; its tensors are not modified later.

        `labels` and `label_velocity` are present if labels are soft, `ema` if there is a moving average, and
        `log_alpha` if it is what is learned: its velocity is then that of log α, and `alpha` is there for readers.
        """
        state = {
            **super().state_dict(),
            "alpha": self.alpha,
            "alpha_velocity": float(self._alpha.velocity),
            "floored": self.floored,
        }
        if self.config.alpha_update == "log":
            state["log_alpha"] = float(self._alpha.values)
        if self._soft is not None:
            state |= {"labels": self._soft.values, "label_velocity": self._soft.velocity}
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        learned = state["log_alpha" if self.config.alpha_update == "log" else "alpha"]
        self._alpha = Learned(*torch.tensor([learned, state["alpha_velocity"]], dtype=torch.float64))
        self._soft = Learned(state["labels"], state["label_velocity"]) if self._soft is not None else None
        self.floored = int(state["floored"])

    def _descend(self, gradient: MatchingGradient) -> tuple[bool, bool, bool]:
        """Update all learned quantities or none; return `finite`, `skipped` and `floored` of `Iteration`."""
        config, soft = self.config, self._soft
        images = self._moved(gradient.images)
        along_alpha = torch.tensor(gradient.alpha, dtype=torch.float64)
        if config.alpha_update == "log":  # ∂L/∂log α = α · ∂L/∂α
            along_alpha = along_alpha * self._alpha_of(self._alpha.values)
        alpha = self._alpha.after(along_alpha, lr=config.lr_alpha, momentum=config.momentum_alpha)
        if soft is not None and gradient.labels is not None:
            soft = soft.after(gradient.labels, lr=config.lr_label, momentum=config.momentum_label)
        finite = math.isfinite(gradient.loss) and images.finite and alpha.finite and (soft is None or soft.finite)
        finite = finite and math.isfinite(self._alpha_of(alpha.values))
        accepted = finite and gradient.loss <= config.max_matching_loss
        floored = False
        if config.alpha_floor > 0:
            floor = self._as_learned(config.alpha_floor)
            floored = accepted and bool(alpha.values < floor)
            if floored:  # the momentum stays, so that gradients that raise α offset those that lowered it
                alpha = alpha._replace(values=floor)
        if accepted:  # all at once and last, so that an earlier error leaves the state unchanged
            ema = self._averaged(images.values)
            self._images, self._alpha, self._soft, self._ema = images, alpha, soft, ema
        self.skipped += not accepted
        self.not_finite += not finite
        self.floored += floored
        return finite, not accepted, floored

    def _as_learned(self, alpha: float) -> Tensor:
        """Return α as it is learned, float64 []."""
        value = torch.tensor(alpha, dtype=torch.float64)
        return value.log() if self.config.alpha_update == "log" else value

    def _alpha_of(self, learned: Tensor) -> Tensor:
        """Return α, float64 [], of what is learned."""
        return learned.exp() if self.config.alpha_update == "log" else learned

    def _match(self, compute: Callable[..., _Matched]) -> tuple[int, int, _Matched]:
        """Draw the next iteration; return its expert, its start epoch, and what the matcher computes of it."""
        config = self.config
        draws = generator(self.seed, "distillation", self.iteration)
        expert, starts = self._expert(), config.matching_range.starts(self.iteration)
        start_epoch = starts[int(torch.randint(len(starts), (), generator=draws))]
        matched = compute(
            start=self._snapshot(expert, start_epoch),
            target=self._snapshot(expert, start_epoch + config.M),
            images=self.images,
            labels=self.labels,
            alpha=self.alpha,
            chunks=self._chunks(draws),
        )
        return expert, start_epoch, matched

    def _expert(self) -> int:
        """Return this iteration's expert: all experts once in random order, then again in another order."""
        lap, place = divmod(self.iteration, len(self.trajectories))
        order = torch.randperm(len(self.trajectories), generator=generator(self.seed, "expert order", lap))
        return int(order[place])

    def _snapshot(self, expert: int, epoch: int) -> Tensor:
        return self.trajectories.snapshot(expert, epoch).to(self.images)

    def _chunks(self, draws: torch.Generator) -> list[Chunk]:
        """Draw the N inner steps."""
        config = self.config
        return draw_chunks(self.images, config.N, config.batch_syn, self.matcher.augmentation, draws)
