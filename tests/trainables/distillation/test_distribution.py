"""Distribution matching: runs written out with PyTorch's own layers, finite differences, zero at the real images."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.matching_problems import (
    FAMILIES,
    accuracies,
    directional_error,
    first_of_each_class,
    one_by_one,
    same_state,
    start,
)
from tests.support.references import module_of, relative_error
from trainables.data.datasets import ImageDataset
from trainables.data.real_images import real_images
from trainables.distillation.distribution import DistributionMatching
from trainables.distillation.gradient import GradientMatching
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator


@pytest.fixture
def make(small_digits: ImageDataset, small_network: ConvNet) -> Callable[..., DistributionMatching]:
    def build(images: Tensor | None = None, **options: Any) -> DistributionMatching:
        settings = {"method": "distribution", "batch_real": 16, **options}
        return start(DistributionMatching, small_digits, small_network, images=images, **settings)

    return build


def reference_run(distiller: DistributionMatching, iterations: int) -> tuple[Tensor, Tensor, list[float]]:
    """docs/method.md, "DM", with PyTorch's layers and optimiser: the images, their average and the losses."""
    config, dataset, augmentation = distiller.config, distiller.dataset, distiller.augmentation
    real, labels = dataset.normalized("train").double(), dataset.labels("train")
    images = distiller.initial_images.clone().requires_grad_()
    average = images.detach().clone()
    optimizer = torch.optim.SGD([images], lr=config.lr_pixel, momentum=config.momentum_pixel)
    losses = []
    for iteration in range(iterations):
        draws = generator(distiller.seed, "distribution matching", iteration)
        features = module_of(distiller.network, distiller.network.initial(draws).double())[:-1]  # less the last layer
        loss = torch.zeros((), dtype=torch.float64)
        for label in range(dataset.classes):
            members = (labels == label).nonzero().flatten()
            batch = real[members[torch.randperm(len(members), generator=draws)[: config.batch_real]]]
            draw = augmentation.draw(1, dataset.image_size, draws)
            own = images[label * config.ipc : (label + 1) * config.ipc]
            means = [features(one_by_one(augmentation, each, draw)).mean(dim=0) for each in (batch, own)]
            loss = loss + (means[0].detach() - means[1]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average = config.ema_decay * average + (1 - config.ema_decay) * images.detach()
        losses.append(loss.item())
    return images.detach(), average, losses


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3},
        {"families": FAMILIES, "seed": 1},
        {"ipc": 3, "ema_decay": 0.6, "momentum_pixel": 0.2, "batch_real": 1000},  # more than a class has
        {"ipc": 1, "batch_real": 1, "micro_batch": 1},
    ],
    ids=["plain", "augmented", "whole classes averaged", "one image"],
)
def test_whole_runs_are_those_of_torchs_layers_and_sgd_in_float64(
    make: Callable[..., DistributionMatching], options: dict[str, Any]
) -> None:
    distiller = make(**options)
    images, average, losses = reference_run(distiller, 6)
    assert [distiller.step().loss for _ in range(6)] == pytest.approx(losses, rel=1e-10)
    way = images - distiller.initial_images
    assert relative_error(distiller.images - distiller.initial_images, way) < 1e-9
    assert float(way.abs().max()) > 0.01
    result = average if distiller.config.ema_decay else images
    assert relative_error(distiller.result_images, result) < 1e-10
    assert (distiller.iteration, distiller.skipped) == (6, 0)


