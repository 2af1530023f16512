"""The published images, where they are available: every dataset is prepared once for all of its tests."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.pictures import REAL
from trainables.data import catalog, datasets, preparation
from trainables.data.datasets import ImageDataset

pytestmark = pytest.mark.slow

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDERS = {"cifar10": "cifar10_jpeg", "tiny_imagenet": "tiny_imagenet"}


@pytest.fixture(scope="module", params=list(FOLDERS))
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    folder = REAL / FOLDERS[request.param]
    if not folder.is_dir():
        pytest.skip(f"no {folder.name} in ../shared/data")
    cache = tmp_path_factory.mktemp("real")
    path = datasets.prepare(request.param, cache=cache, data=folder, validation_share=0.1)
    dataset = datasets.load(path, datasets.SPLITS)
    path.unlink()  # the map stays; pytest keeps folders, and this is over a gigabyte
    return dataset


def test_sizes_are_the_published_ones_and_the_classes_balanced(real: ImageDataset) -> None:
    facts = catalog.facts(real.name)
    sizes = [len(real.split(split)) for split in datasets.SPLITS]
    assert sizes == [0.9 * facts.train_images, 0.1 * facts.train_images, facts.test_images]
    assert (real.classes, real.channels, real.image_size) == (facts.classes, facts.channels, facts.image_size)
    for split, size in zip(datasets.SPLITS, sizes, strict=True):
        assert np.bincount(real.split(split).labels).tolist() == [size / facts.classes] * facts.classes


def test_classes_are_numbered_in_the_usual_order(real: ImageDataset) -> None:
    if real.name == "cifar10":
        assert real.class_names == CIFAR10
    else:
        assert list(real.class_names) == sorted(set(real.class_names))
        assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in real.class_names)
        assert (real.class_names[0], real.class_names[-1]) == ("n01443537", "n12267677")  # goldfish, acorn


def test_labels_are_those_of_the_files_names(real: ImageDataset) -> None:
    # The training files are called after their class; rows keep the files' order, so the labels do, too.
    files = sorted((REAL / FOLDERS[real.name]).glob("train*.parquet"))
    paths = [row["path"] for file in files for row in pq.read_table(file, columns=["image"])["image"].to_pylist()]
    labels = np.array([real.class_names.index(re.split("[/_]", path)[0]) for path in paths])
    assert real.split("train").labels.tolist() == labels[~preparation.validation_mask(labels, 0.1)].tolist()


def test_pixels_have_the_published_statistics(real: ImageDataset) -> None:
    published = {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
    }
    # Of every fifth image, for time: the mean of 9,000 images' own means is good to .002 (their deviation is .15).
    mean, std = preparation.statistics([real.split("train").images[::5]], real.levels)
    np.testing.assert_allclose(mean, published[real.name][0], atol=0.004)
    np.testing.assert_allclose(std, published[real.name][1], atol=0.004)


def test_the_constants_of_the_evaluator_are_near_the_images_own_statistics(real: ImageDataset) -> None:
    """Tiny ImageNet has ImageNet's means; both have the mean of each image's own deviation as std.

    Source: docs/method.md, "Normalisation".
    """
    images = real.split("validation").images.astype(np.float32) / real.levels
    np.testing.assert_allclose(images.mean(axis=(0, 2, 3)), real.mean, atol=0.012)
    np.testing.assert_allclose(images.std(axis=(2, 3)).mean(axis=0), real.std, atol=0.004)
    # The pixels' deviation over all images is another figure, by far.
    assert (images.std(axis=(0, 2, 3)) > np.array(real.std) + 0.03).all()
