"""What is refused of somebody's tensor, and what must not be: noise, averages and distilled images are no mistakes."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.config.protocol import Protocol
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset
from trainables.data.labels import default_order_labels
from trainables.data.real_images import real_images
from trainables.errors import SyntheticSetError
from trainables.evaluation.submission import Recognition, check_normalisation, check_order, order_of, recognise
from trainables.evaluation.training import train_network
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

CPU = torch.device("cpu")
NETWORK = ConvNet(channels=1, image_size=8, classes=10, depth=2, width=16)
PERMUTATION = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # 1 and 8 stay where they are


def noise(shape: Sequence[int], name: str) -> Tensor:
    return torch.randn(shape, generator=generator("submission", name))


def interleaved(images: Tensor, classes: int = 10) -> Tensor:
    """Blocks of classes into rounds of one image a class."""
    return images.view(classes, -1, *images.shape[1:]).transpose(0, 1).flatten(0, 1)


def permuted(images: Tensor) -> Tensor:
    return images.view(10, -1, *images.shape[1:])[PERMUTATION].flatten(0, 1)


def distilled(dataset: ImageDataset, images: Tensor, rounds: int) -> Tensor:
    """Images that were moved, far, until training on them matches training on real ones: MTT in its plainest form."""
    images, labels = images.clone(), default_order_labels(len(images) // 10, 10)
    real = dataset.labels("train")
    protocol = Protocol(epochs=2, drop_after_epochs=2, batch_size=128, learning_rate=0.02)
    for seed in range(4):
        start = NETWORK.initial(generator(seed, "evaluation", "initial"))
        target = train_network(
            NETWORK, lambda index: dataset.normalized("train", index), real,
            protocol=protocol, augmentation=Augmentation(), seed=seed,
        )  # fmt: skip
        for _ in range(rounds):
            images.requires_grad_()
            theta = start.clone().requires_grad_()
            for _ in range(10):
                loss = F.cross_entropy(NETWORK.logits(theta, images), labels)
                theta = theta - 0.05 * torch.autograd.grad(loss, theta, create_graph=True)[0]
            matching = (theta - target).square().sum() / (start - target).square().sum()
            (gradient,) = torch.autograd.grad(matching, images)
            images = images.detach() - 2 * gradient / gradient.square().mean().sqrt() / 10
    return images


@pytest.fixture(scope="module")
def sets(small_digits: ImageDataset) -> dict[str, Tensor]:
    """Sets in default order, by name, 5 images a class."""
    real = real_images(small_digits, 5, 3)
    everything, labels = small_digits.normalized("train"), small_digits.labels("train")
    means = torch.stack([everything[labels == label].mean(dim=0) for label in range(10)])
    return {
        "real": real,
        "noisy": real + noise(real.shape, "noisy"),
        "high contrast": 3 * real,
        "averages": means.repeat_interleave(5, dim=0),
        "distilled from real": distilled(small_digits, real, 4),
        "distilled from noise": distilled(small_digits, noise(real.shape, "start"), 12),
        "noise": noise(real.shape, "pure"),
        "faint noise": 0.1 * noise(real.shape, "faint"),
    }


MEANT = ("real", "noisy", "high contrast", "averages", "distilled from real", "distilled from noise")
NOISE = ("noise", "faint noise")


@pytest.fixture(scope="module")
def recognised(sets: dict[str, Tensor], small_digits: ImageDataset) -> dict[str, Recognition]:
    """What the reference sees in each set, in default order."""
    whole = recognise(torch.cat(list(sets.values())), small_digits, CPU)
    parts = whole.logits.split([len(images) for images in sets.values()])
    return {name: Recognition(logits=logits, accuracy=whole.accuracy) for name, logits in zip(sets, parts, strict=True)}


def in_other_order(recognition: Recognition, reorder: Callable[[Tensor], Tensor]) -> Recognition:
    return Recognition(logits=reorder(recognition.logits), accuracy=recognition.accuracy)


class TestNormalisation:
    @pytest.mark.parametrize("name", MEANT)
    def test_normalised_sets_pass(self, sets: dict[str, Tensor], small_digits: ImageDataset, name: str) -> None:
        assert check_normalisation(sets[name], small_digits) is None

    def test_noise_passes_and_too_little_or_too_much_contrast_is_noted(
        self, sets: dict[str, Tensor], small_digits: ImageDataset
    ) -> None:
        assert check_normalisation(sets["noise"], small_digits) is None
        assert "standard deviation is 0.099, where" in str(check_normalisation(sets["faint noise"], small_digits))
        assert "standard deviation is 9," in str(check_normalisation(9 * sets["real"], small_digits))

    @pytest.mark.parametrize("scale", [1, 16, 255])
    @pytest.mark.parametrize("name", ["real", "noisy", "averages", "distilled from real"])
    def test_raw_sets_are_refused(
        self, sets: dict[str, Tensor], small_digits: ImageDataset, name: str, scale: int
    ) -> None:
        """Also where noise or distillation led some values below 0 and above 1."""
        raw = scale * (sets[name] * small_digits.std[0] + small_digits.mean[0])
        remedy = f"subtract mean {small_digits.mean[0]:.4g} and divide by std {small_digits.std[0]:.4g}"
        with pytest.raises(
            SyntheticSetError, match=rf"unnormalised, as pixels in \[0, {scale}\] .*{re.escape(remedy)}"
        ):
            check_normalisation(raw, small_digits)

    def test_a_scale_that_is_not_known_is_refused_too(
        self, sets: dict[str, Tensor], small_digits: ImageDataset
    ) -> None:
        raw = 1000 * small_digits.displayable(sets["real"])
        with pytest.raises(SyntheticSetError, match=r"none of their values is negative .*values from 0 to 1e\+03"):
            check_normalisation(raw, small_digits)

    def test_images_scaled_to_plus_and_minus_one_are_refused(
        self, sets: dict[str, Tensor], small_digits: ImageDataset
    ) -> None:
        with pytest.raises(SyntheticSetError, match=r"look scaled to \[−1, 1\], which they fill exactly"):
            check_normalisation(2 * small_digits.displayable(sets["real"]) - 1, small_digits)


class TestOrder:
    @pytest.mark.parametrize("name", MEANT)
    def test_the_default_order_is_recognised(self, recognised: dict[str, Recognition], name: str) -> None:
        found = order_of(recognised[name])
        assert found.verdict == "default"
        assert found.default > 0.6 > 0.3 > found.interleaved

    @pytest.mark.parametrize("name", MEANT)
    def test_interleaved_classes_are_recognised(self, recognised: dict[str, Recognition], name: str) -> None:
        found = order_of(in_other_order(recognised[name], interleaved))
        assert found.verdict == "interleaved"
        assert found.interleaved > 0.6 > 0.3 > found.default

    @pytest.mark.parametrize("name", MEANT)
    def test_classes_in_another_order_are_recognised(self, recognised: dict[str, Recognition], name: str) -> None:
        found = order_of(in_other_order(recognised[name], permuted))
        assert found.verdict == "permuted"
        assert found.permuted > 0.5 > 0.3 > found.default

    @pytest.mark.parametrize("reorder", [torch.clone, interleaved, permuted])
    @pytest.mark.parametrize("name", NOISE)
    def test_noise_is_never_refused(self, recognised: dict[str, Recognition], name: str, reorder: Any) -> None:
        assert order_of(in_other_order(recognised[name], reorder)).verdict == "unknown"

    def test_shuffled_images_are_not_confirmed(self, recognised: dict[str, Recognition]) -> None:
        shuffle = torch.randperm(50, generator=generator("shuffle"))
        found = order_of(in_other_order(recognised["real"], lambda logits: logits[shuffle]))
        assert found.verdict == "unknown"

    def test_one_image_a_class_has_no_blocks_and_no_interleaving(self, recognised: dict[str, Recognition]) -> None:
        first = in_other_order(recognised["real"], lambda logits: logits[::5])
        assert order_of(first).verdict == "default"
        found = order_of(in_other_order(first, permuted))
        assert (found.verdict, found.interleaved, found.permuted) == ("unknown", 0, 0)

    @pytest.mark.parametrize(("classes", "accuracy"), [(100, 0.15), (100, 0.3), (200, 0.08)])
    def test_a_weak_reference_of_many_classes_is_enough(self, classes: int, accuracy: float) -> None:
        """CIFAR-100 and Tiny ImageNet: 10 images a class, of which the reference gets few right."""
        labels = default_order_labels(10, classes)
        logits = noise((10 * classes, classes), f"weak {classes} {accuracy}")
        right = torch.rand(len(labels), generator=generator("right", str(accuracy))) < accuracy
        logits[right, labels[right]] += 6
        shuffle = torch.randperm(classes, generator=generator("classes"))

        def verdict(reordered: Tensor) -> str:
            return order_of(Recognition(logits=reordered, accuracy=accuracy)).verdict

        assert verdict(logits) == "default"
        assert verdict(interleaved(logits, classes)) == "interleaved"
        assert verdict(logits.view(classes, 10, classes)[shuffle].flatten(0, 1)) == "permuted"

    @pytest.mark.parametrize(("classes", "ipc"), [(10, 1), (10, 10), (100, 1), (100, 10)])
    def test_chance_refuses_nothing(self, classes: int, ipc: int) -> None:
        """Opinions that have nothing to do with what an image should show, with and without a favourite class."""
        for name in range(100):
            logits = noise((classes * ipc, classes), f"chance {name}")
            favourite = torch.zeros(classes)
            favourite[name % classes] = 9
            for opinion in (logits, logits + favourite):
                assert order_of(Recognition(logits=opinion, accuracy=0.5)).verdict in ("unknown", "default")

    def test_the_refusal_says_which_order_and_what_to_do(
        self,
        recognised: dict[str, Recognition],
        sets: dict[str, Tensor],
        small_digits: ImageDataset,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for reorder, message in (
            (interleaved, r"i // 5: .*image i shows class i % 10 \(\d+% recognised\), against \d+% .*'0' first$"),
            (permuted, r"the classes themselves are in another order \(\d+% recognised\)"),
        ):
            seen = in_other_order(recognised["real"], reorder)
            monkeypatch.setattr("trainables.evaluation.submission.recognise", lambda *_, seen=seen: seen)
            with pytest.raises(SyntheticSetError, match=message):
                check_order(reorder(sets["real"]), small_digits, CPU)
        monkeypatch.setattr("trainables.evaluation.submission.recognise", lambda *_: recognised["real"])
        assert check_order(sets["real"], small_digits, CPU).verdict == "default"


class TestRecognise:
    def test_the_reference_knows_real_images_and_is_the_same_every_time(
        self, recognised: dict[str, Recognition], sets: dict[str, Tensor], small_digits: ImageDataset
    ) -> None:
        found = recognise(sets["real"], small_digits, CPU)
        assert found.accuracy > 0.8
        assert found.logits.shape == (50, 10)
        assert (found.logits - recognised["real"].logits).abs().max() < 1e-4  # other batches, the same network
