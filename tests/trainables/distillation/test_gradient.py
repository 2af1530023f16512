"""Gradient matching: the distance by other formulas, whole runs by double backward through PyTorch's own layers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.matching_problems import (
    FAMILIES,
    NOT_READ,
    accuracies,
    directional_error,
    first_of_each_class,
    one_by_one,
    same_state,
    start,
)
from tests.support.references import module_of, relative_error, vector_of
from tests.support.settings import distillation_config
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.gradient import GradientMatching, gradient_distance
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

TINY = ConvNet(channels=1, image_size=2, classes=2, depth=1, width=2)
ROWS = 2 + 2  # the convolution's outputs and the linear layer's


@pytest.fixture
def make(small_digits: ImageDataset, small_network: ConvNet) -> Callable[..., GradientMatching]:
    def build(images: Tensor | None = None, **options: Any) -> GradientMatching:
        settings = {"method": "gradient", "batch_real": 16, "alpha_init": 0.1, **options}
        return start(GradientMatching, small_digits, small_network, images=images, **settings)

    return build


def random_gradients(*name: int | str) -> Tensor:
    return torch.randn(2, TINY.parameters, dtype=torch.float64, generator=generator(*name))


class TestDistance:
    def test_by_hand(self) -> None:
        """One row that differs, of a network all of whose other rows agree."""
        one, other = torch.ones(2, TINY.parameters, dtype=torch.float64)
        TINY.unflatten(one)["linear.weight"][0] = torch.tensor([3.0, 4.0])
        TINY.unflatten(other)["linear.weight"][0] = torch.tensor([4.0, -3.0])  # at right angles
        assert float(gradient_distance(TINY, one, other)) == pytest.approx(1.0, abs=1e-5)
        TINY.unflatten(other)["linear.weight"][0] = torch.tensor([1.0, 0.0])  # cos = 3/5
        assert float(gradient_distance(TINY, one, other)) == pytest.approx(0.4, abs=1e-5)

    def test_a_millionth_is_added_to_the_product_of_the_norms(self) -> None:
        row, other = torch.full((2, TINY.parameters), 0.0, dtype=torch.float64)
        for each, value in ((row, 1e-3), (other, 2e-3)):
            TINY.unflatten(each)["linear.weight"][0] = torch.tensor([value, 0.0], dtype=torch.float64)
        expected = 1 - 2e-6 / (2e-6 + 1e-6)
        assert float(gradient_distance(TINY, row, other)) == pytest.approx(ROWS - 1 + expected, rel=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_by_torchs_cosine_similarity(self, small_network: ConvNet, seed: Any) -> None:
        shape = (2, small_network.parameters)
        one, other = 1e6 * torch.randn(shape, dtype=torch.float64, generator=generator("distance", seed))
        expected: Any = sum(
            (1 - F.cosine_similarity(a.reshape(len(a), -1), b.reshape(len(b), -1))).sum()
            for a, b in zip(
                (each for each in module_of(small_network, one).parameters() if each.dim() > 1),
                (each for each in module_of(small_network, other).parameters() if each.dim() > 1),
                strict=True,
            )
        )
        assert relative_error(gradient_distance(small_network, one, other), expected.detach()) < 1e-12

    def test_parameters_of_one_dimension_are_skipped(self) -> None:
        one, other = random_gradients("skipped")
        before = gradient_distance(TINY, one, other)
        for name, part in TINY.unflatten(other).items():
            if part.dim() == 1:
                part += 1
            else:
                assert name in ("conv0.weight", "linear.weight")
        assert torch.equal(gradient_distance(TINY, one, other), before)

    @given(st.integers(0, 2**20), st.floats(0.1, 1e3))
    def test_is_symmetric_and_knows_directions_alone(self, seed: int, scale: float) -> None:
        one, other = 1e3 * random_gradients("property", seed)
        distance = float(gradient_distance(TINY, one, other))
        assert 0 <= distance <= 2 * ROWS
        assert float(gradient_distance(TINY, other, one)) == pytest.approx(distance, rel=1e-9)
        assert float(gradient_distance(TINY, scale * one, other)) == pytest.approx(distance, rel=1e-6)
        assert float(gradient_distance(TINY, one, one)) == pytest.approx(0, abs=1e-6)
        assert float(gradient_distance(TINY, one, -one)) == pytest.approx(2 * ROWS, abs=1e-6)

    def test_rows_of_zeros_count_as_one_and_have_a_finite_gradient(self) -> None:
        _, other = random_gradients("zeros")
        zero = torch.zeros_like(other, requires_grad=True)
        distance = gradient_distance(TINY, zero, other)
        (gradient,) = torch.autograd.grad(distance, zero)
        assert distance.item() == ROWS and bool(torch.isfinite(gradient).all())


def reference_run(distiller: GradientMatching, iterations: int) -> tuple[Tensor, Tensor, list[float]]:
    """docs/method.md, "DC": double backward through PyTorch's layers, torch.optim.SGD for images and network."""
    config, dataset, augmentation = distiller.config, distiller.dataset, distiller.augmentation
    real, labels = dataset.normalized("train").double(), dataset.labels("train")
    own_labels = default_order_labels(config.ipc, dataset.classes)
    images = distiller.initial_images.clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=config.lr_pixel, momentum=config.momentum_pixel)
    (outer, inner), losses, iteration, network = config.loops, [], 0, 0
    while iteration < iterations:
        fresh = distiller.network.initial(generator(distiller.seed, "gradient matching", "network", network))
        module = module_of(distiller.network, fresh.double())
        parameters = list(module.parameters())
        trainer = torch.optim.SGD(parameters, lr=config.alpha)
        for loop in range(min(outer, iterations - iteration)):
            draws = generator(distiller.seed, "gradient matching", iteration)
            loss = torch.zeros((), dtype=torch.float64)
            for label in range(dataset.classes):
                members = (labels == label).nonzero().flatten()
                batch = real[members[torch.randperm(len(members), generator=draws)[: config.batch_real]]]
                draw = augmentation.draw(1, dataset.image_size, draws)
                gradients = []
                for each in (batch, images[own_labels == label]):
                    output = module(one_by_one(augmentation, each, draw))
                    value = F.cross_entropy(output, torch.full((len(each),), label))
                    gradients.append(torch.autograd.grad(value, parameters, create_graph=True))
                for goal, found in zip(*gradients, strict=True):
                    if goal.dim() > 1:
                        a, b = goal.detach().reshape(len(goal), -1), found.reshape(len(found), -1)
                        loss = loss + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if loop < outer - 1:
                draws = generator(distiller.seed, "gradient matching", iteration, "training")
                for _ in range(inner):
                    order = torch.randperm(len(images), generator=draws)
                    for first in range(0, len(order), config.batch_syn):
                        rows = order[first : first + config.batch_syn]
                        draw = augmentation.draw(len(rows), dataset.image_size, draws)
                        output = module(augmentation.apply(images.detach()[rows], draw))
                        trainer.zero_grad()
                        F.cross_entropy(output, own_labels[rows]).backward()
                        trainer.step()
            iteration += 1
        network += 1
    return images.detach(), vector_of(module), losses


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3, "ipc": 1},
        {"outer_loop": 3, "inner_loop": 2},
        {"outer_loop": 4, "inner_loop": 1, "families": FAMILIES, "seed": 1, "batch_syn": 1000, "micro_batch": 3},
        {"outer_loop": 2, "inner_loop": 3, "batch_real": 1000, "momentum_pixel": 0.2},
    ],
    ids=["a network a step", "three updates a network", "augmented in pieces", "whole classes"],
)
def test_whole_runs_are_those_of_torchs_layers_and_sgd_in_float64(
    make: Callable[..., GradientMatching], options: dict[str, Any]
) -> None:
    distiller = make(**options)
    images, network, losses = reference_run(distiller, 5)
    assert [distiller.step().loss for _ in range(5)] == pytest.approx(losses, rel=1e-9)
    way = images - distiller.initial_images
    assert relative_error(distiller.images - distiller.initial_images, way) < 1e-8
    assert float(way.abs().max()) > 0.01
    if 5 % distiller.config.loops[0]:
        assert relative_error(distiller.state_dict()["network"], network) < 1e-9


