"""What every distillation learns, whatever it matches: images under SGD with momentum, and their moving average.

Shape legend: S synthetic images, ch channels, H = W side.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainables.config import DistillationConfig
from trainables.errors import ConfigError

__all__ = ["Learned", "LearnedImages", "Update"]


@dataclass(frozen=True)
class Update:
    """What one iteration did to the images."""

    loss: float
    """The loss that the method lowers, before the update."""
    finite: bool
    """Whether the loss and all that the update would have led to are finite."""
    skipped: bool
    """Whether nothing was updated."""


class Learned(NamedTuple):
    """A quantity under SGD with momentum, as torch.optim.SGD has it; its tensors are never written into."""

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
        """Whether values and velocity are finite; a gradient that is not shows in the velocity."""
        return bool(torch.isfinite(self.values).all() and torch.isfinite(self.velocity).all())


class LearnedImages:
    """The images of a distillation that can be stopped after any iteration and taken up again bit for bit.

    Every random choice is drawn from a generator named by seed and iteration, so the state is what is learned, with its
    momentum, and counters.
    """

    def __init__(self, config: DistillationConfig, images: Tensor, seed: int) -> None:
        """Start from normalised images, float [S, ch, H, W], copied; their device and dtype are the computation's."""
        self.config = config
        self.seed = seed
        self.initial_images = images.clone()
        self.iteration = 0
        self.skipped = 0
        """Iterations so far that updated nothing."""
        self.not_finite = 0
        """Those of them in which something was not finite."""
        self._images = Learned.start(self.initial_images)
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
    def displacement(self) -> float:
        """Root mean square distance of the images from the initial ones, in units of normalised pixels."""
        return float((self.images - self.initial_images).square().mean().sqrt())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the distillation depends on; its tensors are not written into later.

        `ema` is there where there is a moving average.
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
        """Take up a distillation of the same config and seed where `state_dict` left it; the state is copied.

        Raises:
            ConfigError: The state is that of a distillation of another method, or with other images or labels, or
                another moving average.
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
        self._take_up(
            {name: state[name].to(of).clone() if isinstance(of, Tensor) else state[name] for name, of in own.items()}
        )

    def _take_up(self, state: dict[str, Any]) -> None:
        """Adopt a state that is this distillation's own to keep."""
        self._images = Learned(state["images"], state["image_velocity"])
        self._ema = state.get("ema")
        self.iteration, self.skipped, self.not_finite = (
            int(state[name]) for name in ("iteration", "skipped", "not_finite")
        )

    def _moved(self, gradient: Tensor) -> Learned:
        """Return the images after a step down a gradient [S, ch, H, W]; nothing is changed yet."""
        return self._images.after(gradient, lr=self.config.lr_pixel, momentum=self.config.momentum_pixel)

    def _averaged(self, images: Tensor) -> Tensor | None:
        """Return the moving average, if there is one, after it has followed the images.

        ema ← decay·ema + (1 − decay)·images, from the initial ones on.

        FTD does so after every step of its optimiser, and never skips one; a skipped iteration has none.
        """
        if self._ema is None:
            return None
        return self.config.ema_decay * self._ema + (1 - self.config.ema_decay) * images
