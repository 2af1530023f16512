"""The α that alpha_init=auto finds: known by construction, where a target is what N steps of some α reach."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.settings import distillation_config
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher
from trainables.distillation.starting_alpha import NEARER, PATHS, RANGE, TOO_FAR, AlphaCurve, _search, find_alpha
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

SETTINGS = {
    "ipc": 1, "N": 1, "M": 1, "T_minus": 0, "T": 2, "T_plus": 4, "interval": 1, "lr_pixel": 1.0, "lr_alpha": 0.0,
    "batch_syn": 10, "alpha_init": "auto", "iterations": 10,
}  # fmt: skip
FINEST = math.log(NEARER[-1]) / 2
"""Half of the last step of the search, in logarithms: a smooth curve's lowest tried α is within it of the best."""


class Given:
    """Trajectories of given snapshots by epoch, the same for every expert; it notes what is read."""

    def __init__(self, snapshots: list[Tensor], experts: int = 3) -> None:
        self.snapshots, self.experts = snapshots, experts
        self.read: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return self.experts

    def snapshot(self, expert: int, epoch: int) -> Tensor:
        self.read.add((expert, epoch))
        return self.snapshots[epoch]


@pytest.fixture
def find(small_digits: ImageDataset, small_network: ConvNet) -> Callable[..., AlphaCurve]:
    """`find_alpha` in float64, without augmentation, on one real image of each class."""

    def run(trajectories: Any, seed: int = 0, **changed: Any) -> AlphaCurve:
        return find_alpha(
            distillation_config(**{**SETTINGS, **changed}),
            matcher=Matcher(InnerStep(small_network), Augmentation()),
            trajectories=trajectories,
            images=real_images(small_digits, 1, 0).double(),
            labels=default_order_labels(1, 10),
            seed=seed,
        )

    return run


@pytest.fixture
def reach(small_digits: ImageDataset, small_network: ConvNet) -> Callable[[float, int], Given]:
    """Trajectories whose every epoch is so many steps of gradient descent at α on the whole set, written out here."""

    def build(alpha: float, steps: int) -> Given:
        images, step = real_images(small_digits, 1, 0).double(), InnerStep(small_network)
        targets = torch.eye(10, dtype=torch.float64) / 10
        theta = small_network.initial(generator("start")).double()
        snapshots = [theta]
        for _ in range(5):
            for _ in range(steps):
                theta = theta - alpha * step.gradient(theta, images, targets)
            snapshots.append(theta)
        return Given(snapshots)

    return build


@pytest.mark.parametrize("alpha", [2e-4, 0.003, 0.05])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_alpha_that_made_the_targets_is_found(
    find: Callable[..., AlphaCurve], reach: Callable[[float, int], Given], alpha: float, steps: int
) -> None:
    """The whole set is every chunk, so that N steps at this α end at the target itself: loss 0."""
    curve = find(reach(alpha, steps), N=steps)
    assert abs(math.log(curve.best / alpha)) <= FINEST * 1.01
    assert curve.lowest < 0.03


def test_one_step_has_the_loss_of_its_closed_form(
    find: Callable[..., AlphaCurve], small_digits: ImageDataset, small_network: ConvNet
) -> None:
    """From θ with gradient g and target θ + d: L(α) = |d + αg|² / |d|², lowest at −⟨d, g⟩ / |g|²."""
    images, start = real_images(small_digits, 1, 0).double(), small_network.initial(generator("start")).double()
    g = InnerStep(small_network).gradient(start, images, torch.eye(10, dtype=torch.float64) / 10)
    noise = torch.randn(len(g), dtype=torch.float64, generator=generator("noise"))
    d = -0.02 * g + 0.01 * noise * float(g.norm() / noise.norm())
    curve = find(Given([start, start + d]), T=1, T_plus=1)
    for alpha, loss in curve.points:
        assert loss == pytest.approx(float((d + alpha * g).square().sum() / d.square().sum()), rel=1e-9)
    assert abs(math.log(curve.best / float(-(d @ g) / (g @ g)))) <= FINEST * 1.01


def test_paths_start_all_over_the_range_and_from_every_expert(
    find: Callable[..., AlphaCurve], reach: Callable[[float, int], Given]
) -> None:
    trajectories = reach(0.01, 1)
    find(trajectories, T_minus=1, T=2, T_plus=5, interval=1, iterations=10)
    starts = {1, 2, 3, 4}  # of the whole distillation, whose range has grown at its end
    assert {epoch for _, epoch in trajectories.read} == starts | {epoch + 1 for epoch in starts}
    assert {expert for expert, _ in trajectories.read} == {0, 1, 2}
    assert len(starts) == PATHS


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_paths(
    find: Callable[..., AlphaCurve], reach: Callable[[float, int], Given]
) -> None:
    trajectories = reach(0.01, 2)
    one, again, other = (find(trajectories, seed, N=3, batch_syn=4) for seed in (0, 0, 1))
    assert one.points == again.points
    assert one.points != other.points


class TestSearch:
    def test_ends_its_scan_at_the_first_alpha_that_goes_too_far(self) -> None:
        curve = _search(lambda alpha: (1 - alpha / 0.01) ** 2, least=0.0)
        tried = [alpha for alpha, _ in curve.points]
        assert tried[-1] == 10**-1.5 and 0.001 in tried and tried == sorted(tried)
        assert [loss >= TOO_FAR for _, loss in curve.points].count(True) == 1

    def test_a_path_that_diverges_goes_too_far(self) -> None:
        curve = _search(lambda alpha: math.inf if alpha > 0.002 else 1 - alpha, least=0.0)
        assert math.isinf(curve.points[-1][1])
        assert 0.001 < curve.best < 0.002

    def test_no_alpha_is_below_the_floor(self) -> None:
        curve = _search(lambda alpha: 1 + alpha, least=0.02)
        assert curve.best == curve.points[0][0] == 0.02
        assert RANGE[0] < 0.02

    def test_where_all_diverge_the_smallest_is_the_best(self) -> None:
        assert _search(lambda alpha: math.inf, least=0.0).best < 1e-5


def test_a_curve_survives_a_checkpoints_state() -> None:
    curve = AlphaCurve([(0.1, 0.5), (1.0, math.inf)])
    assert AlphaCurve.of_state({AlphaCurve.KEY: [list(point) for point in curve.points]}) == curve
    assert AlphaCurve.of_state({"alpha": 0.1}) is None and AlphaCurve.of_state(None) is None
