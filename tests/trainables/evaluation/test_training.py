"""The evaluation's training against torch.optim and the challenge's protocol, its metrics against scikit-learn."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from torch import Tensor

from tests.support.references import module_of, relative_error, vector_of
from trainables.config.protocol import Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.evaluation.metrics import measure
from trainables.evaluation.optimizer import learning_rate
from trainables.evaluation.training import (
    evaluate,
    evaluate_networks,
    groups_of,
    networks_at_once,
    predict,
    train_network,
    train_networks,
    training_steps,
)
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

TINY = ConvNet(channels=1, image_size=4, classes=3, depth=1, width=2)
NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=1, width=6)


@pytest.fixture
def float64() -> Iterator[None]:
    """Training in float64, where two ways to the same figures part by rounding alone, even after a thousand epochs."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_set(network: ConvNet, images: int) -> tuple[Tensor, Tensor]:
    pixels = torch.randn(images, 1, network.image_size, network.image_size, generator=generator("evaluation", images))
    return pixels, torch.arange(images) % network.classes


def trained(
    network: ConvNet, images: Tensor, labels: Tensor, protocol: Protocol, families: tuple[str, ...] = (), seed: int = 0
) -> Tensor:
    return train_network(
        network,
        images.__getitem__,
        labels,
        protocol=protocol,
        augmentation=Augmentation(families=families, align_corners=False),
        seed=seed,
    )


def reference(
    network: ConvNet,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    *,
    families: tuple[str, ...] = (),
    seed: int = 0,
    replace_optimizer: bool = True,
) -> Tensor:
    """The evaluator's loop with PyTorch's layers and optimiser, in float64, over the same batches.

    Source: docs/method.md, "Challenge protocol".
    """
    augmentation = Augmentation(families=families, align_corners=False)
    module = module_of(network, network.initial(generator(seed, "evaluation", "initial")).double())

    def make_optimizer(rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            module.parameters(), lr=rate, momentum=protocol.momentum, weight_decay=protocol.weight_decay
        )

    optimizer = make_optimizer(protocol.learning_rate)
    draws = generator(seed, "evaluation", "batches")
    for epoch in range(protocol.epochs):
        order = torch.randperm(len(labels), generator=draws)
        for first in range(0, len(order), protocol.batch_size):
            index = order[first : first + protocol.batch_size]
            draw = augmentation.draw(len(index), network.image_size, draws)
            optimizer.zero_grad()
            F.cross_entropy(module(augmentation.apply(images[index].double(), draw)), labels[index]).backward()
            optimizer.step()
        if epoch == protocol.drop_after_epochs - 1:
            rate = protocol.learning_rate * protocol.drop_factor
            if replace_optimizer:
                optimizer = make_optimizer(rate)
            optimizer.param_groups[0]["lr"] = rate
    return vector_of(module)


def distance(network: ConvNet, theta: Tensor, expected: Tensor, seed: int = 0) -> float:
    """How far apart two trained networks are, relative to the way from their common start."""
    start = network.initial(generator(seed, "evaluation", "initial")).double()
    return relative_error(theta.double() - start, expected - start)


