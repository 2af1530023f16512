"""The correctness checks pass on the CPU, and fail where a planted fault is."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.device.checks import LIMITS, gradient_checks, training_checks
from benchmarks.device.results import Check
from benchmarks.device.sizes import cpu_sizes, gpu_sizes
from benchmarks.matching import MatchingProblem
from trainables.data import augmentation
from trainables.data.augmentation import FAMILIES
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import METHODS
from trainables.experts import training

TINY = dataclasses.replace(cpu_sizes().check, size=4, depth=1, width=4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another: on a busy machine they cost a small network more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gradients(precision: str, problem: MatchingProblem = TINY) -> list[Check]:
    return list(gradient_checks(problem, precision, "cpu", time.monotonic() + 600))


def test_every_method_family_and_kind_of_labels_is_checked_and_passes() -> None:
    for precision in ("fp64", "fp32"):
        checks = gradients(precision)
        assert len(checks) == len({check.name for check in checks}) == len(METHODS) * len(FAMILIES) * 2
        assert all(check.passed for check in checks)
    assert all(check.error == 0 for check in gradients("fp64"))  # on a CPU it is the reference itself
    assert all(check.error > 0 and check.passed for check in gradients("bf16"))


@pytest.mark.parametrize("family", ["cutout", "rotate"])
def test_a_family_that_a_device_computes_otherwise_is_found(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, apply = FAMILIES[family]

    def wrong(images: Tensor, values: dict[str, Tensor], align_corners: bool) -> Tensor:
        applied = apply(images, values, align_corners)
        return applied.flip(2) if images.dtype == torch.float32 else applied

    monkeypatch.setitem(augmentation.FAMILIES, family, (draw, wrong))
    assert {check.name.split(", ")[1] for check in gradients("fp32") if not check.passed} == {family}


def test_a_gradient_without_its_second_derivatives_is_found_in_every_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    products: Callable[..., Any] = InnerStep.products

    def without_curvature(self: InnerStep, theta: Tensor, *rest: Tensor, curvature: bool = True) -> Any:
        return products(self, theta, *rest, curvature=curvature and theta.dtype == torch.float64)

    monkeypatch.setattr(InnerStep, "products", without_curvature)
    found = gradients("fp32", gpu_sizes().check)
    assert min(check.error for check in found if check.name.startswith("exact")) > max(LIMITS.values())
    assert all(check.passed for check in found if not check.name.startswith("exact"))


def test_a_number_that_is_not_finite_does_not_pass() -> None:
    assert not Check(name="a", precision="fp32", error=math.nan, limit=1.0).passed
    assert not Check(name="a", precision="fp32", error=math.inf, limit=1.0).passed


def test_training_is_checked_alone_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = list(training_checks(TINY, "cpu", time.monotonic() + 600))
    assert [check.name for check in checks] == [
        "experts alone, images copied",
        "experts three together, images copied",
        "experts alone, images on the device",
        "experts three together, images on the device",
        "networks on a set, alone",
        "networks on a set, three together",
    ]
    assert all(check.passed for check in checks)

    traced = training.ExpertTrainer._traced_gradient

    def wrong(self: training.ExpertTrainer, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = traced(self, *arguments)
        return loss, 1.1 * gradient

    monkeypatch.setattr(training.ExpertTrainer, "_traced_gradient", wrong)
    failed = [check.name for check in training_checks(TINY, "cpu", time.monotonic() + 600) if not check.passed]
    assert failed == ["experts three together, images copied", "experts three together, images on the device"]
