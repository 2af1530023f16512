"""Finds a dataset by its name: digits, those of torchvision's folders, Tiny ImageNet, and those of one's own.

`find` recognises the layout of a folder without decoding images; `decoding` does that.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from trainables.config.reading import AS_IT_IS, Reading
from trainables.data import catalog
from trainables.data.catalog import DatasetFacts
from trainables.data.own import find_own
from trainables.data.parquet import find_parquet
from trainables.data.source import FoundImages, FoundSplit, Source, shown
from trainables.data.tiny_imagenet import find_tiny_imagenet
from trainables.data.torchvision_folders import find_cifar, find_mnist, find_stl10, find_svhn
from trainables.errors import DatasetError
from trainables.implementation import Implementation

__all__ = [
    "Dataset",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "find",
    "folder",
    "kmnist",
    "mnist",
    "own",
    "parquet",
    "stl10",
    "svhn",
    "tiny_imagenet",
]


class Dataset(Protocol):
    """The implementation of a dataset: finds its files in a folder, without decoding them."""

    def __call__(self, data: Path | None, reading: Reading) -> Source:
        """Find the dataset; `facts.name` of the returned source must be the dataset's name.

        Args:
            data: The folder that holds it; None if the user named no folder.
            reading: How its files are read. What concerns single images is done for it when they are decoded.

        Raises:
            DatasetError: The folder does not hold the dataset; the message says what it must hold.
        """


def find(dataset: str | Implementation, data: Path | None, reading: Reading = AS_IT_IS) -> Source:
    """Find a dataset in a folder.

    Args:
        dataset: One of `catalog.names()` or of `catalog.OWN_FACTS`, or the implementation of any dataset.
        data: The folder that holds it; unused for the digits.
        reading: How its files are read; `facts.image_size` of the source is its `image_size`, if it has one.

    Raises:
        DatasetError: The name is unknown, or the folder does not hold the dataset in a known layout.
    """
    if isinstance(dataset, str):
        catalog.instructions(dataset)  # refuses an unknown name
        dataset = Implementation(name=dataset, address=f"{__name__}:{dataset}")
    find_source: Dataset = dataset.load()
    source = find_source(data, reading)
    if source.facts.name != dataset.name:
        raise DatasetError(
            f"{dataset.address} must find the dataset {dataset.name}, not {source.facts.name}: correct facts.name"
        )
    if reading.test_split not in ("auto", source.findings.test_from):
        raise DatasetError(
            f"test_split={reading.test_split} cannot be chosen for {dataset.name}, whose test split is "
            f"{source.findings.test_from}: leave test_split out"
        )
    return replace(source, facts=source.facts.resized(reading.image_size))


def cifar10(data: Path | None, reading: Reading) -> Source:
    """Find CIFAR-10: its Python files, or Parquet."""
    return _in_folder(catalog.facts("cifar10"), data, find_cifar)


def cifar100(data: Path | None, reading: Reading) -> Source:
    """Find CIFAR-100: its Python files, or Parquet."""
    return _in_folder(catalog.facts("cifar100"), data, find_cifar)


def tiny_imagenet(data: Path | None, reading: Reading) -> Source:
    """Find Tiny ImageNet: its folders, or Parquet."""
    return _in_folder(catalog.facts("tiny_imagenet"), data, find_tiny_imagenet)


def mnist(data: Path | None, reading: Reading) -> Source:
    """Find MNIST: torchvision's folder, or Parquet."""
    return _in_folder(catalog.facts("mnist"), data, find_mnist)


def fashion_mnist(data: Path | None, reading: Reading) -> Source:
    """Find Fashion-MNIST: torchvision's folder, or Parquet."""
    return _in_folder(catalog.facts("fashion_mnist"), data, find_mnist)


def kmnist(data: Path | None, reading: Reading) -> Source:
    """Find KMNIST: torchvision's folder, or Parquet."""
    return _in_folder(catalog.facts("kmnist"), data, find_mnist)


def svhn(data: Path | None, reading: Reading) -> Source:
    """Find SVHN's cropped digits: its .mat files, or Parquet."""
    return _in_folder(catalog.facts("svhn"), data, find_svhn)


def stl10(data: Path | None, reading: Reading) -> Source:
    """Find STL-10: its binary files, or Parquet; the images without labels are not used."""
    return _in_folder(catalog.facts("stl10"), data, find_stl10)


def parquet(data: Path | None, reading: Reading) -> Source:
    """Find Parquet files of any dataset."""
    return _required(catalog.PARQUET, data, lambda folder: find_own(catalog.PARQUET, folder, reading))


def folder(data: Path | None, reading: Reading) -> Source:
    """Find folders of image files of any dataset."""
    return _required(catalog.FOLDER, data, lambda folder: find_own(catalog.FOLDER, folder, reading))


def own(data: Path | None, reading: Reading) -> Source:
    """Find any dataset in a form that is recognised."""
    return _required(catalog.OWN, data, lambda folder: find_own(catalog.OWN, folder, reading))


def _in_folder(
    facts: DatasetFacts, data: Path | None, published: Callable[[DatasetFacts, Path], Source | None]
) -> Source:
    return _required(facts.name, data, lambda folder: published(facts, folder) or find_parquet(facts, folder))


def _required(name: str, data: Path | None, find_source: Callable[[Path], Source | None]) -> Source:
    """Return the source in a folder.

    Raises:
        DatasetError: There is no such folder or source; the message says what the folder must hold.
    """
    needed = catalog.instructions(name)
    if data is None:
        raise DatasetError(f"{name} needs its files: pass --data DIR, where DIR holds {needed}")
    if not data.is_dir():
        raise DatasetError(f"{shown(data)} is not a folder: pass --data DIR, where DIR holds {needed}")
    if (source := find_source(data)) is None:
        what = "own images in a form that is known" if name == catalog.OWN else name
        raise DatasetError(f"{shown(data)} does not hold {what}: pass --data DIR, where DIR holds {needed}")
    return source


def digits(data: Path | None, reading: Reading) -> Source:
    """Find scikit-learn's digits, which are part of the package; `data` is ignored."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)

    def open_images() -> FoundImages:
        rows = np.arange(len(labels))
        train, test = map(np.sort, train_test_split(rows, test_size=360, stratify=labels, random_state=0))
        return FoundImages(
            train=FoundSplit.of_pixels("the digits' training images", images[train], labels[train]),
            test=FoundSplit.of_pixels("the digits' test images", images[test], labels[test]),
            class_names=tuple("0123456789"),
            levels=16,
        )

    content = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return Source(facts=catalog.facts("digits"), fingerprint=content, open=open_images)
