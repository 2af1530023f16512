"""Scores against SciPy and autograd, scoring runs against the evaluation's training, and their records' faults."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from tests.support.references import module_of, relative_error
from trainables.baselines.coresets.scores import FIGURES, Dynamics, features, gradient_norms, image_scores
from trainables.baselines.coresets.scoring_runs import record, recorded, scoring_epochs
from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset, Split
from trainables.data.image_keys import content_keys, named_keys
from trainables.errors import ConfigError, DatasetError
from trainables.evaluation.training import train_network
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

CPU = torch.device("cpu")
PROTOCOL = Protocol(epochs=3, drop_after_epochs=2, batch_size=64)
AUGMENTATION = Augmentation(families=("crop", "scale"), align_corners=False)


def with_rows(dataset: ImageDataset, rows: Any) -> ImageDataset:
    """The dataset with those training rows alone, in that order."""
    split = dataset.split("train")
    digest = f"{split.digest} {rows}"
    return replace(dataset, digest=digest, splits={"train": Split(split.images[rows], split.labels[rows], digest)})


@pytest.fixture(scope="module")
def few_digits(small_digits: ImageDataset) -> ImageDataset:
    """300 training images: more than one batch of predictions."""
    return with_rows(small_digits, np.arange(300))


@pytest.fixture(scope="module")
def theta(small_network: ConvNet) -> Tensor:
    return small_network.initial(generator("scores")) * 2


@pytest.fixture
def keep(small_network: ConvNet, few_digits: ImageDataset, tmp_path: Path) -> Callable[..., Dynamics]:
    """Ask for a recorded run; keyword arguments replace what it is of."""

    def asked(**changes: Any) -> Dynamics:
        options: dict[str, Any] = {
            "network": small_network,
            "dataset": few_digits,
            "protocol": PROTOCOL,
            "seed": 0,
            "device": CPU,
        }
        return recorded(tmp_path / "runs", **{**options, "augmentation": AUGMENTATION, **changes})

    return asked


def equal(one: Dynamics, other: Dynamics) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Dynamics))


class TestKeys:
    def test_are_of_the_image_and_not_of_its_row(self, few_digits: ImageDataset) -> None:
        order = np.random.default_rng(0).permutation(300)
        keys = content_keys(few_digits, "train")
        assert torch.equal(content_keys(with_rows(few_digits, order), "train"), keys[order])
        assert len(set(keys.tolist())) == 300
        assert keys.dtype == torch.int64 and keys.min() >= 0

    def test_duplicates_share_one_unless_their_labels_differ(self, few_digits: ImageDataset) -> None:
        images = few_digits.split("train").images[[5, 5, 5]]
        doubled = replace(few_digits, splits={"train": Split(images, np.array([1, 1, 2]), "")})
        one, same, other = content_keys(doubled, "train").tolist()
        assert one == same != other

    def test_names_order_independently(self, few_digits: ImageDataset) -> None:
        contents = content_keys(few_digits, "train")
        keys = [named_keys(contents, seed, "a") for seed in (0, 0, 1)] + [named_keys(contents, 0, "b")]
        assert torch.equal(keys[0], keys[1])
        ranks = torch.stack([of_name.argsort().argsort().double() for of_name in (contents, keys[0], *keys[2:])])
        off_diagonal = torch.corrcoef(ranks) - torch.eye(4)
        assert float(off_diagonal.abs().max()) < 5 / math.sqrt(300)  # five standard errors of rank correlation

    def test_do_not_change_between_versions(self) -> None:
        """Recorded coresets would: these are blake2b of eight bytes, computed by hand."""
        import hashlib

        from trainables.seeding import seed_of

        expected = int.from_bytes(
            hashlib.blake2b(seed_of(3, "x").to_bytes(8, "big") + (7).to_bytes(8, "big"), digest_size=8).digest(), "big"
        )
        assert named_keys(torch.tensor([7]), 3, "x").tolist() == [expected >> 1]


LOGITS = arrays(np.float32, (4, 5), elements=st.floats(-300, 300, width=32))
LABELS = arrays(np.int64, 4, elements=st.integers(0, 4))


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten()


class TestImageScores:
    @settings(deadline=None, max_examples=100)
    @given(LOGITS, LABELS, arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32)))
    def test_are_those_of_scipy_and_numpy(self, logits: np.ndarray, labels: np.ndarray, hidden: np.ndarray) -> None:
        scores = image_scores(*map(torch.from_numpy, (logits, hidden, labels)))
        p = softmax(logits.astype(np.float64), axis=1)
        el2n = np.linalg.norm(p - np.eye(5)[labels], axis=1)
        ordered = np.sort(p, axis=1)
        expected = {
            "true_probability": p[range(4), labels],
            "el2n": el2n,
            "grand": el2n * np.sqrt(1 + (hidden.astype(np.float64) ** 2).sum(axis=1)),
            "confidence": ordered[:, -1],
            "entropy": entropy(p, axis=1),
            "margin": ordered[:, -1] - ordered[:, -2],
        }
        assert set(scores) == {*expected, "correct"} == set(FIGURES)
        for name, values in expected.items():
            assert scores[name].dtype == torch.float32
            np.testing.assert_allclose(scores[name].numpy(), values, rtol=1e-5, atol=1e-12, err_msg=name)
        assert scores["correct"].tolist() == (logits.argmax(axis=1) == labels).tolist()

    @settings(deadline=None, max_examples=50)
    @given(LOGITS, LABELS)
    def test_stay_in_their_ranges(self, logits: np.ndarray, labels: np.ndarray) -> None:
        scores = image_scores(torch.from_numpy(logits), torch.ones(4, 1), torch.from_numpy(labels))
        highest = {"el2n": math.sqrt(2), "grand": 2, "entropy": math.log(5)}
        for name in FIGURES[:-1]:
            assert scores[name].min() >= 0 and scores[name].max() <= highest.get(name, 1) * (1 + 1e-6), name
        assert scores["confidence"].min() >= 1 / 5 - 1e-6

    def test_tell_well_learned_images_apart(self) -> None:
        """In float32 both true classes have p = 1, and one distance from the label: 0."""
        logits = torch.tensor([[40.0, 0.0], [42.0, 0.0]])
        first, second = image_scores(logits, torch.zeros(2, 1), torch.tensor([0, 0]))["el2n"].tolist()
        assert first == pytest.approx(math.sqrt(2) * math.exp(-40), rel=0.05)
        assert 0 < second < first

    def test_grand_is_the_last_layers_gradient(
        self, small_network: ConvNet, few_digits: ImageDataset, theta: Tensor
    ) -> None:
        images, labels = few_digits.normalized("train", range(6)), few_digits.labels("train", range(6))
        hidden = small_network.features(theta, images)
        scores = image_scores(small_network.logits(theta, images), hidden, labels)["grand"]
        for image, label, score in zip(images, labels, scores, strict=True):
            module = module_of(small_network, theta.double())
            F.cross_entropy(module(image[None].double()), label[None]).backward()
            last = torch.cat([gradient_of(parameter) for parameter in module[-1].parameters()])
            assert float(score) == pytest.approx(float(last.norm()), rel=1e-4)


class TestGradientNorms:
    def test_are_those_of_each_images_own_backward_pass(
        self, small_network: ConvNet, few_digits: ImageDataset, theta: Tensor
    ) -> None:
        rows = torch.arange(50, 85)  # two pieces of 16 and a rest
        norms = gradient_norms(small_network, theta, few_digits, rows)
        images, labels = few_digits.normalized("train", rows).double(), few_digits.labels("train", rows)
        expected = []
        for image, label in zip(images, labels, strict=True):
            module = module_of(small_network, theta.double())
            F.cross_entropy(module(image[None]), label[None]).backward()
            expected.append(torch.cat([gradient_of(parameter) for parameter in module.parameters()]).norm())
        assert norms.shape == (35,)
        assert relative_error(norms, torch.stack(expected)) < 1e-5

    def test_exceed_the_last_layers(self, small_network: ConvNet, few_digits: ImageDataset, theta: Tensor) -> None:
        rows = torch.arange(20)
        images, labels = few_digits.normalized("train", rows), few_digits.labels("train", rows)
        logits, hidden = small_network.logits(theta, images), small_network.features(theta, images)
        last = image_scores(logits, hidden, labels)["grand"]
        assert (gradient_norms(small_network, theta, few_digits, rows) > last).all()


def test_features_are_what_the_last_layer_reads(
    small_network: ConvNet, few_digits: ImageDataset, theta: Tensor
) -> None:
    rows = torch.arange(299, -1, -1)
    hidden = features(small_network, theta, few_digits, rows)
    module = module_of(small_network, theta)
    with torch.no_grad():
        assert relative_error(hidden, module[:-1](few_digits.normalized("train", rows))) < 1e-5
    assert hidden.shape == (300, small_network.layout[-2][1][1])


class TestRecord:
    @pytest.fixture(scope="class")
    def run(self, small_network: ConvNet, few_digits: ImageDataset) -> Dynamics:
        return record(small_network, few_digits, protocol=PROTOCOL, augmentation=AUGMENTATION, seed=2, device=CPU)

    def test_scores_the_evaluations_training_after_each_epoch_on_clean_images(
        self, run: Dynamics, small_network: ConvNet, few_digits: ImageDataset
    ) -> None:
        order = content_keys(few_digits, "train").argsort()
        images, labels = few_digits.normalized("train", order), few_digits.labels("train", order)
        for epoch in range(PROTOCOL.epochs):
            theta = train_network(
                small_network,
                images.__getitem__,
                labels,
                protocol=replace(PROTOCOL, epochs=epoch + 1),
                augmentation=AUGMENTATION,
                seed=2,
            )
            logits, hidden = small_network.logits(theta, images), small_network.features(theta, images)
            for name, values in image_scores(logits, hidden, labels).items():
                found = getattr(run, name)[epoch, order].double()
                assert torch.allclose(found, values.double(), rtol=1e-4, atol=1e-6), (name, epoch)
        assert torch.equal(run.theta, theta)

    def test_shapes_and_dtypes(self, run: Dynamics, small_network: ConvNet) -> None:
        assert run.epochs == 3
        assert run.theta.shape == (small_network.parameters,)
        for name in FIGURES:
            dtype = torch.bool if name == "correct" else torch.float32
            assert (getattr(run, name).shape, getattr(run, name).dtype) == ((3, 300), dtype)

    def test_the_order_of_the_rows_changes_no_bit(
        self, run: Dynamics, small_network: ConvNet, few_digits: ImageDataset
    ) -> None:
        order = np.random.default_rng(1).permutation(300)
        shuffled = with_rows(few_digits, order)
        other = record(small_network, shuffled, protocol=PROTOCOL, augmentation=AUGMENTATION, seed=2, device=CPU)
        assert torch.equal(other.theta, run.theta)
        for name in FIGURES:
            assert torch.equal(getattr(other, name), getattr(run, name)[:, order]), name

    def test_the_seed_decides(self, run: Dynamics, small_network: ConvNet, few_digits: ImageDataset) -> None:
        same, other = (
            record(small_network, few_digits, protocol=PROTOCOL, augmentation=AUGMENTATION, seed=seed, device=CPU)
            for seed in (2, 3)
        )
        assert equal(same, run)
        assert not torch.equal(other.el2n, run.el2n)

    def test_the_first_epochs_are_those_of_a_longer_recipe(
        self, small_network: ConvNet, few_digits: ImageDataset
    ) -> None:
        long = Protocol.regime("hard", epochs=8)
        short = replace(Protocol.regime("hard"), epochs=3)
        one, other = (
            record(small_network, few_digits, protocol=protocol, augmentation=AUGMENTATION, seed=0, device=CPU)
            for protocol in (long, short)
        )
        assert torch.equal(one.grand[:3], other.grand)

    def test_the_last_epoch_alone_is_the_last_of_all(
        self, run: Dynamics, small_network: ConvNet, few_digits: ImageDataset
    ) -> None:
        options: dict[str, Any] = {"protocol": PROTOCOL, "augmentation": AUGMENTATION, "seed": 2, "device": CPU}
        last = record(small_network, few_digits, **options, every_epoch=False)
        assert last.epochs == 1
        assert all(torch.equal(getattr(last, name)[0], getattr(run, name)[-1]) for name in FIGURES)
        assert torch.equal(last.theta, run.theta)

    def test_a_training_that_diverges_is_refused(self, small_network: ConvNet, few_digits: ImageDataset) -> None:
        with pytest.raises(ConfigError, match=r"diverged in epoch \d at a learning rate of 1e\+30: lower it"):
            record(
                small_network,
                few_digits,
                protocol=replace(PROTOCOL, learning_rate=1e30),
                augmentation=AUGMENTATION,
                seed=0,
                device=CPU,
            )


class TestRecorded:
    def test_the_second_call_reads_and_trains_nothing(
        self, keep: Callable[..., Dynamics], few_digits: ImageDataset, tmp_path: Path
    ) -> None:
        first = keep()
        (path,) = (tmp_path / "runs").iterdir()
        before = path.stat()
        split = few_digits.split("train")
        unreadable = replace(
            few_digits, splits={"train": Split(split.images[:0], split.labels[:0], split.digest)}
        )  # no image left to train on
        assert equal(keep(dataset=unreadable), first)
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)

    def test_everything_that_shapes_a_run_has_a_record_of_its_own(
        self, keep: Callable[..., Dynamics], few_digits: ImageDataset, small_network: ConvNet, tmp_path: Path
    ) -> None:
        changes: list[dict[str, Any]] = [
            {},
            {"seed": 1},
            {"every_epoch": False},
            {"network": replace(small_network, width=4)},
            {"protocol": replace(PROTOCOL, learning_rate=0.02)},
            {"augmentation": replace(AUGMENTATION, align_corners=True)},
            {"dataset": replace(few_digits, digest="other normalisation")},
            {"dataset": with_rows(few_digits, np.arange(299))},
        ]
        for number, change in enumerate(changes, start=1):
            keep(**change)
            assert len(list((tmp_path / "runs").iterdir())) == number

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: b"\x00" * 100,
            lambda content: content[:-5],
            lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
            lambda content: content.replace(b'"sha256"', b'"sha255"'),
            lambda content: content.replace(b'format_version\\": 1', b'format_version\\": 7'),
            lambda content: content.replace(b'"margin"', b'"morgin"'),
        ],
    )
    def test_a_damaged_record_is_refused_in_one_line(
        self, keep: Callable[..., Dynamics], tmp_path: Path, damage: Callable[..., Any]
    ) -> None:
        keep()
        (path,) = (tmp_path / "runs").iterdir()
        content = path.read_bytes()
        assert damage(content) != content
        path.write_bytes(damage(content))
        with pytest.raises(DatasetError, match=rf"{path.name} .*: delete it, it is made again") as refused:
            keep()
        assert "\n" not in str(refused.value)

    def test_the_record_of_another_run_is_refused(self, keep: Callable[..., Dynamics], tmp_path: Path) -> None:
        keep()
        (path,) = (tmp_path / "runs").iterdir()
        keep(seed=1)
        (other,) = set((tmp_path / "runs").iterdir()) - {path}
        other.replace(path)
        with pytest.raises(DatasetError, match="holds another scoring-run than its name says: delete it"):
            keep()

    def test_two_at_once_both_get_it_and_leave_one_file(self, keep: Callable[..., Dynamics], tmp_path: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(lambda _: keep(), range(2))
        assert equal(one, other) and equal(one, keep())
        assert [path.suffix for path in (tmp_path / "runs").iterdir()] == [".safetensors"]


class TestScoringEpochs:
    @pytest.mark.parametrize(
        ("ipc", "classes", "images", "expected"),
        [(10, 100, 50_000, 6), (50, 100, 50_000, 30), (10, 200, 100_000, 6), (50, 200, 100_000, 30)],
    )
    def test_are_those_of_the_papers_budget(self, ipc: int, classes: int, images: int, expected: int) -> None:
        assert scoring_epochs(ipc, classes, images, window=2) == expected

    def test_leave_each_standard_deviation_two_epochs(self) -> None:
        assert [scoring_epochs(1, 10, 50_000, window) for window in (1, 2, 5)] == [3, 4, 7]
