"""Bilinear sampling with a backward pass that gives a GPU the same bits again, where that is asked for.

PyTorch's own backward passes of `grid_sample` and `interpolate` add on a GPU in an order that changes from run to run,
and raise an error under `torch.use_deterministic_algorithms`. While that is on, and for images on a GPU, the functions
of this module sum in a fixed order. Otherwise, and always on a CPU, they are PyTorch's.

Shape legend: B images, ch channels, H = W side in pixels.
"""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["REACH", "is_fixed", "resize", "resize_by_products", "sample_affine", "sample_in_fixed_order"]

REACH = 2
"""`sample_in_fixed_order` needs row sums of |A⁻¹| that are smaller: an image may shrink to half its side, not more."""
_TAPS = range(1 - REACH, REACH + 1)
"""Offsets of the outputs that may have read a pixel, from the output in whose square the pixel's own place lies."""


def sample_affine(images: Tensor, matrix: Tensor, *, align_corners: bool) -> Tensor:
    """Return images [B, ch, H, H] sampled bilinearly at A·x for every output place x, with zeros outside.

    Places are measured from the image's middle, so that corner alignment changes only at which places pixels lie.

    Args:
        images: Float; the result is differentiable in them, any number of times.
        matrix: A of each image, [B, 2, 2], x before y; not differentiated. See `REACH`.
        align_corners: As in `grid_sample`.
    """
    if is_fixed(images):
        return sample_in_fixed_order(images, matrix, align_corners=align_corners)
    return _sample(images, matrix, align_corners)


def sample_in_fixed_order(images: Tensor, matrix: Tensor, *, align_corners: bool) -> Tensor:
    """Return what `sample_affine` returns, with a backward pass that adds in a fixed order; arguments as there.

    The backward pass is a gather: each pixel sums over the 16 outputs that can have read it.
    """
    result: Tensor = _Sample.apply(images, matrix, align_corners)
    return result


def resize(images: Tensor, side: int) -> Tensor:
    """Return images [B, ch, h, h] resized bilinearly, with antialiasing, to [B, ch, side, side]; differentiable."""
    if is_fixed(images):
        return resize_by_products(images, side)
    return F.interpolate(images, (side, side), mode="bilinear", antialias=True)


def resize_by_products(images: Tensor, side: int) -> Tensor:
    """Return what `resize` returns as two matrix products, whose backward passes are products too."""
    unit = torch.eye(images.shape[-1], dtype=images.dtype, device=images.device)
    along = F.interpolate(unit[None, None], (side, len(unit)), mode="bilinear", antialias=True)[0, 0]
    return along @ images @ along.T


def is_fixed(images: Tensor) -> bool:
    """Return whether sums over these images are to have a fixed order: on a GPU that is to repeat its bits."""
    return images.device.type == "cuda" and torch.are_deterministic_algorithms_enabled()


def _sample(images: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
    grid = F.affine_grid(F.pad(matrix, (0, 1)), list(images.shape), align_corners=align_corners)
    return _at(images, grid, align_corners)


def _at(images: Tensor, grid: Tensor, align_corners: bool) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners)


def _pixels(like: Tensor) -> Tensor:
    """Return the places of pixels, measured from the middle of images like these: x before y, [2, H·H]."""
    side = like.shape[-1]
    along = torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2
    return torch.stack(torch.meshgrid(along, along, indexing="xy")).flatten(1)


def _moved(matrix: Tensor, places: Tensor) -> Tensor:
    """Return A·x for places [2, n] or [B, 2, n], [B, 2, n]; no matrix product, which TF32 would round."""
    x, y = places.unbind(dim=-2)
    column = matrix[..., None]
    return column[:, :, 0] * x[..., None, :] + column[:, :, 1] * y[..., None, :]


def _inverse(matrix: Tensor) -> Tensor:
    """Return A⁻¹, [B, 2, 2]; `torch.linalg.inv` would wait for the GPU."""
    (a, b), (c, d) = (row.unbind(dim=1) for row in matrix.unbind(dim=1))
    adjugate = torch.stack([torch.stack([d, -b], dim=1), torch.stack([-c, a], dim=1)], dim=1)
    return adjugate / (a * d - b * c)[:, None, None]


def _gather(images: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
    """Return `_sample` up to rounding; `grid_sample` itself gives the same bits again, only its backward does not."""
    side = images.shape[-1]
    grid = _moved(matrix, _pixels(images)) * (2 / (side - 1 if align_corners else side))
    return _at(images, grid.transpose(1, 2).unflatten(1, (side, side)), align_corners)


def _spread(values: Tensor, matrix: Tensor) -> Tensor:
    """Return the transpose of `_gather`: what outputs [B, ch, H, H] hold, given back to the pixels that they read.

    An output x reads the pixel p with the weight (1 − |d_x|)⁺ · (1 − |d_y|)⁺ for d = A·x − p. So it lies within the row
    sums of |A⁻¹| of A⁻¹·p along either axis, and as these are below `REACH`, within `_TAPS` of that place's floor. In
    pixels from the middle this holds with aligned corners and without.
    """
    channels, side = values.shape[1], values.shape[-1]
    middle, pixels = (side - 1) / 2, _pixels(values)
    nearest = (_moved(_inverse(matrix), pixels) + middle).floor()  # columns and rows of outputs, [B, 2, H·H]
    flat = values.flatten(2)
    total = torch.zeros_like(flat)
    for down, right in product(_TAPS, _TAPS):
        column, row = nearest[:, 0] + right, nearest[:, 1] + down
        output = torch.stack([column, row], dim=1)
        distance = (_moved(matrix, output - middle) - pixels).abs()
        inside = ((output >= 0) & (output < side)).all(dim=1)
        weight = (1 - distance).clamp_min(0).prod(dim=1) * inside
        place = row.clamp(0, side - 1).long() * side + column.clamp(0, side - 1).long()
        total = total + weight[:, None] * flat.gather(2, place[:, None].expand(-1, channels, -1))
    return total.view_as(values)


class _Sample(torch.autograd.Function):
    """`_gather`, whose derivative is `_spread`."""

    @staticmethod
    def forward(images: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
        """Sample."""
        return _gather(images, matrix, align_corners)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        """Keep the matrix and the alignment."""
        _, matrix, ctx.align_corners = inputs
        ctx.save_for_backward(matrix)

    @staticmethod
    def backward(ctx: Any, values: Tensor) -> tuple[Tensor, None, None]:
        """Return the derivative in the images."""
        (matrix,) = ctx.saved_tensors
        return _Spread.apply(values, matrix, ctx.align_corners), None, None


class _Spread(torch.autograd.Function):
    """`_spread`, whose derivative is `_gather`."""

    @staticmethod
    def forward(values: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
        """Spread; the alignment is for the derivative."""
        return _spread(values, matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        """Keep the matrix and the alignment."""
        _, matrix, ctx.align_corners = inputs
        ctx.save_for_backward(matrix)

    @staticmethod
    def backward(ctx: Any, images: Tensor) -> tuple[Tensor, None, None]:
        """Return the derivative in the values."""
        (matrix,) = ctx.saved_tensors
        return _Sample.apply(images, matrix, ctx.align_corners), None, None
