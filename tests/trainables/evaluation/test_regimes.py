"""The label regimes against plain PyTorch loops, closed forms and SciPy. docs/method.md, "Label regimes"."""

import dataclasses
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.references import module_of, relative_error, vector_of
from trainables.config.protocol import REGIMES, Protocol
from trainables.data.augmentation import FAMILIES, Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.errors import ConfigError
from trainables.evaluation.regimes import (
    CutMix,
    Teacher,
    ViewLabels,
    divergence,
    full_data_epochs,
    stored_labels,
    targets,
    training_loss,
)
from trainables.evaluation.training import Step, evaluate, predict_logits, train_network, train_networks, training_steps
from trainables.experts.store import Trajectories
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=1, width=6)
OTHER = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=5)
DSA = Augmentation(families=tuple(FAMILIES), align_corners=False)


@pytest.fixture
def float64() -> Iterator[None]:
    """Training in float64, where two ways to the same figures part by rounding alone."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_set(images: int = 20) -> tuple[Tensor, Tensor]:
    pixels = torch.randn(images, 1, 8, 8, generator=generator("regimes", images))
    return pixels, torch.arange(images) % 10


def random_teacher(dtype: torch.dtype = torch.float64) -> Teacher:
    """A teacher of another network, whose labels are far from uniform at T = 20."""
    return Teacher(OTHER, 20 * OTHER.initial(generator("teacher")).to(dtype))


def mixed_pixel_by_pixel(images: Tensor, box: CutMix) -> Tensor:
    """CutMix once more: inside the box an image has its partner's pixels, outside its own."""
    mixed = images.clone()
    for image, row, column in product(range(len(images)), range(8), range(8)):
        if box.rows.start <= row < box.rows.stop and box.columns.start <= column < box.columns.stop:
            mixed[image, :, row, column] = images[box.partners[image], :, row, column]
    return mixed


