"""State that all distillation methods learn: images under SGD with momentum, and their moving average.

Shape legend: S synthetic images, ch channels, H = W side.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.config.distillation import DistillationConfig
from trainables.errors import ConfigError

__all__ = ["FIRST_UPDATES", "Learned", "LearnedImages", "Update"]

FIRST_UPDATES = 20
"""Iterations after which a distillation ends of which none was accepted. All experts of a small sweep had their turn by
then, and α, the images and the range are what they were, so that the next iterations would be skipped as well."""


@dataclass(frozen=True)
class Update:
    """The result of one iteration."""

    loss: float
    """The loss that the method lowers, before the update."""
    finite: bool
    """Whether the loss and everything that the update would change are finite."""
    skipped: bool
    """Whether nothing was updated."""


class Learned(NamedTuple):
    """A quantity under SGD with momentum, as in torch.optim.SGD; its tensors are never modified in place."""

    values: Tensor
    velocity: Tensor

    @classmethod
    def start(cls, values: Tensor) -> "Learned":
        """Return the quantity before its first update."""
        return cls(values, torch.zeros_like(values))

    def after(self, gradient: Tensor, *, lr: float, momentum: float) -> "Learned":
        """Return the quantity after a step: v ← momentum·v + gradient, values ← values − lr·v."""
        velocity = torch.add(gradient, self.velocity, alpha=momentum)
        return Learned(torch.sub(self.values, velocity, alpha=lr), velocity)

    @property
    def finite(self) -> bool:
        """Whether values and velocity are finite; a gradient that is not finite makes the velocity not finite."""
        return bool(torch.isfinite(self.values).all() & torch.isfinite(self.velocity).all())  # read at once


class LearnedImages:
    """The images of a distillation that can stop after any iteration and resume bit for bit.

    Every random choice is drawn from a generator named by seed and iteration. The state therefore consists of the
    learned quantities, their momentum, and counters.
    """

    def __init__(self, config: DistillationConfig, images: Tensor, seed: int) -> None:
        """Start from a copy of normalised images, float [S, ch, H, W]; their dtype and device are the computation's."""
        self.config = config
        self.seed = seed
        self.initial_images = images.clone()
        self.iteration = 0
        self.skipped = 0
        """Iterations so far that updated nothing."""
        self.not_finite = 0
        """Skipped iterations in which something was not finite."""
        self._images = Learned.start(self.initial_images)
        self._ema = images.clone() if config.ema_decay else None

    @property
    def images(self) -> Tensor:
        """The learned images, [S, ch, H, W]."""
        return self._images.values

    @property
    def result_images(self) -> Tensor:
        """The images to evaluate, [S, ch, H, W]: the moving average if there is one, otherwise the learned images."""
        return self.images if self._ema is None else self._ema

    @property
    def displacement(self) -> float:
        """Root mean square distance of the images from the initial ones, in units of normalised pixels."""
        return float((self.images - self.initial_images).square().mean().sqrt())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on; its tensors are not modified later.

        `ema` is present if there is a moving average.
        """
        state: dict[str, Any] = {
            "images": self._images.values,
            "image_velocity": self._images.velocity,
            "iteration": self.iteration,
            "skipped": self.skipped,
            "not_finite": self.not_finite,
        }
        if self._ema is not None:
            state["ema"] = self._ema
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume a distillation of the same config and seed from the result of `state_dict`; the state is copied.

        Raises:
            ConfigError: The state belongs to a distillation by another method, or with other images, labels or moving
                average.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ConfigError(
                f"this state holds {', '.join(sorted(state))}, the distillation {', '.join(sorted(own))}; "
                "resume it with the settings that it was made with"
            )
        if state["images"].shape != self.images.shape:
            raise ConfigError(
                f"this state holds images {list(state['images'].shape)}, the distillation {list(self.images.shape)}"
            )
        self._restore(
            {name: state[name].to(of).clone() if isinstance(of, Tensor) else state[name] for name, of in own.items()}
        )

    def _restore(self, state: dict[str, Any]) -> None:
        """Replace the state by a copy that nothing else modifies."""
        self._images = Learned(state["images"], state["image_velocity"])
        self._ema = state.get("ema")
        self.iteration, self.skipped, self.not_finite = (
            int(state[name]) for name in ("iteration", "skipped", "not_finite")
        )

    def _moved(self, gradient: Tensor) -> Learned:
        """Return the images after a step down a gradient [S, ch, H, W], without changing the state."""
        return self._images.after(gradient, lr=self.config.lr_pixel, momentum=self.config.momentum_pixel)

    def _averaged(self, images: Tensor) -> Tensor | None:
        """Return the next moving average, or None if there is none.

        ema ← decay·ema + (1 − decay)·images, starting from the initial images.

        FTD updates it after every step of its optimiser and never skips a step. Here, a skipped iteration does not
        update it.
        """
        if self._ema is None:
            return None
        return self.config.ema_decay * self._ema + (1 - self.config.ema_decay) * images
