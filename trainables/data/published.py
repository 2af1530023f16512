"""Finds a published dataset: digits, CIFAR, Tiny ImageNet, Parquet, a folder of image files.

`find` recognises the layout of a folder without decoding; `Source.open` reads the labels, `decoding` the images.
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
from trainables.data.image_folders import find_folder, find_tiny_imagenet
from trainables.data.parquet import find_parquet
from trainables.data.source import FoundImages, FoundSplit, Source, fingerprint, list_files
from trainables.errors import DatasetError
from trainables.implementation import Implementation

__all__ = ["Dataset", "cifar10", "cifar100", "digits", "find", "folder", "parquet", "tiny_imagenet"]


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
    return replace(source, facts=source.facts.resized(reading.image_size))


def cifar10(data: Path | None, reading: Reading) -> Source:
    """Find CIFAR-10: its Python files, or Parquet."""
    return _in_folder(catalog.facts("cifar10"), data, _find_cifar)


def cifar100(data: Path | None, reading: Reading) -> Source:
    """Find CIFAR-100: its Python files, or Parquet."""
    return _in_folder(catalog.facts("cifar100"), data, _find_cifar)


def tiny_imagenet(data: Path | None, reading: Reading) -> Source:
    """Find Tiny ImageNet: its folders, or Parquet."""
    return _in_folder(catalog.facts("tiny_imagenet"), data, find_tiny_imagenet)


def parquet(data: Path | None, reading: Reading) -> Source:
    """Find Parquet files of any dataset."""
    return _required(catalog.PARQUET, data, lambda folder: find_parquet(None, folder))


def folder(data: Path | None, reading: Reading) -> Source:
    """Find folders of image files of any dataset."""
    return _required(catalog.FOLDER, data, find_folder)


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
        raise DatasetError(f"{data} is not a folder: pass --data DIR, where DIR holds {needed}")
    if (source := find_source(data)) is None:
        raise DatasetError(f"{data} does not hold {name}: pass --data DIR, where DIR holds {needed}")
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


def _find_cifar(facts: DatasetFacts, data: Path) -> Source | None:
    base = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[facts.name]
    folder = data if data.name == base else data / base
    if not folder.is_dir():
        return None

    def open_images() -> FoundImages:
        from torchvision.datasets import CIFAR10, CIFAR100

        reader = {"cifar10": CIFAR10, "cifar100": CIFAR100}[facts.name]
        try:  # torchvision compares every file with its published checksum
            train, test = (reader(folder.parent, train=train, download=False) for train in (True, False))
        except RuntimeError as error:
            raise DatasetError(
                f"files of {folder} are missing or damaged: unpack the archive of {base} again"
            ) from error
        splits = [
            FoundSplit.of_pixels(
                f"{part} images of {folder}",
                np.ascontiguousarray(images.data.transpose(0, 3, 1, 2)),
                np.array(images.targets, dtype=np.int64),
            )
            for part, images in (("the training", train), ("the test", test))
        ]
        return FoundImages(train=splits[0], test=splits[1], class_names=tuple(train.classes))

    files = list_files(folder, lambda name: True)
    return Source(facts=facts, fingerprint=fingerprint(folder, files), open=open_images)
