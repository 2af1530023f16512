"""M-DATM: images that are moved until training on them repeats an expert's early steps. METHOD §2.

Shape legend: S synthetic images, ch channels, H = W side, P parameters.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.augmentation import Augmentation
from trainables.config import DistillationConfig
from trainables.errors import ConfigError
from trainables.matching import Chunk, matching_gradient
from trainables.networks import ConvNet
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
    skipped: bool
    """Whether the loss was above the threshold, or not finite, so that nothing was updated."""


class Distiller:
    """A distillation that can be stopped after any iteration and taken up again bit for bit.

    Every random choice is drawn from a generator named by seed and iteration, so the state is the images, α, their
    momentum and three counters.
    """

    def __init__(
        self,
        config: DistillationConfig,
        *,
        network: ConvNet,
        trajectories: Trajectories,
        images: Tensor,
        labels: Tensor,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        """Start a distillation.

        Args:
            config: What to do.
            network: The network whose trajectories are matched.
            trajectories: Experts with snapshots up to epoch T_plus + M (one less if `range_end` is exclusive).
            images: Initial images, normalised float [S, ch, H, W]; copied. Their device and dtype are those of the
                whole computation.
            labels: Hard labels, int64 [S].
            augmentation: DSA of the inner steps.
            seed: Names every random choice.
        """
        if len(images) != len(labels):
            raise ConfigError(f"a synthetic set needs one label an image: {len(images)} images, {len(labels)} labels")
        self.config = config
        self.network = network
        self.trajectories = trajectories
        self.augmentation = augmentation
        self.seed = seed
        self.initial_images = images.clone()
        self.images = images.clone()
        self.labels = labels.to(images.device)
        self.alpha = config.alpha_init
        self.iteration = 0
        self.skipped = 0
        self._image_velocity = torch.zeros_like(images)
        self._alpha_velocity = 0.0

    def step(self) -> Iteration:
        """Run one iteration: draw a start, train on the synthetic set, move images and α down the matching loss."""
        config, matching_range = self.config, self.config.matching_range
        draws = generator(self.seed, "distillation", self.iteration)
        expert = self._expert()
        starts = matching_range.starts(self.iteration)
        start_epoch = starts[int(torch.randint(len(starts), (), generator=draws))]
        gradient = matching_gradient(
            self.network,
            start=self._snapshot(expert, start_epoch),
            target=self._snapshot(expert, start_epoch + config.M),
            images=self.images,
            labels=self.labels,
            alpha=self.alpha,
            chunks=self._chunks(draws),
            augmentation=self.augmentation,
        )
        # Written so that a loss that is not a number is skipped and counted too.
        finite = math.isfinite(gradient.alpha) and bool(torch.isfinite(gradient.images).all())
        accepted = finite and gradient.loss <= config.max_matching_loss
        if accepted:
            self._image_velocity.mul_(config.momentum_pixel).add_(gradient.images)
            self.images.sub_(self._image_velocity, alpha=config.lr_pixel)
            self._alpha_velocity = config.momentum_alpha * self._alpha_velocity + gradient.alpha
            self.alpha -= config.lr_alpha * self._alpha_velocity
        else:
            self.skipped += 1
        done = Iteration(expert, start_epoch, matching_range.upper(self.iteration), gradient.loss, not accepted)
        self.iteration += 1
        return done

    @property
    def displacement(self) -> float:
        """Root mean square distance of the images from the initial ones, in units of normalised pixels."""
        return float((self.images - self.initial_images).square().mean().sqrt())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on; tensors are copies."""
        return {
            "images": self.images.clone(),
            "image_velocity": self._image_velocity.clone(),
            "alpha": self.alpha,
            "alpha_velocity": self._alpha_velocity,
            "iteration": self.iteration,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a distillation of the same config and seed where `state_dict` left it."""
        if state["images"].shape != self.images.shape:
            raise ConfigError(
                f"this state holds images {list(state['images'].shape)}, the distillation {list(self.images.shape)}"
            )
        self.images = state["images"].to(self.images).clone()
        self._image_velocity = state["image_velocity"].to(self.images).clone()
        self.alpha = float(state["alpha"])
        self._alpha_velocity = float(state["alpha_velocity"])
        self.iteration = int(state["iteration"])
        self.skipped = int(state["skipped"])

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
            draw = self.augmentation.draw(len(indices), self.network.image_size, draws)
            chunks.append(Chunk(indices.to(self.images.device), draw))
        return chunks
