"""Differentiable siamese augmentation (DSA): one draw, replayable. docs/method.md, "DSA".

A call uses one family, chosen uniformly, with separate parameters for every image. Drawing is separate from applying,
because the exact gradient applies every draw twice: in the forward and in the backward pass.

Shape legend: B images, ch channels, H = W side in pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.data import catalog
from trainables.data.affine import sample_affine
from trainables.errors import ConfigError

__all__ = ["FAMILIES", "Augmentation", "Draw", "parse_families"]

CROP_RATIO, CUTOUT_RATIO, SCALE_RATIO, ROTATE_DEGREES = 0.125, 0.5, 1.2, 15.0
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5


@dataclass(frozen=True)
class Draw:
    """One draw: a family, and its parameters for B images."""

    family: str
    values: dict[str, Tensor] = field(default_factory=dict)
    """The family's parameters by name, [B]."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The families that a call chooses from; without a family images pass unchanged."""

    families: tuple[str, ...] = ()
    """Names in `FAMILIES`."""
    align_corners: bool = True
    """Corner alignment of scale and rotate: False in the challenge's evaluator, True in MTT's and DATM's code."""

    def __post_init__(self) -> None:
        """Refuse unknown or repeated families."""
        if unknown := [name for name in self.families if name not in FAMILIES]:
            raise ConfigError(f"augmentation families are {', '.join(FAMILIES)}; not {', '.join(unknown)}")
        if len(set(self.families)) < len(self.families):
            raise ConfigError(f"every augmentation family may be named once, not {', '.join(self.families)}")

    def for_evaluation(self) -> "Augmentation":
        """Return the augmentation of evaluation training: the same families, corners not aligned.

        Source: docs/method.md, "Challenge protocol".
        """
        return replace(self, align_corners=False)

    def draw(self, batch: int, side: int, generator: torch.Generator) -> Draw | None:
        """Draw a family and its parameters for `batch` images of `side` pixels; None if there is no family."""
        if not self.families:
            return None
        family = self.families[int(torch.randint(len(self.families), (), generator=generator))]
        return Draw(family, FAMILIES[family][0](batch, side, generator))

    def apply(self, images: Tensor, draw: Draw | None) -> Tensor:
        """Return images [B, ch, H, W] transformed by a draw for B images; differentiable in the images."""
        if draw is None:
            return images
        values = {name: value.to(images.device, images.dtype) for name, value in draw.values.items()}
        return FAMILIES[draw.family][1](images, values, self.align_corners)

    def apply_alike(self, images: Tensor, draw: Draw | None) -> Tensor:
        """Return images [B, ch, H, W], all transformed by the draw for one image: siamese augmentation.

        Source: docs/method.md, "DSA".
        """
        if draw is None:
            return images
        repeated = {name: value.expand(len(images)) for name, value in draw.values.items()}
        return self.apply(images, Draw(draw.family, repeated))


def parse_families(text: str, of_dataset: tuple[str, ...]) -> tuple[str, ...]:
    """Return the families of a setting: "dataset" (`of_dataset`), "none", or names joined by underscores."""
    if text == "dataset":
        return of_dataset
    return () if text == "none" else tuple(text.split("_"))


def _uniform(low: float, high: float, batch: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(batch, generator=generator)


def _integers(low: int, high: int, batch: int, generator: torch.Generator) -> Tensor:
    """Return integers in [low, high], both inclusive, [batch]."""
    return torch.randint(low, high + 1, (batch,), generator=generator)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _draw_color(batch: int, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "brightness": _uniform(-BRIGHTNESS / 2, BRIGHTNESS / 2, batch, generator),
        "saturation": _uniform(0, SATURATION, batch, generator),
        "contrast": _uniform(1 - CONTRAST, 1 + CONTRAST, batch, generator),
    }


def _apply_color(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
    images = images + _per_image(values["brightness"])
    grey = images.mean(dim=1, keepdim=True)
    images = (images - grey) * _per_image(values["saturation"]) + grey
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * _per_image(values["contrast"]) + mean


def _draw_crop(batch: int, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    shift = int(side * CROP_RATIO + 0.5)
    return {axis: _integers(-shift, shift, batch, generator) for axis in ("rows", "columns")}


def _apply_crop(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
    side = images.shape[-1]
    margin = int(side * CROP_RATIO + 0.5)
    padded = F.pad(images, (margin, margin, margin, margin))
    pixels = torch.arange(side, device=images.device)
    rows, columns = (pixels + values[axis].long()[:, None] + margin for axis in ("rows", "columns"))
    places = (rows[:, :, None] * padded.shape[-1] + columns[:, None, :]).flatten(1)
    # By place in the flat image: indices by row and column would leave the channels last in memory, and a compiled step
    # would be compiled again for them.
    return padded.flatten(2).gather(2, places[:, None].expand(-1, images.shape[1], -1)).view_as(images)


def _draw_cutout(batch: int, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    # The reference code's centre reaches one pixel past the border when the hole's side is even.
    last = side - int(side * CUTOUT_RATIO + 0.5) % 2
    return {axis: _integers(0, last, batch, generator) for axis in ("row", "column")}


def _apply_cutout(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
    side = images.shape[-1]
    hole = int(side * CUTOUT_RATIO + 0.5)
    pixels = torch.arange(side, device=images.device, dtype=images.dtype)

    def inside(centre: Tensor) -> Tensor:
        first = centre[:, None] - hole // 2
        return (pixels >= first) & (pixels < first + hole)

    covered = inside(values["row"])[:, :, None] & inside(values["column"])[:, None, :]
    return images * (~covered)[:, None].to(images.dtype)


def _draw_flip(batch: int, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"mirrored": (torch.rand(batch, generator=generator) < 0.5).float()}


def _apply_flip(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
    return torch.where(_per_image(values["mirrored"]) > 0, images.flip(3), images)


def _draw_scale(batch: int, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {axis: _uniform(1 / SCALE_RATIO, SCALE_RATIO, batch, generator) for axis in ("x", "y")}


def _apply_scale(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
    zero = torch.zeros_like(values["x"])
    return _apply_affine(images, [[values["x"], zero], [zero, values["y"]]], align_corners)


def _draw_rotate(batch: int, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    limit = math.radians(ROTATE_DEGREES)
    return {"radians": _uniform(-limit, limit, batch, generator)}


def _apply_rotate(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
    cosine, sine = values["radians"].cos(), values["radians"].sin()
    return _apply_affine(images, [[cosine, -sine], [sine, cosine]], align_corners)


def _apply_affine(images: Tensor, matrix: list[list[Tensor]], align_corners: bool) -> Tensor:
    theta = torch.stack([torch.stack(row, dim=1) for row in matrix], dim=1)
    return sample_affine(images, theta, align_corners=align_corners)


_DrawFunction = Callable[[int, int, torch.Generator], dict[str, Tensor]]
_ApplyFunction = Callable[[Tensor, dict[str, Tensor], bool], Tensor]

FAMILIES: dict[str, tuple[_DrawFunction, _ApplyFunction]] = {
    catalog.COLOR: (_draw_color, _apply_color),
    catalog.CROP: (_draw_crop, _apply_crop),
    catalog.CUTOUT: (_draw_cutout, _apply_cutout),
    catalog.FLIP: (_draw_flip, _apply_flip),
    catalog.SCALE: (_draw_scale, _apply_scale),
    catalog.ROTATE: (_draw_rotate, _apply_rotate),
}
