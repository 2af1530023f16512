"""RDED and CA2D: crops against torchvision's, the choice against brute force over what the observer was shown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from trainables.baselines.ca2d import ca2d, highest_pools
from trainables.baselines.rded import condense, cut_crops, draw_crops, in_key_order, rded, stitch
from trainables.data import datasets
from trainables.data.datasets import ImageDataset, Split
from trainables.errors import ConfigError
from trainables.seeding import generator


def dataset_of(images: Any, labels: Any, classes: int, **changed: Any) -> ImageDataset:
    """A dataset of given training images, uint8 [n, ch, H, W], of which 10 stands for 1."""
    channels, side = images.shape[1:3]
    facts = {
        "name": "made",
        "class_names": tuple(f"class {label}" for label in range(classes)),
        "channels": channels,
        "image_size": side,
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        "levels": 10,
        "augmentation": (),
        "digest": "made",
        "validation_share": 0.5,
        "path": None,
        "splits": {"train": Split(np.asarray(images), np.asarray(labels), "made")},
    }
    return ImageDataset(**{**facts, **changed})


def constants(values: Any, labels: Any, classes: int, side: int = 4) -> ImageDataset:
    """Images of one value each: every crop of one is alike."""
    values = np.asarray(values, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return dataset_of(np.broadcast_to(values, (len(values), 1, side, side)), np.asarray(labels), classes)


def shuffled(dataset: ImageDataset, seed: int) -> tuple[ImageDataset, np.ndarray]:
    """The same training images in other rows, and which row each came from."""
    train = dataset.split("train")
    order = torch.randperm(len(train), generator=generator("shuffled", seed)).numpy()
    return replace(dataset, splits={"train": Split(train.images[order], train.labels[order], "shuffled")}), order


class Linear:
    """An observer with random weights that remembers what it was shown and what it said of it."""

    def __init__(self, dataset: ImageDataset, seed: int = 0) -> None:
        pixels = dataset.channels * dataset.image_size**2
        self.weights = torch.randn(pixels, dataset.classes, generator=generator("observer", seed)) / 4
        self.shown: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.shown.append(images.clone())
        return images.flatten(1) @ self.weights


def brightness(images: Tensor) -> Tensor:
    """An observer of two classes: the brighter, the surer that it is either's; only −log p_y's order matters."""
    mean = images.mean(dim=(1, 2, 3))
    return torch.stack([mean, torch.zeros_like(mean)], dim=1)


class TestCrops:
    SIDE, COUNT = 12, 60_000

    @pytest.fixture(scope="class")
    def drawn(self) -> Tensor:
        return draw_crops(self.COUNT, self.SIDE, generator("crops"))

    def test_fit_and_keep_their_share_of_the_area(self, drawn: Tensor) -> None:
        top, left, size = drawn.T
        assert drawn.dtype == torch.int64
        assert (int(top.min()), int(left.min())) == (0, 0)
        assert (int((top + size).max()), int((left + size).max())) == (self.SIDE, self.SIDE)
        # To half a pixel, as the size is a whole number of them.
        assert int(size.min()) == round(0.08**0.5 * self.SIDE)
        assert int(size.max()) == self.SIDE

    def test_the_area_is_uniform_between_its_bounds(self, drawn: Tensor) -> None:
        sizes = np.arange(round(0.08**0.5 * self.SIDE), self.SIDE + 1)
        upper = np.minimum(((sizes + 0.5) / self.SIDE) ** 2, 1)
        lower = np.maximum(((sizes - 0.5) / self.SIDE) ** 2, 0.08)
        counts = np.bincount(drawn[:, 2].numpy(), minlength=self.SIDE + 1)[sizes]
        assert stats.chisquare(counts, self.COUNT * (upper - lower) / 0.92).pvalue > 1e-3

    @pytest.mark.parametrize("size", [4, 7, 11])
    def test_every_place_that_fits_is_as_likely_as_the_others(self, drawn: Tensor, size: int) -> None:
        of_size = drawn[drawn[:, 2] == size]
        places = self.SIDE - size + 1
        counts = np.bincount((of_size[:, 0] * places + of_size[:, 1]).numpy(), minlength=places**2)
        assert len(counts) == places**2
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_are_distributed_like_torchvisions(self, drawn: Tensor) -> None:
        image, theirs = torch.zeros(1, self.SIDE, self.SIDE), []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _ in range(8000):
                top, left, height, width = RandomResizedCrop.get_params(image, (0.08, 1.0), (1.0, 1.0))
                assert height == width
                theirs.append((top, left, height))
        # Size and, coarsely, place: cells that are rare are put together.
        cells = [
            np.bincount(crops[:, 2] * 4 + (crops[:, 0] > 2) * 2 + (crops[:, 1] > 2), minlength=52)
            for crops in (drawn.numpy(), np.array(theirs))
        ]
        frequent = (cells[0] + cells[1]) > 60
        table = np.stack([np.append(counts[frequent], counts[~frequent].sum()) for counts in cells])
        assert stats.chi2_contingency(table).pvalue > 1e-3

    def test_all_of_the_image_at_a_smallest_share_of_one(self) -> None:
        assert draw_crops(5, 9, generator(0), smallest=1.0).tolist() == [[0, 0, 9]] * 5

    def test_an_image_of_one_pixel_is_its_own_crop(self) -> None:
        assert draw_crops(20, 1, generator(0)).tolist() == [[0, 0, 1]] * 20

    @pytest.mark.parametrize("side", [12, 6, 5])
    def test_are_cut_and_resized_as_torchvision_does(self, side: int) -> None:
        pixels = torch.rand(7, 3, 12, 12, generator=generator("pixels")) * 255
        boxes = draw_crops(7 * 6, 12, generator("boxes")).view(7, 6, 3)
        cut = cut_crops(pixels, boxes, side)
        for image in range(7):
            for crop, (top, left, size) in enumerate(boxes[image].tolist()):
                expected = resized_crop(pixels[image], top, left, size, size, [side, side], antialias=True)
                assert torch.allclose(cut[image, crop], expected, atol=1e-4)

    def test_a_crop_of_all_is_the_image_itself(self) -> None:
        pixels = torch.rand(2, 1, 8, 8, generator=generator("pixels"))
        assert torch.equal(cut_crops(pixels, torch.tensor([[[0, 0, 8]]] * 2), 8)[:, 0], pixels)


class TestStitch:
    def test_crops_lie_by_rows_and_each_image_gets_every_mth(self) -> None:
        patches = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 2, 2)
        first, second = stitch(patches, 2)[:, 0].tolist()
        assert first == [[0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 6, 6], [4, 4, 6, 6]]
        assert second == [[1, 1, 3, 3], [1, 1, 3, 3], [5, 5, 7, 7], [5, 5, 7, 7]]

    def test_a_crop_alone_stays_as_it_is(self) -> None:
        patches = torch.rand(3, 2, 4, 4, generator=generator("patches"))
        assert torch.equal(stitch(patches, 1), patches)


class TestKnownChoice:
    """Images of one value: crops do not matter, and the observer is surest of the brightest of the first class."""

    VALUES = (3, 9, 1, 7, 5, 8, 2, 4)

    def test_the_surest_come_first(self) -> None:
        dataset = constants(self.VALUES, [0] * 8, 1)
        pools = [torch.arange(8)]
        chosen = condense(dataset, brightness, pools, 3, 0)
        assert torch.equal(chosen, dataset.normalized("train", [1, 5, 3]))

    def test_the_class_decides_what_is_sure(self) -> None:
        dataset = constants(self.VALUES, [0, 1] * 4, 2)
        chosen = condense(dataset, brightness, [torch.arange(0, 8, 2), torch.arange(1, 8, 2)], 2, 0)
        # Of class 0 the brightest two of 3, 1, 5, 2; of class 1 the darkest two of 9, 7, 8, 4.
        assert torch.equal(chosen, dataset.normalized("train", [4, 0, 7, 3]))

    def test_four_crops_make_an_image(self) -> None:
        dataset = constants(self.VALUES, [0] * 8, 1)
        first, second = (dataset.displayable(condense(dataset, brightness, [torch.arange(8)], 2, 0, factor=2)) * 10)[
            :, 0
        ]
        # From the surest: 9 8 | 7 5 | 4 3 | 2 1.
        assert first[::2, ::2].round().tolist() == [[9, 7], [4, 2]]
        assert second[::2, ::2].round().tolist() == [[8, 5], [3, 1]]
        for image in (first, second):
            assert torch.allclose(image, image[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1))

    def test_a_sure_observers_crops_are_still_told_apart(self) -> None:
        """−log p_y is 0 in float32 for all of these, but not the same."""
        dataset = constants(self.VALUES, [0] * 8, 1)
        chosen = condense(
            dataset, lambda images: 2 * brightness(images) + torch.tensor([20.0, 0.0]), [torch.arange(8)], 3, 0
        )
        assert torch.equal(chosen, dataset.normalized("train", [1, 5, 3]))


class TestBruteForce:
    @pytest.mark.parametrize(("ipc", "crops", "factor"), [(1, 5, 1), (5, 5, 1), (2, 3, 2), (1, 1, 4), (3, 300, 1)])
    def test_the_best_crop_of_each_image_and_of_these_the_best(
        self, small_digits: ImageDataset, ipc: int, crops: int, factor: int
    ) -> None:
        observer, images = Linear(small_digits), 16 if crops < 100 else 4
        pools = [rows[:images] for rows in in_key_order(small_digits, 3)]
        result = condense(small_digits, observer, pools, ipc, 0, crops=crops, factor=factor)
        shown = torch.cat(observer.shown)
        assert shown.shape == (10 * images * crops, 1, 8, 8)
        losses = -torch.log_softmax((shown.flatten(1) @ observer.weights).double(), dim=1)
        side = 8 // factor
        margin = (8 - side) // 2
        for label in range(10):
            ranked = []
            for image in range(images):
                first = (label * images + image) * crops
                best = min(range(first, first + crops), key=lambda index: float(losses[index, label]))
                ranked.append((float(losses[best, label]), best))
            ranked.sort()
            for number in range(ipc):
                made = result[label * ipc + number]
                for place in range(factor**2):
                    expected = shown[ranked[place * ipc + number][1]][:, margin : margin + side, margin : margin + side]
                    top, left = (place // factor) * side, (place % factor) * side
                    assert torch.allclose(made[:, top : top + side, left : left + side], expected, atol=1e-5)

    def test_a_small_crop_is_shown_amid_the_mean_colour(self, small_digits: ImageDataset) -> None:
        observer = Linear(small_digits)
        rded(small_digits, observer, 1, 0, pool=8, factor=2)
        shown = torch.cat(observer.shown)
        inside = torch.zeros(8, 8, dtype=torch.bool)
        inside[2:6, 2:6] = True
        assert float(shown[:, :, ~inside].abs().max()) < 1e-6
        assert float(shown[:, :, inside].abs().min(dim=0).values.max()) > 1e-3

    def test_a_whitened_dataset_is_cropped_before_it_is_whitened(self, small_digits: ImageDataset) -> None:
        whitened = datasets.load(datasets.whiten(small_digits.path))
        for factor in (1, 2):
            seen = []
            for dataset in (small_digits, whitened):
                observer = Linear(small_digits)
                rded(dataset, observer, 1, 0, pool=8, factor=factor)
                seen.append(dataset.displayable(torch.cat(observer.shown)))
            one, other = seen
            assert torch.allclose(one, other, atol=1e-4)


class TestSet:
    def test_is_balanced_and_in_default_order(self) -> None:
        # The value says the class, and the observer does not care.
        labels = np.repeat([2, 0, 1], 7)
        dataset = constants(labels, labels, 3)
        chosen = rded(dataset, lambda images: torch.zeros(len(images), 3), 4, 0)
        assert (dataset.displayable(chosen).mean(dim=(1, 2, 3)) * 10).round().tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert (chosen.dtype, chosen.shape) == (torch.float32, (12, 1, 4, 4))

    def test_the_seed_decides(self, small_digits: ImageDataset) -> None:
        one, again, other = (rded(small_digits, Linear(small_digits), 2, seed, pool=20) for seed in (0, 0, 1))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_a_class_smaller_than_the_pool_gives_all_it_has(self, small_digits: ImageDataset) -> None:
        observer = Linear(small_digits)
        counts = torch.bincount(small_digits.labels("train"))
        pool = int(counts.max()) - 1
        rded(small_digits, observer, 1, 0, pool=pool, crops=2)
        assert len(torch.cat(observer.shown)) == 2 * int(counts.clamp(max=pool).sum())
        assert int(counts.min()) < pool < int(counts.max())

    @settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 2**31), factor=st.sampled_from([1, 2]))
    def test_the_order_of_the_rows_does_not_matter(self, small_digits: ImageDataset, seed: int, factor: int) -> None:
        other, order = shuffled(small_digits, seed)
        scores = torch.rand(len(order), generator=generator("scores", seed)).mul(20).round()  # many equal ones
        sets = [
            (
                rded(dataset, Linear(dataset), 2, seed, pool=12, crops=2, factor=factor),
                ca2d(dataset, Linear(dataset), of_rows, 2, seed, pool=12, crops=2, factor=factor),
            )
            for dataset, of_rows in ((small_digits, scores), (other, scores[order]))
        ]
        for one, again in zip(*sets, strict=True):
            assert torch.equal(one, again)

    @pytest.mark.parametrize("opinion", [1, 0], ids=["an observer", "one to whom all crops are alike"])
    def test_the_order_within_a_pool_does_not_matter(self, small_digits: ImageDataset, opinion: int) -> None:
        observer = Linear(small_digits)
        pools = [rows[:12] for rows in in_key_order(small_digits, 0)]
        one, other = (
            condense(small_digits, lambda images: opinion * observer(images), rows, 2, 0)
            for rows in (pools, [rows.flip(0) for rows in pools])
        )
        assert torch.equal(one, other)


class TestKeys:
    def test_each_class_has_its_rows_in_a_random_order(self, small_digits: ImageDataset) -> None:
        rows, labels = in_key_order(small_digits, 0), small_digits.labels("train")
        for label, of_class in enumerate(rows):
            assert sorted(of_class.tolist()) == (labels == label).nonzero().flatten().tolist()
        # Where in its class an image comes has nothing to do with its row; 1,078 pairs.
        row = np.concatenate([of_class.argsort().numpy() / len(of_class) for of_class in rows])
        place = np.concatenate([np.arange(len(of_class)) / len(of_class) for of_class in rows])
        assert abs(stats.spearmanr(row, place).statistic) < 4 / len(labels) ** 0.5

    def test_another_seed_is_another_order(self, small_digits: ImageDataset) -> None:
        assert in_key_order(small_digits, 0)[0].tolist() != in_key_order(small_digits, 1)[0].tolist()


class TestCA2D:
    @pytest.mark.parametrize("pool", [5, 30, 500])
    def test_is_rded_on_the_highest_scores_of_each_class(self, small_digits: ImageDataset, pool: int) -> None:
        labels = small_digits.labels("train").numpy()
        scores = torch.rand(len(labels), generator=generator("scores"))
        pools = []
        for label in range(10):
            rows = np.flatnonzero(labels == label)
            pools.append(torch.from_numpy(rows[np.argsort(-scores.numpy()[rows])][:pool]))
        assert [rows.tolist() for rows in highest_pools(small_digits, scores, pool, 0)] == [
            rows.tolist() for rows in pools
        ]
        options: dict[str, Any] = {"ipc": 2, "seed": 0, "crops": 3}
        assert torch.equal(
            ca2d(small_digits, Linear(small_digits), scores, pool=pool, **options),
            condense(small_digits, Linear(small_digits), pools, **options),
        )

    def test_with_every_image_in_the_pool_it_is_rded(self, small_digits: ImageDataset) -> None:
        scores = torch.rand(len(small_digits.split("train")), generator=generator("scores"))
        options: dict[str, Any] = {"ipc": 2, "seed": 0, "pool": 500}
        assert torch.equal(
            ca2d(small_digits, Linear(small_digits), scores, **options),
            rded(small_digits, Linear(small_digits), **options),
        )

    def test_the_scores_matter(self, small_digits: ImageDataset) -> None:
        scores = torch.rand(len(small_digits.split("train")), generator=generator("scores"))
        one, other = (ca2d(small_digits, Linear(small_digits), of, 2, 0, pool=20) for of in (scores, -scores))
        assert not torch.equal(one, other)

    @pytest.mark.parametrize("scores", [torch.zeros(5), torch.zeros(1078, 2), torch.full((1078,), torch.nan)], ids=str)
    def test_what_is_no_score_an_image_is_refused(self, small_digits: ImageDataset, scores: Any) -> None:
        with pytest.raises(ConfigError, match="of each of 1078 training images"):
            ca2d(small_digits, Linear(small_digits), scores, 1, 0)


class TestRefusals:
    def test_fewer_images_than_crops_are_needed(self, small_digits: ImageDataset) -> None:
        with pytest.raises(
            ConfigError, match=r"class '0' has 15 images .* ipc · factor² = 16; lower .*, or raise pool$"
        ):
            rded(small_digits, Linear(small_digits), 4, 0, pool=15, factor=2)
        assert len(rded(small_digits, Linear(small_digits), 4, 0, pool=16, factor=2)) == 40

    def test_a_factor_that_does_not_divide_the_side(self, small_digits: ImageDataset) -> None:
        with pytest.raises(ConfigError, match="divide the side of 8 pixels, not be 3"):
            rded(small_digits, Linear(small_digits), 1, 0, factor=3)

    @pytest.mark.parametrize("name", ["ipc", "pool", "crops", "factor"])
    def test_less_than_one_of_anything(self, small_digits: ImageDataset, name: str) -> None:
        with pytest.raises(ConfigError, match=f"^{name} must be at least 1, not 0$"):
            settings: dict[str, Any] = {"ipc": 1, "seed": 0, name: 0}
            rded(small_digits, Linear(small_digits), **settings)

    def test_an_observer_that_has_no_opinion(self, small_digits: ImageDataset) -> None:
        with pytest.raises(ConfigError, match="logits must be finite"):
            rded(small_digits, lambda images: F.one_hot(torch.zeros(len(images)).long(), 10) * torch.nan, 1, 0)