def reference(
    regime: str,
    images: Tensor,
    labels: Tensor,
    teacher: Teacher,
    *,
    epochs: int,
    batch_size: int,
    augmentation: Augmentation = DSA,
    seed: int = 0,
    restart: bool = False,
) -> Tensor:
    """The training of docs/method.md, "Label regimes", with torch.optim, its schedulers and F.kl_div, in float64."""
    module = module_of(NETWORK, NETWORK.initial(generator(seed, "evaluation", "initial")).double())
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    if regime == "hard":
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-2, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, round(epochs * 151 / 300), gamma=0.1)
    else:
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    of_teacher = module_of(OTHER, teacher.theta)
    draws = generator(seed, "evaluation", "batches")
    for epoch in range(epochs):
        for index in torch.randperm(len(labels), generator=draws).split(batch_size):
            view = augmentation.apply(images[index], augmentation.draw(len(index), 8, draws))
            if regime == "hard":
                loss = F.cross_entropy(module(view), labels[index])
            else:
                if regime == "soft_kd":
                    view = mixed_pixel_by_pixel(view, CutMix.draw(len(index), 8, draws))
                with torch.no_grad():
                    shares = F.softmax(of_teacher(view if regime == "soft_kd" else images[index]) / 20, dim=1)
                loss = F.kl_div(F.log_softmax(module(view) / 20, dim=1), shares, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if restart and epoch + 1 == round(epochs * 151 / 300):
            optimizer.state.clear()
    return vector_of(module)


def distance(theta: Tensor, expected: Tensor, seed: int = 0) -> float:
    """How far apart two trained networks are, relative to the way from their common start."""
    start = NETWORK.initial(generator(seed, "evaluation", "initial")).double()
    return relative_error(theta - start, expected - start)


class TestTheRecipes:
    def test_hard_is_sgd_with_one_drop_that_keeps_the_momentum(self) -> None:
        assert dataclasses.asdict(Protocol.regime("hard")) == {
            "epochs": 300, "learning_rate": 0.01, "drop_after_epochs": 151, "drop_factor": 0.1, "momentum": 0.9,
            "weight_decay": 5e-4, "batch_size": 256, "optimizer": "sgd", "schedule": "drop",
            "restart_momentum": False, "temperature": None, "cutmix": False,
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["soft", "soft_kd"])
    def test_the_soft_ones_are_adamw_with_a_cosine_at_temperature_20(self, name: str) -> None:
        found = dataclasses.asdict(Protocol.regime(name))
        expected = {
            "epochs": 300, "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 0.01, "batch_size": 256,
            "optimizer": "adamw", "schedule": "cosine", "temperature": 20.0, "cutmix": name == "soft_kd",
        }  # fmt: skip
        assert {field: found[field] for field in expected} == expected

    @pytest.mark.parametrize(("epochs", "drop"), [(300, 151), (6, 3), (30, 15), (60, 30), (1, 1)])
    def test_a_shorter_hard_one_drops_at_the_same_share(self, epochs: int, drop: int) -> None:
        assert Protocol.regime("hard", epochs=epochs) == dataclasses.replace(
            Protocol.regime("hard"), epochs=epochs, drop_after_epochs=drop
        )

    def test_epochs_and_temperature_are_the_callers(self) -> None:
        found = Protocol.regime("soft", epochs=7, temperature=4.0)
        assert (found.epochs, found.temperature) == (7, 4.0)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"optimizer": "adam"}, "optimizer is one of sgd, adamw, not adam"),
            ({"schedule": "linear"}, "schedule is one of drop, cosine, not linear"),
            ({"temperature": 0.0}, "temperature must be larger than 0 and finite, not 0.0"),
            ({"temperature": math.nan}, "temperature must be larger than 0 and finite, not nan"),
            ({"temperature": math.inf}, "temperature must be larger than 0 and finite, not inf"),
            ({"cutmix": True}, "cutmix must be False where labels are hard, not True: .*; set it to False or set a"),
            *(
                (
                    {"schedule": "cosine", field: value},
                    f"{field} has no effect where schedule is cosine.*not be {value}",
                )
                for field, value in (("drop_after_epochs", 9), ("drop_factor", 0.5), ("restart_momentum", False))
            ),
        ],
    )
    def test_what_cannot_work_or_has_no_effect_is_refused_in_one_line(
        self, changed: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            Protocol(**changed)
        assert len(str(caught.value).splitlines()) == 1

    def test_an_unknown_regime_is_answered_with_the_known_ones(self) -> None:
        for ask in (Protocol.regime, lambda name: targets(name, *random_set(), random_teacher())):
            with pytest.raises(ConfigError, match="one of hard, soft, soft_kd, not softer"):
                ask("softer")


class TestTraining:
    @pytest.mark.parametrize("regime", REGIMES)
    @pytest.mark.parametrize("batch_size", [7, 256])
    def test_is_that_of_a_plain_loop(self, float64: None, regime: str, batch_size: int) -> None:
        images, labels = random_set()
        teacher = random_teacher()
        protocol = dataclasses.replace(Protocol.regime(regime, epochs=12), batch_size=batch_size)
        theta = train_network(
            NETWORK, images.__getitem__, targets(regime, images, labels, teacher),
            protocol=protocol, augmentation=DSA, seed=4,
        )  # fmt: skip
        expected = reference(regime, images, labels, teacher, epochs=12, batch_size=batch_size, seed=4)
        assert distance(theta, expected, seed=4) < 1e-8

    def test_the_hard_regimes_momentum_outlives_the_drop(self, float64: None) -> None:
        images, labels = random_set()
        options: dict[str, Any] = {"epochs": 12, "batch_size": 7}
        theta = train_network(
            NETWORK, images.__getitem__, labels,
            protocol=dataclasses.replace(Protocol.regime("hard", epochs=12), batch_size=7), augmentation=DSA, seed=0,
        )  # fmt: skip
        assert distance(theta, reference("hard", images, labels, random_teacher(), **options)) < 1e-8
        assert distance(theta, reference("hard", images, labels, random_teacher(), restart=True, **options)) > 1e-4

    @pytest.mark.parametrize("regime", REGIMES)
    def test_networks_side_by_side_come_out_as_alone(self, float64: None, regime: str) -> None:
        images, labels = random_set()
        protocol = dataclasses.replace(Protocol.regime(regime, epochs=12), batch_size=7)
        own = targets(regime, images, labels, random_teacher())
        seeds = (3, 1, 4)
        options: dict[str, Any] = {"protocol": protocol, "augmentation": DSA}
        together = train_networks(NETWORK, images.__getitem__, own, seeds=seeds, **options)
        for theta, seed in zip(together, seeds, strict=True):
            alone = train_network(NETWORK, images.__getitem__, own, seed=seed, **options)
            assert distance(theta, alone, seed=seed) < 1e-8
        assert relative_error(together[0], together[1]) > 0.1

    @pytest.mark.parametrize("regime", REGIMES)
    def test_the_seed_decides_every_bit(self, regime: str) -> None:
        images, labels = random_set()
        teacher = random_teacher(torch.float32)

        def trained(seed: int) -> Tensor:
            own = targets(regime, images, labels, teacher)
            protocol = dataclasses.replace(Protocol.regime(regime, epochs=3), batch_size=7)
            return train_network(
                NETWORK, images.__getitem__, own, protocol=protocol, augmentation=DSA, seed=seed
            )  # fmt: skip

        one, again, other = trained(0), trained(0), trained(1)
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
        assert not one.requires_grad

    @pytest.mark.parametrize("regime", REGIMES)
    def test_evaluate_takes_every_regimes_labels(
        self, regime: str, small_digits: ImageDataset, small_network: ConvNet, trajectories: Trajectories
    ) -> None:
        rows = torch.cat([(small_digits.labels("train") == label).nonzero()[:5, 0] for label in range(10)])
        images, labels = small_digits.normalized("train", rows), default_order_labels(5, 10)
        teacher = Teacher(small_network, trajectories.snapshot(0, 6))
        found = evaluate(
            NETWORK, small_digits, "validation", images.__getitem__, targets(regime, images, labels, teacher),
            protocol=Protocol.regime(regime, epochs=120), augmentation=Augmentation(), seed=0,
        )  # fmt: skip
        assert found.accuracy > 0.4  # chance is .1


class TestViews:
    """soft_kd: what the teacher labels is what the student is shown."""

    def first_step(self, seeds: Sequence[int]) -> tuple[Tensor, Teacher, Step, list[Tensor]]:
        images, labels = random_set(12)
        teacher, seen = random_teacher(), []

        def recorded(views: Tensor) -> Tensor:
            seen.append(views.clone())
            return teacher(views)

        protocol = Protocol(epochs=1, temperature=20.0, cutmix=True, weight_decay=0.0)
        steps = training_steps(
            NETWORK, images.__getitem__, ViewLabels(recorded, 12, labels.device),
            protocol=protocol, augmentation=DSA, seeds=seeds,
        )  # fmt: skip
        return images, teacher, next(steps), seen

    @pytest.mark.parametrize("seeds", [[3], [3, 5]])
    def test_the_students_target_is_the_teachers_label_of_its_view(self, float64: None, seeds: list[int]) -> None:
        _, teacher, step, (views,) = self.first_step(seeds)
        for number, view in enumerate(views.split(12)):
            leaf = NETWORK.initial(generator(seeds[number], "evaluation", "initial")).requires_grad_()
            student = F.log_softmax(NETWORK.logits(leaf, view) / 20, dim=1)
            loss = F.kl_div(student, F.softmax(teacher(view) / 20, dim=1), reduction="batchmean")
            (expected,) = torch.autograd.grad(loss, leaf)
            assert relative_error(step.velocity[number], expected) < 1e-10  # the first step's is the gradient

    def test_the_view_is_augmented_first_and_then_mixed(self, float64: None) -> None:
        images, _, _, (views,) = self.first_step([3])
        draws = generator(3, "evaluation", "batches")
        order = torch.randperm(12, generator=draws)
        augmented = DSA.apply(images[order], DSA.draw(12, 8, draws))
        box = CutMix.draw(12, 8, draws)
        assert torch.equal(views, mixed_pixel_by_pixel(augmented, box))
        assert not torch.equal(views, augmented)

    def test_a_teacher_may_label_views_that_are_not_mixed(self, float64: None) -> None:
        images, labels = random_set()
        own = targets("soft_kd", images, labels, random_teacher())
        protocol = dataclasses.replace(Protocol.regime("soft_kd", epochs=2), cutmix=False)
        options: dict[str, Any] = {"protocol": protocol, "augmentation": Augmentation(), "seed": 0}
        plain = train_network(NETWORK, images.__getitem__, own, **options)
        # Without any augmentation a view is the image, and its label the stored one.
        stored = train_network(
            NETWORK, images.__getitem__, targets("soft", images, labels, random_teacher()), **options
        )
        assert relative_error(plain, stored) < 1e-12

    def test_nothing_is_differentiated_through_the_teacher(self) -> None:
        teacher = Teacher(NETWORK, NETWORK.initial(generator("teacher")).requires_grad_())
        assert not teacher(random_set()[0].requires_grad_()).requires_grad


LOGITS = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


class TestDivergence:
    def test_two_classes_in_closed_form(self) -> None:
        a, b, temperature = 1.5, -2.0, 3.0
        p, q = (1 / (1 + math.exp(-x / temperature)) for x in (a, b))
        expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        one, other = (torch.tensor([[x, 0.0]], dtype=torch.float64) for x in (b, a))
        assert float(divergence(one, other, temperature)) == pytest.approx(expected, rel=1e-12)

    @settings(deadline=None, max_examples=100)
    @given(rows=st.lists(st.tuples(LOGITS, LOGITS), min_size=1, max_size=5), temperature=st.sampled_from([1, 4, 20]))
    def test_is_the_mean_of_scipys_relative_entropies(
        self, rows: list[tuple[list[float], list[float]]], temperature: int
    ) -> None:
        student, teacher = (torch.tensor(part, dtype=torch.float64) for part in zip(*rows, strict=True))
        p, q = ((logits / temperature).softmax(dim=1).numpy() for logits in (teacher, student))
        expected = scipy.stats.entropy(p, q, axis=1).mean()
        assert float(divergence(student, teacher, temperature)) == pytest.approx(expected, rel=1e-9, abs=1e-12)

    @pytest.mark.parametrize("temperature", [1.0, 20.0])
    def test_its_gradient_has_the_closed_form_without_a_factor(self, temperature: float) -> None:
        student, teacher = torch.randn(2, 6, 10, dtype=torch.float64, generator=generator("divergence"))
        student.requires_grad_()
        (found,) = torch.autograd.grad(divergence(student, teacher, temperature), student)
        expected = ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / (temperature * 6)
        assert torch.allclose(found, expected.detach(), rtol=1e-10, atol=1e-15)

    def test_sharp_labels_at_temperature_1_are_hard_ones(self) -> None:
        student = torch.randn(6, 10, dtype=torch.float64, generator=generator("sharp")).requires_grad_()
        labels = torch.arange(6)
        (hard,) = torch.autograd.grad(training_loss(student, labels, None), student)
        errors = []
        for height in (2.0, 8.0, 32.0):
            soft = training_loss(student, height * F.one_hot(labels, 10).double(), 1.0)
            errors.append(relative_error(torch.autograd.grad(soft, student)[0], hard))
        # The teacher is short of certainty by 9/(e^height + 9).
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 0.1
        assert errors[-1] < 1e-12


class TestCutMix:
    @pytest.mark.parametrize("side", [7, 8])
    def test_the_box_has_the_distribution_of_the_formula(self, side: int) -> None:
        """√(1 − λ) of a uniform λ lies below c/side with probability (c/side)²; the centre is anywhere."""
        expected: dict[tuple[int, ...], float] = defaultdict(float)
        for cut, row, column in product(range(side), range(side), range(side)):
            borders = [(max(0, at - cut // 2), min(side, at + cut // 2)) for at in (row, column)]
            expected[(*borders[0], *borders[1])] += ((cut + 1) ** 2 - cut**2) / side**4
        draws, count = generator("cutmix", side), 10_000
        drawn = [CutMix.draw(1, side, draws) for _ in range(count)]
        boxes = [(box.rows.start, box.rows.stop, box.columns.start, box.columns.stop) for box in drawn]
        found: Counter[tuple[int, ...]] = Counter(boxes)
        assert set(found) <= set(expected)
        counts, shares = [found[box] for box in expected], [count * share for share in expected.values()]
        assert min(shares) > 5
        assert scipy.stats.chisquare(counts, shares).pvalue > 0.01

    @settings(deadline=None, max_examples=50)
    @given(seed=st.integers(0, 2**32), batch=st.integers(1, 9))
    def test_pixels_are_the_partners_inside_the_box_and_the_own_outside(self, seed: int, batch: int) -> None:
        box = CutMix.draw(batch, 8, generator(seed))
        images = torch.randn(batch, 2, 8, 8, generator=generator("pixels"))
        before = images.clone()
        assert torch.equal(box.apply(images), mixed_pixel_by_pixel(images, box))
        assert torch.equal(images, before)
        assert sorted(box.partners.tolist()) == list(range(batch))


class TestTargets:
    def test_hard_labels_are_left_as_they_are(self) -> None:
        images, labels = random_set()
        for teacher in (None, random_teacher()):
            found = targets("hard", images, labels, teacher)
            assert found is labels

    def test_stored_labels_are_the_teachers_logits_of_the_images_in_batches(self) -> None:
        images, labels = random_set(600)
        teacher, sizes = random_teacher(torch.float32), []

        def recorded(batch: Tensor) -> Tensor:
            sizes.append(len(batch))
            return teacher(batch)

        found = targets("soft", images, labels, recorded)
        assert isinstance(found, Tensor)
        assert sizes == [256, 256, 88]
        assert torch.equal(found, stored_labels(teacher, images))
        assert torch.equal(found, predict_logits(OTHER, teacher.theta, images.__getitem__, 600))
        expected = module_of(OTHER, teacher.theta.double())(images.double())
        assert relative_error(found, expected.detach()) < 1e-5

    def test_the_view_labels_have_the_sets_size(self) -> None:
        images, labels = random_set()
        found = targets("soft_kd", images, labels, random_teacher())
        assert (len(found), found.device) == (20, labels.device)

    @pytest.mark.parametrize("regime", ["soft", "soft_kd"])
    def test_without_a_teacher_there_are_no_soft_labels(self, regime: str) -> None:
        with pytest.raises(ConfigError, match=f"{regime} needs a teacher, not None; give one, or take regime hard"):
            targets(regime, *random_set(), None)

    @pytest.mark.parametrize("regime", REGIMES)
    def test_every_image_has_one(self, regime: str) -> None:
        images, labels = random_set()
        with pytest.raises(ConfigError, match="one label an image, not 19 for 20"):
            targets(regime, images, labels[1:], random_teacher())

    @pytest.mark.parametrize(
        ("trained", "labelled", "message"),
        [
            ("hard", "soft", "where the protocol has no temperature, not torch.float32 [20, 10]; set a temperature"),
            ("hard", "soft_kd", "where the protocol has no temperature, not a teacher's; set a temperature"),
            (
                "soft",
                "hard",
                "float [n, 10], where the protocol has a temperature, not torch.int64 [20]; set temperature",
            ),
            ("soft_kd", "soft", "of each view where the protocol mixes images, not torch.float32 [20, 10]; give ViewL"),
            ("soft_kd", "hard", "of each view where the protocol mixes images, not torch.int64 [20]; give ViewLabels"),
        ],
    )
    def test_a_protocol_refuses_another_regimes_labels(self, trained: str, labelled: str, message: str) -> None:
        images, labels = random_set()
        own = targets(labelled, images, labels, random_teacher(torch.float32))
        with pytest.raises(ConfigError, match=re.escape(message)) as caught:
            train_network(
                NETWORK, images.__getitem__, own,
                protocol=Protocol.regime(trained), augmentation=Augmentation(), seed=0,
            )  # fmt: skip
        assert len(str(caught.value).splitlines()) == 1

    def test_logits_of_other_classes_are_refused(self) -> None:
        images, _ = random_set()
        with pytest.raises(ConfigError, match=re.escape("float [n, 10], where the protocol has a temperature, not ")):
            train_network(
                NETWORK, images.__getitem__, torch.zeros(20, 9),
                protocol=Protocol.regime("soft"), augmentation=Augmentation(), seed=0,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("ipc", "classes", "training_images", "epochs"),
    [(10, 100, 50_000, 6), (50, 100, 50_000, 30), (10, 200, 100_000, 6), (50, 200, 100_000, 30)],
)
def test_the_compute_budgets_of_the_papers_sets(ipc: int, classes: int, training_images: int, epochs: int) -> None:
    assert full_data_epochs(300, ipc * classes, training_images) == epochs
