"""The two sides of DCS: losses by hand and by the methods' own steps, what a set is worth, and their draws."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.experts import expert_identity
from tests.support.settings import distillation_config
from trainables.config.protocol import Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.distillation.gradient import gradient_distance
from trainables.distillation.inner_step import InnerStep
from trainables.distillation.matching import Matcher
from trainables.distillation.trajectory import Distiller
from trainables.errors import ConfigError, DatasetError, ExpertFileError
from trainables.evaluation.training import train_network
from trainables.experts.store import Trajectories, TrajectoryStore
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator, seed_of
from trainables.workers.correlation import (
    LOSSES,
    RANDOM_NETWORKS,
    MeasureWork,
    RealSubset,
    SetMeasures,
    distillation_loss,
    loss_config,
    measure_set,
)

TRIAL = distillation_config(
    ipc=1, N=3, M=2, T_minus=0, T=2, T_plus=4, interval=2, lr_pixel=50.0, lr_alpha=1e-3, alpha_init=0.05, batch_syn=8,
    batch_real=16, iterations=9,
)  # fmt: skip
IPC = 2


@pytest.fixture(scope="module")
def store(
    small_network: ConvNet, snapshots: list[list[Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[tuple[str, ...]], TrajectoryStore]:
    """The experts' store, as if they were trained with other augmentation families."""

    def build(families: tuple[str, ...]) -> TrajectoryStore:
        store = TrajectoryStore(tmp_path_factory.mktemp("experts"), expert_identity(small_network, families))
        store.record({number: store.write(number, each, [1.0] * 6) for number, each in enumerate(snapshots)})
        return store

    return build


