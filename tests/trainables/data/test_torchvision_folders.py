"""Published datasets in torchvision's folders, on made files in the published binary forms."""

import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision

from tests.support.pictures import cifar10_parquet, prepare, write_parquet
from trainables.data import catalog
from trainables.errors import DatasetError

DIGITS = tuple("0123456789")
LABELS = {"train": np.tile(np.arange(10), 3), "t10k": np.tile(np.arange(10)[::-1], 2)}


def idx(path: Path, array: np.ndarray) -> None:
    """Write an array of bytes in IDX, the form of MNIST's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("name", "folder", "classes"),
    [
        ("mnist", "MNIST", DIGITS), ("kmnist", "KMNIST", torchvision.datasets.KMNIST.classes),
        ("fashion_mnist", "FashionMNIST", torchvision.datasets.FashionMNIST.classes),
    ],
)  # fmt: skip
def test_mnist_and_those_of_its_form(
    tmp_path: Path, name: str, folder: str, classes: tuple[str, ...], inside: bool
) -> None:
    raw, images = tmp_path / folder / "raw", {}
    for split, labels in LABELS.items():
        images[split] = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 28, 28), np.uint8)
        idx(raw / f"{split}-images-idx3-ubyte", images[split])
        idx(raw / f"{split}-labels-idx1-ubyte", labels)
    dataset = prepare(name, tmp_path, raw if inside else tmp_path)
    assert np.array_equal(dataset.split("test").images, images["t10k"][:, None])
    assert dataset.split("test").labels.tolist() == LABELS["t10k"].tolist()
    assert len(dataset.split("train")) + len(dataset.split("validation")) == 30
    assert dataset.class_names == tuple(classes)
    (raw / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DatasetError, match=f"files of .*raw are missing or damaged: unpack the four files of {folder}"):
        prepare(name, tmp_path, tmp_path)


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, patched = tmp_path / "data", {}
    data.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 30), np.uint8)
    labels = np.tile(np.arange(1, 11), 3)  # 10 is the digit 0
    for split, listed in torchvision.datasets.SVHN.split_list.items():
        file = data / listed[1]
        scipy.io.savemat(file, {"X": images, "y": labels[:, None]})
        patched[split] = [listed[0], listed[1], hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", patched)
    dataset = prepare("svhn", tmp_path, data)
    assert np.array_equal(dataset.split("test").images, images.transpose(3, 2, 0, 1))
    assert dataset.split("test").labels.tolist() == (labels % 10).tolist()
    assert dataset.class_names == DIGITS
    (data / "test_32x32.mat").write_bytes(b"other")
    with pytest.raises(DatasetError, match=r"missing or damaged: fetch train_32x32\.mat and test_32x32\.mat again"):
        prepare("svhn", tmp_path, data)


@pytest.mark.parametrize("inside", [False, True])
def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    reader: Any = torchvision.datasets.STL10
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    labels = np.tile(np.arange(1, 11), 2)
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 96, 96), np.uint8)
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    for split in ("train", "test"):
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())  # columns first
        (folder / f"{split}_y.bin").write_bytes(labels.astype(np.uint8).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "fold_indices.txt").write_text("")
    for attribute in ("train_list", "test_list"):
        listed = [
            [name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name, _ in getattr(reader, attribute)
        ]
        monkeypatch.setattr(reader, attribute, listed)
    dataset = prepare("stl10", tmp_path, folder if inside else tmp_path, share=0.5)
    assert np.array_equal(dataset.split("test").images, images)
    assert dataset.split("test").labels.tolist() == (labels - 1).tolist()
    assert dataset.class_names == tuple(names)
    (folder / "train_X.bin").write_bytes(b"other")
    with pytest.raises(DatasetError, match=r"missing or damaged: unpack stl10_binary\.tar\.gz again"):
        prepare("stl10", tmp_path, tmp_path)


def test_parquet_does_too(tmp_path: Path) -> None:
    _, test = cifar10_parquet(tmp_path / "svhn")
    assert np.array_equal(prepare("svhn", tmp_path, tmp_path / "svhn").split("test").images, test)
    grey = [np.full((28, 28), 20 * label, np.uint8) for label in range(10)]
    for split in ("train", "test"):
        write_parquet(tmp_path / "mnist" / f"{split}.parquet", grey * 2, [*range(10)] * 2)
    dataset = prepare("mnist", tmp_path, tmp_path / "mnist", share=0.5)
    assert dataset.split("test").images[3].tolist() == [grey[3].tolist()]
    assert (dataset.mean, dataset.std) == ((0.1307,), (0.3081,))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "svhn", "stl10"])
def test_the_constants_fit_the_channels_and_digits_are_not_mirrored(name: str) -> None:
    facts = catalog.facts(name)
    assert facts.mean is not None and facts.std is not None
    assert len(facts.mean) == len(facts.std) == facts.channels
    assert ("flip" in facts.augmentation) == (name in ("fashion_mnist", "stl10"))
