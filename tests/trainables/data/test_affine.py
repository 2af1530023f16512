"""Sampling in a fixed order is `grid_sample` and its transpose, and GPUs get it where they are to repeat their bits."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.references import relative_error
from tests.support.small_numerics import of_gradient, on_both
from trainables.data import affine
from trainables.data.augmentation import ROTATE_DEGREES, SCALE_RATIO, Augmentation, Draw
from trainables.distillation.matching import METHODS
from trainables.seeding import generator

EXTREMES: dict[str, list[Any]] = {
    "scale": [(SCALE_RATIO, SCALE_RATIO), (1 / SCALE_RATIO, 1 / SCALE_RATIO), (SCALE_RATIO, 1 / SCALE_RATIO), (1, 1)],
    "rotate": [math.radians(ROTATE_DEGREES), -math.radians(ROTATE_DEGREES), 0.0, math.radians(45)],
}


def matrices(kind: str, count: int = 12) -> Tensor:
    """Matrices of the largest draws, then of random ones, float64 [count, 2, 2]."""
    draws = generator("affine", kind)
    free = count - len(EXTREMES[kind])
    if kind == "scale":
        random = 1 / SCALE_RATIO + (SCALE_RATIO - 1 / SCALE_RATIO) * torch.rand(free, 2, generator=draws).double()
        return torch.diag_embed(torch.cat([torch.tensor(EXTREMES[kind], dtype=torch.float64), random]))
    random = math.radians(ROTATE_DEGREES) * (2 * torch.rand(free, generator=draws).double() - 1)
    angles = torch.cat([torch.tensor(EXTREMES[kind], dtype=torch.float64), random])
    rows = [torch.stack([angles.cos(), -angles.sin()], dim=1), torch.stack([angles.sin(), angles.cos()], dim=1)]
    return torch.stack(rows, dim=1)


def sampled_by_torch(images: Tensor, matrix: Tensor, align_corners: bool) -> Tensor:
    grid = F.affine_grid(F.pad(matrix, (0, 1)), list(images.shape), align_corners=align_corners)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners)


@pytest.mark.parametrize("kind", ["scale", "rotate"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("side", [2, 7, 32])
def test_values_and_gradients_are_those_of_grid_sample(kind: str, align_corners: bool, side: int) -> None:
    matrix, draws = matrices(kind), generator("affine", "images", side)
    images, along = (torch.randn(len(matrix), 3, side, side, dtype=torch.float64, generator=draws) for _ in range(2))
    images.requires_grad_()
    ours = affine.sample_in_fixed_order(images, matrix, align_corners=align_corners)
    theirs = sampled_by_torch(images, matrix, align_corners)
    assert relative_error(ours.detach(), theirs.detach()) < 1e-13
    (gradient,), (reference,) = (torch.autograd.grad(result, images, along) for result in (ours, theirs))
    assert relative_error(gradient, reference) < 1e-13


@pytest.mark.parametrize("align_corners", [True, False])
def test_it_can_be_differentiated_twice(align_corners: bool) -> None:
    matrix = matrices("rotate", 5)[3:]
    images = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=generator("affine", "twice")).requires_grad_()

    def sampled(images: Tensor) -> Tensor:
        return affine.sample_in_fixed_order(images, matrix, align_corners=align_corners)

    assert torch.autograd.gradcheck(sampled, images)
    assert torch.autograd.gradgradcheck(sampled, images)


@pytest.mark.parametrize("kind", ["scale", "rotate"])
def test_the_largest_draws_are_within_its_reach(kind: str) -> None:
    assert torch.linalg.inv(matrices(kind)).abs().sum(dim=2).max() < affine.REACH


@pytest.mark.parametrize("side", [3, 8, 16])
def test_resizing_by_products_is_interpolation(side: int) -> None:
    draws = generator("affine", "resize", side)
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=draws).requires_grad_()
    along = torch.randn(2, 3, side, side, dtype=torch.float64, generator=draws)
    ours, theirs = affine.resize_by_products(images, side), affine.resize(images, side)
    assert torch.equal(theirs, F.interpolate(images, (side, side), mode="bilinear", antialias=True))
    assert relative_error(ours.detach(), theirs.detach()) < 1e-14
    (gradient,), (reference,) = (torch.autograd.grad(result, images, along) for result in (ours, theirs))
    assert relative_error(gradient, reference) < 1e-14


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def derivatives() -> tuple[str, str]:
    """Return the kinds of derivative that a scaled and a resized image have."""
    images = torch.zeros(2, 1, 4, 4, requires_grad=True)
    values = {axis: torch.full((2,), 1.1) for axis in ("x", "y")}
    results = Augmentation().apply(images, Draw("scale", values)), affine.resize(images, 8)
    return tuple(result.grad_fn.name() for result in results if result.grad_fn)  # type: ignore[return-value]


PYTORCHS = ("GridSampler2DBackward0", "UpsampleBilinear2DAaBackward0")


class _OnGpu(NamedTuple):
    """Images of which only the device is asked."""

    device: torch.device


def test_only_a_gpu_that_is_to_repeat_its_bits_sums_in_fixed_order(deterministic: None) -> None:
    images: Any = _OnGpu(torch.device("cuda"))
    assert affine.is_fixed(images) and not affine.is_fixed(torch.zeros(1))
    torch.use_deterministic_algorithms(False)
    assert not affine.is_fixed(images)


def test_a_cpu_samples_as_pytorch_does_in_any_case(deterministic: None) -> None:
    assert derivatives() == PYTORCHS


def test_where_the_order_is_fixed_no_derivative_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affine, "is_fixed", lambda images: True)
    scaled, resized = derivatives()
    assert "_Sample" in scaled and "Upsample" not in resized


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["scale", "rotate"])
def test_matching_gradients_are_the_cpus_on_a_gpu_that_is_to_repeat_its_bits(
    deterministic: None, monkeypatch: pytest.MonkeyPatch, family: str, method: str
) -> None:
    """The device is pretended: its kernels are the CPU's, but it samples in fixed order."""
    taken: list[Tensor] = []
    spread = affine._spread

    def noted(values: Tensor, matrix: Tensor) -> Tensor:
        taken.append(values)
        return spread(values, matrix)

    monkeypatch.setattr(affine, "_spread", noted)
    cpus, gpus = on_both(lambda device: of_gradient(device, method, "fp32", (family,), "hard"))
    assert taken
    for one, other in zip(cpus, gpus, strict=True):
        assert relative_error(other, one) < 1e-4