@pytest.fixture(scope="module")
def work(digits_path: Path, store: Callable[[tuple[str, ...]], TrajectoryStore]) -> MeasureWork:
    return MeasureWork(
        dataset=digits_path, store=store(tuple(FAMILIES)), experts=3, epochs=6, settings=vars(TRIAL), losses=LOSSES,
        split="test", protocol=Protocol.challenge(20), networks=2, seed=5, device="cpu", device_share=1.0,
        kept=digits_path.parent,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(work: MeasureWork, store: Callable[[tuple[str, ...]], TrajectoryStore]) -> MeasureWork:
    """Every real image of every class, nothing augmented, each inner step on the whole set."""
    settings = {**work.settings, "batch_real": 10_000, "batch_syn": 10_000}
    return replace(work, store=store(()), settings=settings)


@pytest.fixture(scope="module")
def images(small_digits: ImageDataset) -> Tensor:
    return real_images(small_digits, IPC, 1)


def losses_seed(work: MeasureWork) -> int:
    return seed_of(work.seed, "dcs", "losses")


class TestLosses:
    def test_trajectory_is_the_mean_of_the_steps_that_a_distillation_itself_takes(
        self, work: MeasureWork, small_digits: ImageDataset, trajectories: Trajectories, images: Tensor
    ) -> None:
        """Start epochs 0 to 3 are the range at the last iteration; three of them evenly: 0, 2 (of 1.5) and 3."""
        losses = []
        for start in (0, 2, 3):
            config = replace(TRIAL, ipc=IPC, T_minus=start, T=start + 1, T_plus=start + 1)
            matcher = Matcher(InnerStep(work.network), work.augmentation)
            labels = default_order_labels(IPC, 10)
            running = Distiller(
                replace(config, lr_pixel=1e-300, lr_alpha=0.0), matcher=matcher, trajectories=trajectories,
                images=images, labels=labels, seed=losses_seed(work),
            )  # fmt: skip
            losses += [running.step().loss for _ in range(3)]
        found = distillation_loss(work, "trajectory", small_digits, images)
        assert found == pytest.approx(math.fsum(losses) / 9, rel=1e-6)

    def test_trajectory_matches_where_the_trial_ends(
        self, work: MeasureWork, small_digits: ImageDataset, images: Tensor
    ) -> None:
        """Two iterations: at the last the upper bound has not grown yet, and later starts are not looked at."""
        short = replace(work, settings={**work.settings, "iterations": 2})
        early = replace(work, settings={**work.settings, "T_plus": 2})
        found = distillation_loss(short, "trajectory", small_digits, images)
        assert found == distillation_loss(early, "trajectory", small_digits, images)
        assert found != distillation_loss(work, "trajectory", small_digits, images)

    def test_trajectory_is_one_where_nothing_is_trained(
        self, work: MeasureWork, small_digits: ImageDataset, images: Tensor
    ) -> None:
        """α as small as makes no step: what is left is the whole distance."""
        still = replace(work, settings={**work.settings, "alpha_init": 1e-30})
        assert distillation_loss(still, "trajectory", small_digits, images) == 1.0

    def test_distribution_by_hand(self, plain: MeasureWork, small_digits: ImageDataset, images: Tensor) -> None:
        """Σ_c ‖mean ψ(set) − mean ψ(class)‖² in float64, over the named networks."""
        labels, real = small_digits.labels("train"), small_digits.normalized("train").double()
        totals = []
        for number in range(RANDOM_NETWORKS):
            theta = plain.network.initial(generator(losses_seed(plain), "distribution matching", number)).double()
            features = plain.network.features(theta, images.double()).unflatten(0, (10, IPC)).mean(1)
            goals = torch.stack([plain.network.features(theta, real[labels == label]).mean(0) for label in range(10)])
            totals.append(float((features - goals).square().sum()))
        expected = math.fsum(totals) / RANDOM_NETWORKS
        assert distillation_loss(plain, "distribution", small_digits, images.double()) == pytest.approx(expected)
        assert distillation_loss(plain, "distribution", small_digits, images) == pytest.approx(expected, rel=1e-4)

    def test_gradient_by_hand(self, plain: MeasureWork, small_digits: ImageDataset, images: Tensor) -> None:
        """Σ_c D(∇ of the set's class, ∇ of the whole class) in float64, over the named fresh networks."""
        labels, real = small_digits.labels("train"), small_digits.normalized("train").double()

        def gradient(theta: Tensor, x: Tensor, label: int) -> Tensor:
            leaf = theta.requires_grad_()
            loss = F.cross_entropy(plain.network.logits(leaf, x), torch.full((len(x),), label))
            return torch.autograd.grad(loss, leaf)[0]

        totals = []
        for number in range(RANDOM_NETWORKS):
            named = generator(losses_seed(plain), "gradient matching", "network", number)
            theta = plain.network.initial(named).double()
            totals += [
                float(gradient_distance(plain.network, gradient(theta, own, label), gradient(theta, of_class, label)))
                for label in range(10)
                for own, of_class in [(images.double()[IPC * label : IPC * (label + 1)], real[labels == label])]
            ]
        found = distillation_loss(plain, "gradient", small_digits, images.double())
        assert found == pytest.approx(math.fsum(totals) / RANDOM_NETWORKS)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_the_order_within_a_class_does_not_matter(
        self, plain: MeasureWork, small_digits: ImageDataset, images: Tensor, loss: Any
    ) -> None:
        other = images.unflatten(0, (10, IPC)).flip(1).flatten(0, 1)
        one, turned = (distillation_loss(plain, loss, small_digits, each.double()) for each in (images, other))
        assert not torch.equal(images, other) and one == pytest.approx(turned, rel=1e-9)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_draws_are_those_of_the_seed_and_the_size_and_not_of_the_set(
        self, work: MeasureWork, small_digits: ImageDataset, images: Tensor, loss: Any
    ) -> None:
        """Measured after another set, and by another settings' trial that a loss takes no notice of: the same bits."""
        first = distillation_loss(work, loss, small_digits, images)
        distillation_loss(work, loss, small_digits, real_images(small_digits, IPC, 2))
        changed = {"ipc": 7, "lr_pixel": 3.0, "label_mode": "soft", "lr_label": 2.0, "gradient": "unrolled"}
        again = replace(work, settings={**work.settings, **changed})
        assert distillation_loss(again, loss, small_digits, images) == first
        assert distillation_loss(replace(work, seed=6), loss, small_digits, images) != first

    def test_a_loss_that_diverges_is_not_finite(
        self, work: MeasureWork, small_digits: ImageDataset, images: Tensor
    ) -> None:
        wild = replace(work, settings={**work.settings, "alpha_init": 1e30})
        assert not math.isfinite(distillation_loss(wild, "trajectory", small_digits, images))


class TestSets:
    def test_what_networks_reach_is_by_hand(
        self, work: MeasureWork, small_digits: ImageDataset, images: Tensor
    ) -> None:
        found = measure_set(replace(work, losses=()), images.numpy())
        labels = default_order_labels(IPC, 10)
        augmentation = Augmentation(families=tuple(FAMILIES), align_corners=False)
        for number in range(2):
            theta = train_network(
                work.network, images.__getitem__, labels, protocol=work.protocol, augmentation=augmentation,
                seed=seed_of(work.seed, "dcs", "network", number),
            )  # fmt: skip
            actual = small_digits.labels("test").numpy()
            logits = work.network.logits(theta, small_digits.normalized("test")).double().numpy()
            log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
            assert found.test_losses[number] == pytest.approx(-log_p[np.arange(len(actual)), actual].mean(), rel=1e-6)
            assert found.accuracies[number] == pytest.approx((logits.argmax(1) == actual).mean())

    def test_the_split_is_the_one_asked_for(
        self, work: MeasureWork, small_digits: ImageDataset, images: Tensor
    ) -> None:
        found = {split: measure_set(replace(work, losses=(), split=split), images.numpy()) for split in
                 ("test", "validation")}  # fmt: skip
        assert found["test"].test_losses != found["validation"].test_losses
        shares = [accuracy * len(small_digits.labels("validation")) for accuracy in found["validation"].accuracies]
        assert shares == pytest.approx([round(share) for share in shares])
        with pytest.raises(DatasetError, match="splits are train, validation, test"):
            measure_set(replace(work, losses=(), split="tests"), images.numpy())

    def test_a_random_subset_is_the_images_that_its_seed_names(
        self, work: MeasureWork, small_digits: ImageDataset
    ) -> None:
        found = measure_set(work, RealSubset(IPC, 8))
        assert isinstance(found, SetMeasures) and tuple(found.losses) == LOSSES
        assert found == measure_set(work, real_images(small_digits, IPC, 8).numpy())
        other = measure_set(work, RealSubset(IPC, 9))
        assert all(found.losses[loss] != other.losses[loss] for loss in LOSSES)
        assert found.test_losses != other.test_losses

    def test_an_array_that_nobody_may_write_to(self, work: MeasureWork, images: Tensor) -> None:
        frozen = images.numpy().copy()
        frozen.setflags(write=False)
        assert measure_set(replace(work, losses=("gradient",)), frozen).losses.keys() == {"gradient"}

    def test_experts_are_needed_for_the_trajectory_loss_alone(
        self, work: MeasureWork, images: Tensor, tmp_path: Path
    ) -> None:
        without = replace(
            work, store=TrajectoryStore(tmp_path, work.store.identity), networks=1, protocol=Protocol.challenge(2)
        )
        assert len(measure_set(replace(without, losses=("distribution", "gradient")), images.numpy()).losses) == 2
        with pytest.raises(ExpertFileError, match="needs 6 epochs and has none"):
            measure_set(without, images.numpy())


class TestRefused:
    def test_an_unknown_loss(self) -> None:
        with pytest.raises(ConfigError, match="a loss is one of trajectory, distribution, gradient, not tesla"):
            loss_config(vars(TRIAL), "tesla", 1)

    def test_features_that_are_not_rounded_and_steps_that_are_not_compiled(self) -> None:
        bf16 = {**vars(TRIAL), "precision": "bf16"}
        assert loss_config(bf16, "trajectory", 3).precision == "bf16"
        for loss in ("gradient", "distribution"):
            with pytest.raises(ConfigError, match=f"precision must be fp32 or tf32 where method is {loss}, not bf16"):
                loss_config(bf16, loss, 3)

    def test_more_images_than_a_class_has(self, work: MeasureWork) -> None:
        with pytest.raises(ConfigError, match="fewer than ipc = 1000; lower ipc"):
            measure_set(work, RealSubset(1000, 0))
