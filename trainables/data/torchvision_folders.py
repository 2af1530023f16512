"""Datasets in the folders that torchvision downloads: CIFAR, MNIST and those of its form, SVHN, STL-10."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.catalog import DatasetFacts
from trainables.data.source import FoundImages, FoundSplit, Source, check_labels, fingerprint, list_files
from trainables.errors import DatasetError

__all__ = ["find_cifar", "find_mnist", "find_stl10", "find_svhn"]

_DIGITS = tuple("0123456789")


def find_cifar(facts: DatasetFacts, data: Path) -> Source | None:
    """Find CIFAR-10's or CIFAR-100's Python files."""
    base, reader = {"cifar10": ("cifar-10-batches-py", "CIFAR10"), "cifar100": ("cifar-100-python", "CIFAR100")}[
        facts.name
    ]
    folder = data if data.name == base else data / base

    def read(train: bool) -> tuple[np.ndarray, Any, Sequence[str]]:
        images = _reader(reader)(folder.parent, train=train, download=False)
        return images.data.transpose(0, 3, 1, 2), images.targets, images.classes

    return _source(facts, folder, lambda name: True, read, f"unpack the archive of {base} again")


def find_mnist(facts: DatasetFacts, data: Path) -> Source | None:
    """Find the four unpacked files of MNIST, Fashion-MNIST or KMNIST in torchvision's folder, such as MNIST/raw."""
    base = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[facts.name]
    places = (data / base / "raw", data / "raw", data)
    raw = next((place for place in places if place.parts[-2:] == (base, "raw") and place.is_dir()), None)
    if raw is None:
        return None

    def read(train: bool) -> tuple[np.ndarray, Any, Sequence[str]]:
        images = _reader(base)(raw.parents[1], train=train, download=False)
        names = [name.partition(" - ")[0] for name in images.classes]  # MNIST has "0 - zero"
        return images.data.numpy()[:, None], images.targets.numpy(), names

    return _source(facts, raw, lambda name: name.endswith("ubyte"), read, f"unpack the four files of {base} again")


def find_svhn(facts: DatasetFacts, data: Path) -> Source | None:
    """Find SVHN's cropped digits, train_32x32.mat and test_32x32.mat."""
    present = list_files(data, {"train_32x32.mat", "test_32x32.mat"}.__contains__)
    if not present:
        return None

    def read(train: bool) -> tuple[np.ndarray, Any, Sequence[str]]:
        images = _reader("SVHN")(data, split="train" if train else "test", download=False)
        return images.data, images.labels, _DIGITS

    names = {file.path.name for file in present}
    return _source(facts, data, names.__contains__, read, "fetch train_32x32.mat and test_32x32.mat again")


def find_stl10(facts: DatasetFacts, data: Path) -> Source | None:
    """Find STL-10's binary files."""
    folder = data if data.name == "stl10_binary" else data / "stl10_binary"

    def read(train: bool) -> tuple[np.ndarray, Any, Sequence[str]]:
        images = _reader("STL10")(folder.parent, split="train" if train else "test", download=False)
        return images.data, images.labels, images.classes

    return _source(
        facts, folder, lambda name: not name.startswith("unlabeled"), read, "unpack stl10_binary.tar.gz again"
    )


def _reader(name: str) -> Any:
    import torchvision  # here, because it loads torch, which a plan must not

    return getattr(torchvision.datasets, name)


def _source(
    facts: DatasetFacts,
    folder: Path,
    wanted: Callable[[str], bool],
    read: Callable[[bool], tuple[np.ndarray, Any, Sequence[str]]],
    remedy: str,
) -> Source | None:
    """Return the source of a folder; None if there is no such folder.

    Args:
        facts: The dataset's facts.
        folder: The folder of the files.
        wanted: Which of its files are part of the fingerprint.
        read: Reads the train split (True) or the test split: images uint8 [n, ch, H, W], labels [n], class names.
        remedy: What to do about missing or damaged files.
    """
    if not folder.is_dir():
        return None

    def open_images() -> FoundImages:
        splits: list[FoundSplit] = []
        names: Sequence[str] = ()
        for train, part in ((True, "the training"), (False, "the test")):
            try:  # torchvision compares the files with their published checksums where there are any
                images, labels, names = read(train)
            except (RuntimeError, OSError, ValueError, AssertionError) as error:
                raise DatasetError(f"files of {folder} are missing or damaged: {remedy}") from error
            split = FoundSplit.of_pixels(
                f"{part} images of {folder}", np.ascontiguousarray(images), np.array(labels, dtype=np.int64)
            )
            check_labels(split.labels, facts.classes, split.where)
            splits.append(split)
        return FoundImages(train=splits[0], test=splits[1], class_names=tuple(names))

    return Source(facts=facts, fingerprint=fingerprint(folder, list_files(folder, wanted)), open=open_images)