def optimizer_trace(
    network: ConvNet, images: Tensor, labels: Tensor, seed: int
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Learning rate, parameters and momentum after each step of torch.optim.SGD in the evaluator's own loop.

    Written after docs/method.md, "Challenge protocol", with its constants: epochs 0 to 1000, batch 256, the drop at the
    end of epoch 501.
    """
    theta = network.initial(generator(seed, "evaluation", "initial")).requires_grad_()
    augmentation = Augmentation(families=tuple(FAMILIES), align_corners=False)
    draws = generator(seed, "evaluation", "batches")
    lr = 0.01
    optimizer = torch.optim.SGD([theta], lr=lr, momentum=0.9, weight_decay=0.0005)
    for epoch in range(1000 + 1):
        for index in torch.randperm(len(labels), generator=draws).split(256):
            batch = augmentation.apply(images[index], augmentation.draw(len(index), network.image_size, draws))
            batch = batch.clone(memory_format=torch.contiguous_format)  # strides choose the kernel, and so the last bit
            optimizer.zero_grad()
            F.cross_entropy(network.logits(theta, batch), labels[index]).backward()
            optimizer.step()
            (group,) = optimizer.param_groups
            yield group["lr"], theta.detach(), optimizer.state[theta]["momentum_buffer"]
        if epoch in [1000 // 2 + 1]:
            lr *= 0.1
            optimizer = torch.optim.SGD([theta], lr=lr, momentum=0.9, weight_decay=0.0005)


class TestTrace:
    """The golden test: learning rate and momentum of the whole protocol, step by step, to the bit."""

    def test_rate_parameters_and_momentum_are_those_of_the_evaluators_loop(self) -> None:
        images, labels = random_set(TINY, 258)  # 256 + 2: a full batch and a partial one
        steps = training_steps(
            TINY,
            images.__getitem__,
            labels,
            protocol=Protocol(),
            augmentation=Augmentation(families=tuple(FAMILIES), align_corners=False),
            seeds=[5],
        )
        rates = []
        for number, (step, (rate, theta, velocity)) in enumerate(
            zip(steps, optimizer_trace(TINY, images, labels, 5), strict=True)
        ):
            assert step.learning_rate == rate, number
            assert torch.equal(step.velocity[0], velocity), number
            assert torch.equal(step.theta[0], theta), number
            assert step.epoch == number // 2
            rates.append(rate)
        assert rates == [0.01] * 2 * 502 + [0.01 * 0.1] * 2 * 499

    def test_the_momentum_after_the_drop_is_one_gradient(self, float64: None) -> None:
        """The first velocity of the new optimiser knows nothing of those before: it is the gradient plus the decay."""
        images, labels = random_set(TINY, 4)
        protocol = Protocol(epochs=4, drop_after_epochs=3)
        before, velocities = TINY.initial(generator(0, "evaluation", "initial")), []
        options: dict[str, Any] = {"protocol": protocol, "augmentation": Augmentation(), "seeds": [0]}
        for step in training_steps(TINY, images.double().__getitem__, labels, **options):
            leaf = before.clone().requires_grad_()
            loss = F.cross_entropy(TINY.logits(leaf, images.double()), labels)
            fresh = torch.autograd.grad(loss, leaf)[0] + 5e-4 * before
            velocities.append(relative_error(step.velocity[0], fresh) < 1e-12)
            before = step.theta[0].clone()
        assert velocities == [True, False, False, True]


class TestAdamW:
    """The soft regimes' optimiser and schedule, docs/method.md, "Label regimes", against torch.optim's own."""

    PROTOCOL = Protocol(
        epochs=40, learning_rate=0.01, momentum=0.8, weight_decay=0.1, batch_size=5, optimizer="adamw",
        schedule="cosine", temperature=4.0,
    )  # fmt: skip

    def test_rate_parameters_and_momentum_are_those_of_torchs_to_the_bit(self) -> None:
        images, _ = random_set(TINY, 12)
        labels = torch.randn(12, 3, generator=generator("logits"))
        theta = TINY.initial(generator(5, "evaluation", "initial")).requires_grad_()
        optimizer = torch.optim.AdamW([theta], lr=0.01, betas=(0.8, 0.999), weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        draws = generator(5, "evaluation", "batches")
        steps = training_steps(
            TINY, images.__getitem__, labels, protocol=self.PROTOCOL, augmentation=Augmentation(), seeds=[5]
        )
        for epoch in range(40):
            for index in torch.randperm(12, generator=draws).split(5):
                step = next(steps)
                assert step.learning_rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
                optimizer.param_groups[0]["lr"] = step.learning_rate  # the schedule's is rounded once more
                optimizer.zero_grad()
                student, teacher = (
                    F.log_softmax(logits / 4, dim=1) for logits in (TINY.logits(theta, images[index]), labels[index])
                )
                F.kl_div(student, teacher, reduction="batchmean", log_target=True).backward()
                optimizer.step()
                assert step.epoch == epoch
                assert torch.equal(step.theta[0], theta.detach()), epoch
                assert torch.equal(step.velocity[0], optimizer.state[theta]["exp_avg"]), epoch
            schedule.step()
        assert list(steps) == []

    def test_the_cosine_starts_at_the_rate_is_half_of_it_half_way_and_ends_at_0(self) -> None:
        rates = [learning_rate(self.PROTOCOL, epoch) for epoch in (0, 20, 40)]
        assert rates == pytest.approx([0.01, 0.005, 0.0], abs=1e-15)

    def test_a_drop_restarts_it_or_not(self) -> None:
        """A fresh AdamW's first step moves a parameter by the rate, whatever its gradient: both moments are its own."""
        images, labels = random_set(TINY, 4)
        for restart in (True, False):
            protocol = Protocol(
                epochs=4, drop_after_epochs=3, drop_factor=0.1, weight_decay=0.0, optimizer="adamw",
                restart_momentum=restart,
            )  # fmt: skip
            thetas = [
                step.theta[0].clone()
                for step in training_steps(
                    TINY, images.__getitem__, labels, protocol=protocol, augmentation=Augmentation(), seeds=[0]
                )
            ]
            by_the_rate = ((thetas[3] - thetas[2]).abs() - 0.001).abs() < 1e-6
            share = float(by_the_rate.double().mean())  # not the biases before a norm, whose gradients are all rounding
            assert share > 0.9 if restart else share < 0.1


class TestProtocol:
    def test_502_epochs_at_a_hundredth_and_499_at_a_thousandth(self) -> None:
        rates = [learning_rate(Protocol(), epoch) for epoch in range(1001)]
        assert rates == pytest.approx([0.01] * 502 + [0.001] * 499, rel=1e-12)

    def test_the_whole_protocol_is_the_evaluators(self, float64: None) -> None:
        images, labels = random_set(TINY, 4)
        protocol = Protocol(batch_size=3)
        theta = trained(TINY, images.double(), labels, protocol)
        assert distance(TINY, theta, reference(TINY, images, labels, protocol)) < 1e-9
        assert distance(TINY, theta, reference(TINY, images, labels, protocol, replace_optimizer=False)) > 1e-5

    @pytest.mark.parametrize("families", [(), ("color", "crop", "cutout", "flip", "scale", "rotate")])
    @pytest.mark.parametrize("batch_size", [7, 10, 256])
    def test_partial_batches_and_augmentation(self, batch_size: int, families: tuple[str, ...]) -> None:
        images, labels = random_set(NETWORK, 20)
        protocol = Protocol(epochs=12, drop_after_epochs=7, batch_size=batch_size, learning_rate=0.05)
        theta = trained(NETWORK, images, labels, protocol, families, seed=4)
        expected = reference(NETWORK, images, labels, protocol, families=families, seed=4)
        assert distance(NETWORK, theta, expected, seed=4) < 1e-4

    def test_the_drop_zeroes_the_momentum(self) -> None:
        images, labels = random_set(NETWORK, 20)
        protocol = Protocol(epochs=7, drop_after_epochs=6, drop_factor=1.0)
        theta = trained(NETWORK, images, labels, protocol)
        kept = reference(NETWORK, images, labels, protocol, replace_optimizer=False)
        assert distance(NETWORK, theta, reference(NETWORK, images, labels, protocol)) < 1e-4
        assert distance(NETWORK, theta, kept) > 0.1

    def test_training_that_ends_before_the_drop(self) -> None:
        images, labels = random_set(NETWORK, 20)
        early, later = (Protocol(epochs=3, drop_after_epochs=drop) for drop in (3, 502))
        assert torch.equal(trained(NETWORK, images, labels, early), trained(NETWORK, images, labels, later))


class TestTrainNetwork:
    PROTOCOL = Protocol(epochs=3, batch_size=7)

    def test_the_seed_decides_every_bit(self) -> None:
        images, labels = random_set(NETWORK, 20)
        one, again, other = (trained(NETWORK, images, labels, self.PROTOCOL, ("flip",), seed) for seed in (0, 0, 1))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert not one.requires_grad

    def test_every_image_is_used_once_an_epoch_in_full_and_partial_batches(self) -> None:
        images, labels = random_set(NETWORK, 20)
        asked = []

        def recorded(index: Tensor) -> Tensor:
            asked.append(index.tolist())
            return images[index]

        train_network(NETWORK, recorded, labels, protocol=self.PROTOCOL, augmentation=Augmentation(), seed=0)
        assert [len(index) for index in asked] == [7, 7, 6] * 3
        epochs = torch.tensor([row for index in asked for row in index]).view(3, 20).tolist()
        assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
        assert epochs[0] != epochs[1]

    def test_what_is_given_is_left_as_it_was(self) -> None:
        images, labels = random_set(NETWORK, 20)
        before = images.clone()
        trained(NETWORK, images, labels, self.PROTOCOL, ("color",))
        assert torch.equal(images, before)
        assert not images.requires_grad


class TestSideBySide:
    SEEDS = (3, 1, 4)

    @pytest.mark.parametrize("families", [(), tuple(FAMILIES)])
    @pytest.mark.parametrize("batch_size", [7, 256])
    def test_each_network_comes_out_as_alone(self, float64: None, batch_size: int, families: tuple[str, ...]) -> None:
        images, labels = random_set(NETWORK, 20)
        protocol = Protocol(epochs=30, drop_after_epochs=17, batch_size=batch_size, learning_rate=0.05)
        options: dict[str, Any] = {
            "protocol": protocol,
            "augmentation": Augmentation(families=families, align_corners=False),
        }
        together = train_networks(NETWORK, images.double().__getitem__, labels, seeds=self.SEEDS, **options)
        assert together.shape == (3, NETWORK.parameters)
        for theta, seed in zip(together, self.SEEDS, strict=True):
            alone = train_network(NETWORK, images.double().__getitem__, labels, seed=seed, **options)
            assert distance(NETWORK, theta, alone, seed=seed) < 1e-11

    def test_every_network_has_batches_and_augmentation_of_its_own(self) -> None:
        images, labels = random_set(NETWORK, 20)
        asked = []

        def recorded(index: Tensor) -> Tensor:
            asked.append(index.tolist())
            return images[index]

        protocol = Protocol(epochs=1, batch_size=12)
        train_networks(NETWORK, recorded, labels, protocol=protocol, augmentation=Augmentation(), seeds=self.SEEDS)
        assert [len(index) for index in asked] == [12] * 3 + [8] * 3
        epochs = [asked[number] + asked[number + 3] for number in range(3)]
        assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 3

    def test_the_same_seed_twice_is_the_same_network(self, float64: None) -> None:
        images, labels = random_set(NETWORK, 20)
        protocol = Protocol(epochs=3)
        augmentation = Augmentation(families=("crop", "flip"))
        one, other, third = train_networks(
            NETWORK, images.double().__getitem__, labels, protocol=protocol, augmentation=augmentation, seeds=[2, 2, 3]
        )
        assert relative_error(one, other) < 1e-13
        assert relative_error(one, third) > 0.1


class TestPredict:
    def test_is_the_argmax_of_the_logits_across_batches(self, small_digits: ImageDataset) -> None:
        images = small_digits.normalized("train")
        assert len(images) == 1078  # more than one batch of predictions
        theta = NETWORK.initial(generator("predict"))
        expected = module_of(NETWORK, theta)(images).argmax(dim=1)
        assert torch.equal(predict(NETWORK, theta, images.__getitem__, len(images)), expected)
        assert torch.equal(predict(NETWORK, theta, images.__getitem__, 3), expected[:3])


LABELS = arrays(np.int64, st.shared(st.integers(1, 40), key="count"), elements=st.integers(0, 6))


class TestMeasure:
    @settings(deadline=None, max_examples=200)
    @given(predicted=LABELS, labels=LABELS)
    @example(predicted=np.array([0, 0, 0]), labels=np.array([0, 1, 2]))  # classes never predicted
    @example(predicted=np.array([5, 1, 0]), labels=np.array([0, 1, 0]))  # a class predicted that does not occur
    @example(predicted=np.array([9]), labels=np.array([3]))
    def test_agrees_with_scikit_learn(self, predicted: np.ndarray, labels: np.ndarray) -> None:
        found = measure(torch.from_numpy(predicted), torch.from_numpy(labels), 10)
        assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options: dict[str, Any] = {"average": "macro", "zero_division": 0, "labels": np.unique(labels)}
            assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, **options))
            assert found.macro_recall == pytest.approx(recall_score(labels, predicted, **options))

    def test_the_confusion_is_scikit_learns(self) -> None:
        actual, predicted = torch.randint(5, (2, 60), generator=generator("confusion"))
        found = measure(predicted, actual, 5)
        assert np.array_equal(found.confusion, confusion_matrix(actual, predicted, labels=range(5)))

    def test_perfect_predictions(self) -> None:
        labels = torch.arange(200)
        found = measure(labels, labels, 200)
        assert (found.accuracy, found.macro_f1, found.macro_recall) == (1, 1, 1)