class TestGradient:
    @pytest.mark.parametrize("family", [None, *FAMILIES])
    def test_is_that_of_finite_differences(self, make: Callable[..., DistributionMatching], family: str) -> None:
        families = (family,) if family else ()
        distiller = make(families=families)
        _, gradient = distiller.loss_and_gradient()
        assert directional_error(lambda images: make(images, families=families), distiller.images, gradient) < 1e-6

    @pytest.mark.parametrize("families", [(), *[(family,) for family in FAMILIES]], ids=str)
    def test_loss_and_gradient_are_zero_at_the_real_images_themselves(
        self, small_digits: ImageDataset, small_network: ConvNet, families: tuple[str, ...]
    ) -> None:
        """Under whatever augmentation, if it is the same on both sides: docs/method.md, "DSA", siamese."""
        few = first_of_each_class(small_digits, 4)
        options: dict[str, Any] = {"method": "distribution", "ipc": 4, "batch_real": 4, "families": families}
        same = start(DistributionMatching, few, small_network, images=few.normalized("train").double(), **options)
        loss, gradient = same.loss_and_gradient()
        # The first class's images in the second class's place are as far as any.
        swapped = start(DistributionMatching, few, small_network, images=same.images.roll(4, dims=0), **options)
        far, slope = swapped.loss_and_gradient()
        assert loss < 1e-24 * far
        assert float(gradient.norm()) < 1e-12 * float(slope.norm())

    def test_micro_batches_change_the_rounding_alone(self, make: Callable[..., DistributionMatching]) -> None:
        whole, pieces = make(families=FAMILIES, ipc=3), make(families=FAMILIES, ipc=3, micro_batch=2)
        (loss, gradient), (other, split) = whole.loss_and_gradient(), pieces.loss_and_gradient()
        assert other == pytest.approx(loss, rel=1e-12)
        assert relative_error(split, gradient) < 1e-12

    def test_classes_do_not_mix(self, make: Callable[..., DistributionMatching]) -> None:
        before = make()
        changed = before.images.clone()
        changed[:2] += 1  # class 0
        _, one = before.loss_and_gradient()
        _, other = make(changed).loss_and_gradient()
        assert torch.equal(one[2:], other[2:]) and not torch.equal(one[:2], other[:2])


RESUMED = {"families": FAMILIES, "ema_decay": 0.5, "seed": 5}


class TestResuming:
    @pytest.mark.parametrize("split", [0, 1, 4])
    def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
        self, make: Callable[..., DistributionMatching], split: int, tmp_path: Path
    ) -> None:
        whole, first, resumed = (make(**RESUMED) for _ in range(3))
        expected = [whole.step() for _ in range(5)]
        found = [first.step() for _ in range(split)]
        torch.save(first.state_dict(), tmp_path / "state.pt")
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert found + [resumed.step() for _ in range(5 - split)] == expected
        same_state(resumed, whole)
        assert resumed.displacement == whole.displacement > 0

    def test_the_state_says_what_it_holds(self, make: Callable[..., DistributionMatching]) -> None:
        state = make().state_dict()
        assert state.keys() == {"images", "image_velocity", "alpha", "iteration", "skipped", "not_finite"}
        assert make(ema_decay=0.5).state_dict().keys() == state.keys() | {"ema"}

    def test_a_state_of_another_method_or_size_is_refused(
        self, make: Callable[..., DistributionMatching], small_digits: ImageDataset, small_network: ConvNet
    ) -> None:
        other = start(GradientMatching, small_digits, small_network, method="gradient")
        with pytest.raises(ConfigError, match="resume it with the settings that it was made with"):
            make().load_state_dict(other.state_dict())
        with pytest.raises(ConfigError, match=r"holds images \[10, 1, 8, 8\], the distillation \[20, 1, 8, 8\]"):
            make().load_state_dict(make(ipc=1).state_dict())

    def test_the_seed_decides_every_bit(self, make: Callable[..., DistributionMatching]) -> None:
        one, same, other = make(seed=0), make(seed=0), make(seed=1)
        losses = [[each.step().loss for _ in range(3)] for each in (one, same, other)]
        assert losses[0] == losses[1] and not set(losses[0]) & set(losses[2])
        same_state(one, same)


