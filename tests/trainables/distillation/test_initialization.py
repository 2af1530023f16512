"""The images a synthetic set starts from: real ones in default order, balanced, that experts get right; or noise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.references import module_of
from trainables.data.datasets import ImageDataset
from trainables.data.real_images import real_images
from trainables.distillation.initialization import initial_images
from trainables.errors import ConfigError
from trainables.experts.store import Trajectories
from trainables.networks.convnet import ConvNet

LAST = 6


@pytest.fixture
def choose(small_digits: ImageDataset, small_network: ConvNet, trajectories: Trajectories) -> Callable[..., list[int]]:
    """Rows of the training split that an initialisation picked."""
    rows = {image.numpy().tobytes(): row for row, image in enumerate(small_digits.normalized("train"))}
    assert len(rows) == len(small_digits.split("train"))

    def chosen(
        mode: str = "correct", ipc: int = 5, seed: int = 0, experts: Trajectories = trajectories, epoch: int = LAST
    ) -> list[int]:
        images = initial_images(
            mode,
            small_digits,
            ipc,
            seed,
            network=small_network,
            trajectories=experts,
            epoch=epoch,
            device=torch.device("cpu"),
        )
        assert (images.shape, images.dtype) == ((10 * ipc, 1, 8, 8), torch.float32)
        return [rows[image.numpy().tobytes()] for image in images]

    return chosen


@pytest.fixture
def right(small_digits: ImageDataset, small_network: ConvNet) -> Callable[[Tensor], set[int]]:
    """Which rows of the training split a network classifies correctly."""
    images, labels = small_digits.normalized("train"), small_digits.labels("train")

    def rows(theta: Tensor) -> set[int]:
        with torch.no_grad():
            predicted = module_of(small_network, theta)(images).argmax(dim=1)
        return set((predicted == labels).nonzero().flatten().tolist())

    return rows


def says_always(label: int, network: ConvNet) -> Tensor:
    """An expert that gives every image the same label."""
    theta = torch.zeros(network.parameters)
    network.unflatten(theta)["linear.bias"][label] = 1
    return theta


def experts_of(*thetas: Tensor) -> Trajectories:
    return Trajectories([[theta.numpy()] for theta in thetas])


@pytest.mark.parametrize("mode", ["correct", "real"])
class TestBoth:
    @pytest.mark.parametrize("ipc", [1, 5, 20])
    def test_classes_are_balanced_and_in_default_order_without_repeats(
        self, choose: Callable[..., list[int]], small_digits: ImageDataset, mode: str, ipc: int
    ) -> None:
        rows = choose(mode, ipc)
        assert small_digits.labels("train", rows).tolist() == [index // ipc for index in range(10 * ipc)]
        assert len(set(rows)) == 10 * ipc

    def test_the_seed_decides(self, choose: Callable[..., list[int]], mode: str) -> None:
        assert choose(mode) == choose(mode)
        assert choose(mode, seed=1) != choose(mode)

    def test_more_images_per_class_begin_with_the_fewer(self, choose: Callable[..., list[int]], mode: str) -> None:
        few, many = choose(mode, 2), choose(mode, 6)
        assert [many[6 * label : 6 * label + 2] for label in range(10)] == [
            few[2 * label : 2 * label + 2] for label in range(10)
        ]

    def test_more_images_than_a_class_has_are_refused(
        self, choose: Callable[..., list[int]], small_digits: ImageDataset, mode: str
    ) -> None:
        counts = torch.bincount(small_digits.labels("train")).tolist()
        ipc = min(counts) + 1
        first = next(label for label, count in enumerate(counts) if count < ipc)
        with pytest.raises(
            ConfigError, match=rf"class '{first}' has {counts[first]} training .* than ipc = {ipc}; lower"
        ):
            choose(mode, ipc)
        assert len(choose(mode, min(counts))) == 10 * min(counts)


class TestCorrect:
    def test_are_the_first_of_the_random_order_that_expert_0_gets_right(
        self, choose: Callable[..., list[int]], right: Callable[[Tensor], set[int]], snapshots: list[list[Tensor]]
    ) -> None:
        # ipc as large as the smallest class: each class's whole random order, in as far as it is that of `real`.
        order, correct, ipc = choose("real", 95), right(snapshots[0][LAST]), 5
        expected = [
            row for label in range(10) for row in [*filter(correct.__contains__, order[95 * label :][:95])][:ipc]
        ]
        assert len(expected) == 10 * ipc
        assert choose("correct", ipc) == expected
        assert choose("real", ipc) != expected

    def test_the_epoch_named_decides(
        self, choose: Callable[..., list[int]], right: Callable[[Tensor], set[int]], snapshots: list[list[Tensor]]
    ) -> None:
        assert set(choose(epoch=4)) <= right(snapshots[0][4])
        assert not set(choose(epoch=LAST)) <= right(snapshots[0][4])

    def test_the_next_expert_fills_up(
        self,
        choose: Callable[..., list[int]],
        right: Callable[[Tensor], set[int]],
        small_network: ConvNet,
        snapshots: list[list[Tensor]],
    ) -> None:
        able = snapshots[1][LAST]
        rows = choose(experts=experts_of(says_always(4, small_network), able), epoch=0)
        alone = choose(experts=experts_of(able), epoch=0)
        assert rows[20:25] == choose("real")[20:25]
        assert rows[:20] + rows[25:] == alone[:20] + alone[25:]
        assert set(rows) - set(rows[20:25]) <= right(able)

    def test_what_no_expert_gets_right_is_filled_with_the_first_of_the_rest(
        self, choose: Callable[..., list[int]], small_network: ConvNet
    ) -> None:
        rows = choose(experts=experts_of(says_always(4, small_network)), epoch=0)
        assert rows == choose("real")

    def test_a_class_with_too_few_correct_keeps_those_and_goes_on(
        self,
        choose: Callable[..., list[int]],
        right: Callable[[Tensor], set[int]],
        small_digits: ImageDataset,
        snapshots: list[list[Tensor]],
    ) -> None:
        # An untrained expert gets some classes right now and then.
        theta, ipc = snapshots[0][0], 40
        correct, labels = right(theta), small_digits.labels("train").tolist()
        known = [sum(labels[row] == label for row in correct) for label in range(10)]
        assert any(0 < count < ipc for count in known)
        rows = choose(ipc=ipc, experts=experts_of(theta), epoch=0)
        for label in range(10):
            found = [row in correct for row in rows[ipc * label : ipc * (label + 1)]]
            assert found == [index < known[label] for index in range(ipc)]


def test_real_images_need_no_experts(small_digits: ImageDataset, choose: Callable[..., list[int]]) -> None:
    rows = choose("real", 3, seed=4)
    assert torch.equal(real_images(small_digits, 3, 4), small_digits.normalized("train", rows))


class TestNoise:
    @pytest.fixture
    def noise(
        self, small_digits: ImageDataset, small_network: ConvNet, trajectories: Trajectories
    ) -> Callable[..., Tensor]:
        def drawn(ipc: int, seed: int, mode: str = "noise") -> Tensor:
            device = torch.device("cpu")
            options: dict[str, Any] = {
                "network": small_network,
                "trajectories": trajectories,
                "epoch": LAST,
                "device": device,
            }
            return initial_images(mode, small_digits, ipc, seed, **options)

        return drawn

    def test_is_standard_normal(self, noise: Callable[..., Tensor]) -> None:
        images = noise(50, 0)
        assert (images.shape, images.dtype) == ((500, 1, 8, 8), torch.float32)
        # 32,000 draws: mean, standard deviation, and the shares within one and two, each to five standard errors.
        assert float(images.mean()) == pytest.approx(0, abs=5 / 32_000**0.5)
        assert float(images.std()) == pytest.approx(1, abs=5 / 64_000**0.5)
        for bound, share in ((1, 0.682689), (2, 0.954500)):
            error = 5 * (share * (1 - share) / 32_000) ** 0.5
            assert float((images.abs() < bound).double().mean()) == pytest.approx(share, abs=error)

    def test_is_named_by_the_seed(self, noise: Callable[..., Tensor]) -> None:
        assert torch.equal(noise(2, 0), noise(2, 0))
        assert not torch.equal(noise(2, 0), noise(2, 1))

    def test_another_kind_is_refused(self, noise: Callable[..., Tensor]) -> None:
        with pytest.raises(ConfigError, match="initialization is one of correct, real, noise, not other"):
            noise(2, 0, mode="other")
