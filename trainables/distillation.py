"""M-DATM: images that are moved until training on them repeats an expert's early steps. METHOD §2.

Shape legend: S synthetic images, ch channels, H = W side, C classes, P parameters.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.config import DistillationConfig
from trainables.errors import ConfigError
from trainables.matching import Chunk, Matcher, MatchingGradient
from trainables.seeding import generator
from trainables.trajectories import Trajectories

__all__ = ["Distiller", "Iteration"]


@dataclass(frozen=True)
class Iteration:
    """What one iteration did."""

    expert: int
    """Whose trajectory was matched."""
    start_epoch: int
    """t, where the matching started."""
    upper: int
    """Upper bound of the start epoch."""
    loss: float
    """Matching loss before the update."""
    finite: bool
    """Whether the loss and all that the update would have led to are finite."""
    skipped: bool
    """Whether the loss was above the threshold, or something not finite, so that nothing was updated."""
    floored: bool
    """Whether the update would have taken α below its floor."""


class _Learned(NamedTuple):
    """A quantity under SGD with momentum, as torch.optim.SGD has it; its tensors are never written into."""

    values: Tensor
    velocity: Tensor

    @classmethod
    def start(cls, values: Tensor) -> "_Learned":
        return cls(values, torch.zeros_like(values))

    def after(self, gradient: Tensor, *, lr: float, momentum: float) -> "_Learned":
        velocity = torch.add(gradient, self.velocity, alpha=momentum)
        return _Learned(torch.sub(self.values, velocity, alpha=lr), velocity)

    @property
    def finite(self) -> bool:
        # A gradient that is not finite shows in the velocity.
        return bool(torch.isfinite(self.values).all() and torch.isfinite(self.velocity).all())


class Distiller:
    """A distillation that can be stopped after any iteration and taken up again bit for bit.

    Every random choice is drawn from a generator named by seed and iteration, so the state is the images, soft labels
    and α with their momentum, the moving average, and four counters. An update that would
    make any of it infinite or no number is skipped.
    """

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
            config: What to do; of its `gradient`, `precision` and `compile` the matcher is made.
            matcher: Computes the gradients, and has the augmentation of the inner steps.
            trajectories: Experts with snapshots up to epoch T_plus + M (one less if `range_end` is exclusive).
            images: Initial images, normalised float [S, ch, H, W]; copied. Their device and dtype are those of the
                whole computation.
            labels: Hard labels, int64 [S], or initial logits of soft ones, float [S, C], as `label_mode` says.
            seed: Names every random choice.
        """
        if len(images) != len(labels):
            raise ConfigError(f"a synthetic set needs one label an image: {len(images)} images, {len(labels)} labels")
        soft = config.label_mode == "soft"
        if labels.is_floating_point() != soft:
            raise ConfigError(f"label_mode {config.label_mode} does not go with labels of {labels.dtype}")
        self.config = config
        self.matcher = matcher
        self.trajectories = trajectories
        self.seed = seed
        self.initial_images = images.clone()
        self.iteration = 0
        self.skipped = 0
        """Iterations so far that updated nothing."""
        self.not_finite = 0
        """Those of them in which something was not finite."""
        self.floored = 0
        """Iterations so far whose update was stopped by α's floor."""
        self._images = _Learned.start(self.initial_images)
        self._alpha = _Learned.start(torch.tensor(config.alpha_init, dtype=torch.float64))
        self._soft = _Learned.start(labels.to(images).clone()) if soft else None
        self._initial_labels = labels.to(images.device)
        self._ema = images.clone() if config.ema_decay else None

    @property
    def images(self) -> Tensor:
        """The images that are learned, [S, ch, H, W]."""
        return self._images.values

    @property
    def result_images(self) -> Tensor:
        """What the distillation is to be judged by, [S, ch, H, W]: the images, or their average if there is one."""
        return self.images if self._ema is None else self._ema

    @property
    def labels(self) -> Tensor:
        """Hard labels, int64 [S], or the logits of soft ones as learned so far, float [S, C]."""
        return self._initial_labels if self._soft is None else self._soft.values

    @property
    def alpha(self) -> float:
        """The learning rate of the inner steps."""
        return float(self._alpha.values)

    @property
    def displacement(self) -> float:
        """Root mean square distance of the images from the initial ones, in units of normalised pixels."""
        return float((self.images - self.initial_images).square().mean().sqrt())

    def step(self) -> Iteration:
        """Run one iteration: draw a start, train on the set, move images, soft labels and α down the matching loss."""
        config, matching_range = self.config, self.config.matching_range
        draws = generator(self.seed, "distillation", self.iteration)
        expert = self._expert()
        starts = matching_range.starts(self.iteration)
        start_epoch = starts[int(torch.randint(len(starts), (), generator=draws))]
        gradient = self.matcher(
            start=self._snapshot(expert, start_epoch),
            target=self._snapshot(expert, start_epoch + config.M),
            images=self.images,
            labels=self.labels,
            alpha=self.alpha,
            chunks=self._chunks(draws),
        )
        finite, skipped, floored = self._descend(gradient)
        upper = matching_range.upper(self.iteration)
        self.iteration += 1
        return Iteration(expert, start_epoch, upper, gradient.loss, finite, skipped, floored)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on; its tensors are not written into later.

        `labels` and `label_velocity` are there where labels are soft, `ema` where there is a moving average.
        """
        state: dict[str, Any] = {
            "images": self._images.values,
            "image_velocity": self._images.velocity,
            "alpha": self.alpha,
            "alpha_velocity": float(self._alpha.velocity),
            "iteration": self.iteration,
            "skipped": self.skipped,
            "not_finite": self.not_finite,
            "floored": self.floored,
        }
        if self._soft is not None:
            state |= {"labels": self._soft.values, "label_velocity": self._soft.velocity}
        if self._ema is not None:
            state["ema"] = self._ema
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a distillation of the same config and seed where `state_dict` left it; the state is copied.

        Raises:
            ConfigError: The state is that of a distillation with other images, labels or moving average.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ConfigError(
                f"this state holds {', '.join(sorted(state))}, the distillation {', '.join(sorted(own))}; "
                "take it up with the settings it was made with"
            )
        if state["images"].shape != self.images.shape:
            raise ConfigError(
                f"this state holds images {list(state['images'].shape)}, the distillation {list(self.images.shape)}"
            )
        placed = {name: state[name].to(value).clone() for name, value in own.items() if isinstance(value, Tensor)}
        self._images = _Learned(placed["images"], placed["image_velocity"])
        self._alpha = _Learned(*torch.tensor([state["alpha"], state["alpha_velocity"]], dtype=torch.float64))
        self._soft = _Learned(placed["labels"], placed["label_velocity"]) if self._soft is not None else None
        self._ema = placed.get("ema")
        self.iteration = int(state["iteration"])
        self.skipped = int(state["skipped"])
        self.not_finite = int(state["not_finite"])
        self.floored = int(state["floored"])

    def _descend(self, gradient: MatchingGradient) -> tuple[bool, bool, bool]:
        """Update all that is learned, or nothing of it; returns `finite`, `skipped` and `floored` of `Iteration`."""
        config, soft = self.config, self._soft
        images = self._images.after(gradient.images, lr=config.lr_pixel, momentum=config.momentum_pixel)
        along_alpha = torch.tensor(gradient.alpha, dtype=torch.float64)
        alpha = self._alpha.after(along_alpha, lr=config.lr_alpha, momentum=config.momentum_alpha)
        if soft is not None and gradient.labels is not None:
            soft = soft.after(gradient.labels, lr=config.lr_label, momentum=config.momentum_label)
        finite = math.isfinite(gradient.loss) and images.finite and alpha.finite and (soft is None or soft.finite)
        accepted = finite and gradient.loss <= config.max_matching_loss
        floored = accepted and config.alpha_floor > 0 and float(alpha.values) < config.alpha_floor
        if floored:  # the momentum stays: what would lift α counts against what pushed it down
            alpha = alpha._replace(values=torch.full_like(alpha.values, config.alpha_floor))
        if accepted:  # all at once and last: whoever catches an error here finds the state as it was
            ema = self._averaged(images.values)
            self._images, self._alpha, self._soft, self._ema = images, alpha, soft, ema
        self.skipped += not accepted
        self.not_finite += not finite
        self.floored += floored
        return finite, not accepted, floored

    def _averaged(self, images: Tensor) -> Tensor | None:
        """Return the moving average, if there is one, after it has followed the images.

        ema ← decay·ema + (1 − decay)·images, from the initial ones on.

        FTD does so after every step of its optimiser, and never skips one; a skipped iteration has none.
        """
        if self._ema is None:
            return None
        return self.config.ema_decay * self._ema + (1 - self.config.ema_decay) * images

    def _expert(self) -> int:
        """Every expert once, in random order, then again in another order."""
        lap, place = divmod(self.iteration, len(self.trajectories))
        order = torch.randperm(len(self.trajectories), generator=generator(self.seed, "expert order", lap))
        return int(order[place])

    def _snapshot(self, expert: int, epoch: int) -> Tensor:
        return self.trajectories.snapshot(expert, epoch).to(self.images)

    def _chunks(self, draws: torch.Generator) -> list[Chunk]:
        """Draw the N inner steps: permute, split, take from the end (the ragged chunk first), permute again."""
        pieces: list[Tensor] = []
        chunks = []
        for _ in range(self.config.N):
            if not pieces:
                pieces = list(torch.randperm(len(self.images), generator=draws).split(self.config.batch_syn))
            indices = pieces.pop()
            draw = self.matcher.augmentation.draw(len(indices), self.images.shape[-1], draws)
            chunks.append(Chunk(indices.to(self.images.device), draw))
        return chunks
