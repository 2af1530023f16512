"""The numerics on pretended CUDA come to the CPU's values: no tensor lies on the wrong device on any path.

Both sides are computed by the CPU's kernels, those of bf16 too. They differ, in the last digits of float32, where the
product takes another algorithm on a GPU, as networks side by side in place of one after the other. No GPU is needed,
and none is measured.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.references import relative_error
from tests.support.small_numerics import (
    WHITENED,
    of_distillation,
    of_evaluation,
    of_experts,
    of_gradient,
    of_regime,
    on_both,
)
from trainables.data.augmentation import FAMILIES
from trainables.distillation.matching import METHODS

TOLERANCE = 1e-4
"""Largest relative error: some hundred roundings of float32."""

DISTILLATIONS: dict[str, dict[str, Any]] = {
    "hard labels": {},
    "soft labels": {"label_mode": "soft", "lr_label": 1.0},
    "log α with a floor": {"alpha_update": "log", "alpha_floor": 0.01},
    "truncated": {"gradient": "truncated"},
    "unrolled": {"gradient": "unrolled"},
    "bf16": {"precision": "bf16"},
}


def same(expected: list[Tensor], found: list[Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert type(one) is Tensor, "the comparison is the CPU's"
        assert one.shape == other.shape and one.dtype == other.dtype
        assert torch.equal(one, other) or relative_error(one, other) < TOLERANCE


@pytest.mark.parametrize(
    ("method", "precision", "family", "labels"),
    [
        pytest.param(method, precision, family, labels, id=f"{method}-{precision}-{family or 'plain'}-{labels}")
        for (method, precision), (family, labels) in itertools.product(
            itertools.product(METHODS, ("fp32", "bf16")), itertools.product(("", *FAMILIES), ("hard", "soft"))
        )
    ],
)
def test_gradients(method: str, precision: str, family: str, labels: str) -> None:
    families = (family,) if family else ()
    same(*on_both(lambda device: of_gradient(device, method, precision, families, labels)))


@pytest.mark.parametrize("case", DISTILLATIONS)
def test_trajectory_matching_and_its_checkpoint(case: str) -> None:
    same(*on_both(lambda device: of_distillation(device, "trajectory", **DISTILLATIONS[case])))


@pytest.mark.parametrize("loops", [{}, {"outer_loop": 3, "inner_loop": 2}], ids=["one network", "a trained network"])
@pytest.mark.parametrize("method", ["distribution", "gradient"])
def test_matching_of_real_images_and_its_checkpoint(method: str, loops: dict[str, int]) -> None:
    same(*on_both(lambda device: of_distillation(device, method, **(loops if method == "gradient" else {}))))


@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("resident", [False, True], ids=["read", "resident"])
@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_experts(optimizer: str, resident: bool, experts: int) -> None:
    same(*on_both(lambda device: of_experts(device, optimizer, experts, resident=resident)))


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("regime", ["hard", "soft", "soft_kd"])
def test_training_in_a_regime(regime: str, networks: int) -> None:
    same(*on_both(lambda device: of_regime(device, regime, networks)))


def test_evaluation() -> None:
    same(*on_both(of_evaluation))


def test_evaluation_on_whitened_images() -> None:
    same(*on_both(lambda device: of_evaluation(device, WHITENED)))