class TestGradient:
    @pytest.mark.parametrize("family", [None, *FAMILIES])
    def test_is_that_of_finite_differences(self, make: Callable[..., GradientMatching], family: str) -> None:
        families = (family,) if family else ()
        distiller = make(families=families)
        _, gradient = distiller.loss_and_gradient()
        assert directional_error(lambda images: make(images, families=families), distiller.images, gradient) < 1e-5

    @pytest.mark.parametrize("families", [(), *[(family,) for family in FAMILIES]], ids=str)
    def test_loss_and_gradient_are_all_but_zero_at_the_real_images_themselves(
        self, small_digits: ImageDataset, small_network: ConvNet, families: tuple[str, ...]
    ) -> None:
        """Under whatever augmentation, if it is the same on both sides: docs/method.md, "DSA", siamese."""
        few = first_of_each_class(small_digits, 4)
        options: dict[str, Any] = {"method": "gradient", "ipc": 4, "batch_real": 4, "families": families}
        same = start(GradientMatching, few, small_network, images=few.normalized("train").double(), **options)
        swapped = start(GradientMatching, few, small_network, images=same.images.roll(4, dims=0), **options)
        (loss, gradient), (far, slope) = same.loss_and_gradient(), swapped.loss_and_gradient()
        assert loss < 1e-3 * far  # the 1e-6 in the denominator keeps it from zero
        assert float(gradient.norm()) < 1e-2 * float(slope.norm())

    def test_micro_batches_change_the_rounding_alone(self, make: Callable[..., GradientMatching]) -> None:
        whole, pieces = make(families=FAMILIES, ipc=3), make(families=FAMILIES, ipc=3, micro_batch=2)
        (loss, gradient), (other, split) = whole.loss_and_gradient(), pieces.loss_and_gradient()
        assert other == pytest.approx(loss, rel=1e-12)
        assert relative_error(split, gradient) < 1e-10