class TestSkipping:
    def test_an_update_that_would_overflow_touches_nothing_and_is_counted(
        self, make: Callable[..., DistributionMatching], small_digits: ImageDataset
    ) -> None:
        distiller = make(real_images(small_digits, 2, 0), lr_pixel=100.0, ema_decay=0.5)
        huge = torch.full_like(distiller.images, 3e38)
        distiller.load_state_dict({**distiller.state_dict(), "image_velocity": huge})
        before = {name: torch.as_tensor(value) for name, value in distiller.state_dict().items()}
        done = [distiller.step() for _ in range(2)]
        assert all(each.skipped and not each.finite for each in done)
        assert (distiller.iteration, distiller.skipped, distiller.not_finite) == (2, 2, 2)
        for name in ("images", "image_velocity", "ema"):
            assert torch.equal(distiller.state_dict()[name], before[name])

    def test_a_large_loss_is_no_reason_to_skip(self, make: Callable[..., DistributionMatching]) -> None:
        done = make(max_matching_loss=1e-9).step()
        assert done.loss > 1e-9 and not done.skipped


class TestSettings:
    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"batch_real": 0}, "batch_real must be a whole number of at least 1, not 0"),
            ({"outer_loop": -1}, "outer_loop must be a whole number of at least 0, not -1"),
            ({"inner_loop": 1.5}, "inner_loop must be a whole number of at least 0, not 1.5"),
            ({"label_mode": "soft"}, "label_mode must be hard where method is distribution, not soft; set label_mode"),
            ({"gradient": "truncated"}, "gradient must be exact where method is distribution, not truncated; set grad"),
            ({"compile": "on"}, "compile must be auto or off where method is distribution, not on: its step is not"),
            ({"precision": "bf16"}, "precision must be fp32 or tf32 where method is distribution, not bf16"),
            ({"outer_loop": 2}, "outer_loop must be 0 where method is distribution, not 2; set it to 0 or method to"),
            ({"inner_loop": 2}, "inner_loop must be 0 where method is distribution, not 2; set it to 0 or method to"),
        ],
    )
    def test_what_the_method_cannot_do_is_refused_in_one_line(
        self, make: Callable[..., DistributionMatching], changed: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            make(**changed)
        assert str(caught.value).startswith(said) and len(str(caught.value).splitlines()) == 1

    @pytest.mark.parametrize(
        "changed",
        [
            {"N": 9, "M": 3, "T": 7, "T_plus": 8, "T_minus": 2, "interval": 5, "range_end": "inclusive"},
            {"lr_alpha": 0.1, "momentum_alpha": 0.1, "alpha_floor": 0.01, "momentum_label": 0.1},
            {"max_matching_loss": 1e-9},
            {"alpha_init": 0.5, "batch_syn": 3},
        ],
    )
    def test_the_settings_that_it_does_not_read_are_those_that_the_config_says(
        self, make: Callable[..., DistributionMatching], changed: dict[str, Any]
    ) -> None:
        plain, other = make(), make(**changed)
        assert dataclasses.asdict(plain.config) != dataclasses.asdict(other.config)
        assert [plain.step() for _ in range(2)] == [other.step() for _ in range(2)]
        assert torch.equal(plain.images, other.images)

    def test_images_that_are_not_ipc_a_class_are_refused(self, make: Callable[..., DistributionMatching]) -> None:
        with pytest.raises(ConfigError, match="2 · 10 = 20, not 19; change ipc"):
            make(torch.zeros(19, 1, 8, 8))


def test_features_are_what_the_linear_layer_reads(small_network: ConvNet) -> None:
    draws = generator("features")
    theta, images = small_network.initial(draws), torch.randn(4, 1, 8, 8, generator=draws)
    last = small_network.unflatten(theta)
    features = small_network.features(theta, images)
    assert features.shape == (4, 8 * 4 * 4)
    logits = torch.nn.functional.linear(features, last["linear.weight"], last["linear.bias"])
    assert torch.equal(logits, small_network.logits(theta, images))


def test_the_images_teach_more_than_the_real_ones_they_began_as(small_digits: ImageDataset) -> None:
    """On validation images of the digits that no distillation reads; three fresh networks a set."""
    network = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=16)
    images = real_images(small_digits, 1, 0)
    options: dict[str, Any] = {"method": "distribution", "ipc": 1, "lr_pixel": 3.0, "batch_real": 32}
    distiller = start(DistributionMatching, small_digits, network, images=images, **options)
    for _ in range(40):
        distiller.step()
    before, after = accuracies(network, small_digits, images, distiller.result_images)
    assert after > before + 0.05