class TestEvaluate:
    def test_trains_on_the_set_and_tests_on_the_split_asked_for(self, small_digits: ImageDataset) -> None:
        rows = torch.cat([(small_digits.labels("train") == label).nonzero()[:5, 0] for label in range(10)])
        images, labels = small_digits.normalized("train", rows), default_order_labels(5, 10)
        options: dict[str, Any] = {
            "protocol": Protocol(epochs=60, drop_after_epochs=40),
            "augmentation": Augmentation(),
            "seed": 2,
        }
        theta = train_network(NETWORK, images.__getitem__, labels, **options)
        accuracies = {}
        for split in ("validation", "test"):
            found = evaluate(NETWORK, small_digits, split, images.__getitem__, labels, **options)
            predicted = module_of(NETWORK, theta)(small_digits.normalized(split)).argmax(dim=1)
            assert found == measure(predicted, small_digits.labels(split), 10)
            accuracies[split] = found.accuracy
        assert len(set(accuracies.values())) == 2
        assert min(accuracies.values()) > 0.5

    @pytest.mark.parametrize("together", [False, True])
    def test_several_networks_are_tested_each_as_alone(self, small_digits: ImageDataset, together: bool) -> None:
        rows = torch.cat([(small_digits.labels("train") == label).nonzero()[:2, 0] for label in range(10)])
        images, labels = small_digits.normalized("train", rows), default_order_labels(2, 10)
        options: dict[str, Any] = {"protocol": Protocol(epochs=6, drop_after_epochs=4), "augmentation": Augmentation()}
        said: list[int] = []
        found = evaluate_networks(
            NETWORK,
            small_digits,
            "test",
            images.__getitem__,
            labels,
            seeds=[7, 8],
            at_once=1 + together,
            progress=said.append,
            **options,
        )
        alone = [
            evaluate(NETWORK, small_digits, "test", images.__getitem__, labels, seed=seed, **options) for seed in (7, 8)
        ]
        # Side by side float32 rounds otherwise: an image on the edge may fall to the other class.
        assert [metrics.accuracy for metrics in found] == pytest.approx(
            [metrics.accuracy for metrics in alone], abs=0.01 if together else 0
        )
        assert found[0] != found[1]
        assert said == ([2, 4, 6, 8, 10, 12] if together else list(range(1, 13)))

    def test_on_a_cpu_they_are_trained_one_after_the_other_and_nothing_is_measured(self, tmp_path: Path) -> None:
        images = torch.zeros(10, 1, 8, 8)
        assert networks_at_once(
            NETWORK, images, torch.arange(10), protocol=Protocol.challenge(1),
            augmentation=Augmentation(), networks=5, folder=tmp_path,
        ) == 1  # fmt: skip
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("at_once", "groups"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (3, [[0, 1, 2]]), (16, [[0, 1, 2]])]
    )
    def test_seeds_are_grouped_in_order(self, at_once: int, groups: list[list[int]]) -> None:
        assert groups_of([0, 1, 2], at_once) == groups