class TestNetwork:
    def test_is_trained_between_updates_and_drawn_anew_after_the_last(
        self, make: Callable[..., GradientMatching]
    ) -> None:
        distiller = make(outer_loop=3, inner_loop=1)
        networks = [distiller.state_dict()["network"]]
        for _ in range(6):
            distiller.step()
            networks.append(distiller.state_dict()["network"])
        assert len({float(each.norm()) for each in networks}) == 7
        for number, place in enumerate((0, 3, 6)):
            expected = distiller.network.initial(generator(0, "gradient matching", "network", number))
            assert torch.equal(networks[place], expected.double())

    @pytest.mark.parametrize(
        ("ipc", "loops"), [(1, (1, 1)), (10, (10, 50)), (50, (50, 10)), (5, (5, 50)), (20, (20, 25)), (500, (50, 10))]
    )
    def test_the_loops_are_methods_by_images_per_class(self, ipc: int, loops: tuple[int, ...]) -> None:
        config = distillation_config(**NOT_READ, method="gradient", ipc=ipc, lr_pixel=0.1, batch_syn=256)
        assert config.loops == loops

    def test_loops_that_are_set_are_taken(self) -> None:
        settings = {**NOT_READ, "method": "gradient", "ipc": 10, "lr_pixel": 0.1, "batch_syn": 256}
        assert distillation_config(**settings, outer_loop=2).loops == (2, 50)
        assert distillation_config(**settings, inner_loop=3).loops == (10, 3)

    def test_training_of_a_network_that_is_not_trained_is_refused(self, make: Callable[..., GradientMatching]) -> None:
        make(ipc=1, inner_loop=1)  # DC's own (1, 1)
        for changed in ({"ipc": 1}, {"outer_loop": 1}):
            with pytest.raises(ConfigError, match="inner_loop must be at most 1 where a network serves one update"):
                make(**changed, inner_loop=2)


RESUMED = {"families": FAMILIES, "ema_decay": 0.5, "seed": 5, "outer_loop": 3, "inner_loop": 2}


class TestResuming:
    @pytest.mark.parametrize("split", [0, 1, 3, 5])
    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
        self, make: Callable[..., GradientMatching], split: int, tmp_path: Path
    ) -> None:
        whole, first, resumed = (make(**RESUMED) for _ in range(3))
        expected = [whole.step() for _ in range(6)]
        found = [first.step() for _ in range(split)]
        torch.save(first.state_dict(), tmp_path / "state.pt")
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert found + [resumed.step() for _ in range(6 - split)] == expected
        same_state(resumed, whole)

    def test_the_state_says_what_it_holds(self, make: Callable[..., GradientMatching]) -> None:
        state = make().state_dict()
        assert state.keys() == {"images", "image_velocity", "alpha", "iteration", "skipped", "not_finite", "network"}

    def test_an_error_within_a_step_leaves_the_state_as_it_was(
        self, make: Callable[..., GradientMatching], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        distiller, undisturbed = make(outer_loop=3, inner_loop=1), make(outer_loop=3, inner_loop=1)
        distiller.step()
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

            patch.setattr(distiller, "_trained", fail)
            with pytest.raises(torch.cuda.OutOfMemoryError):
                distiller.step()
        distiller.step()
        for _ in range(2):
            undisturbed.step()
        same_state(distiller, undisturbed)

    def test_the_seed_decides_every_bit(self, make: Callable[..., GradientMatching]) -> None:
        one, same, other = make(seed=0), make(seed=0), make(seed=1)
        losses = [[each.step().loss for _ in range(3)] for each in (one, same, other)]
        assert losses[0] == losses[1] and not set(losses[0]) & set(losses[2])
        same_state(one, same)


def test_a_network_that_diverges_stops_the_images_until_the_next_one(make: Callable[..., GradientMatching]) -> None:
    distiller = make(outer_loop=3, inner_loop=4, alpha_init=1e200)
    done = [distiller.step() for _ in range(4)]
    assert [each.skipped for each in done] == [False, True, True, False]
    assert not math.isfinite(done[1].loss) and distiller.not_finite == 2
    assert bool(torch.isfinite(distiller.images).all())


def test_the_images_teach_more_than_the_real_ones_they_began_as(small_digits: ImageDataset) -> None:
    """On validation images of the digits that no distillation reads; three fresh networks a set."""
    network = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=16)
    images = real_images(small_digits, 1, 0)
    options: dict[str, Any] = {"method": "gradient", "ipc": 1, "lr_pixel": 0.3, "batch_real": 32}
    distiller = start(GradientMatching, small_digits, network, images=images, **options)
    for _ in range(20):
        distiller.step()
    before, after = accuracies(network, small_digits, images, distiller.result_images)
    assert after > before + 0.05
