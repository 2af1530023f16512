"""One `.npz` file with the images and labels of every split, in MedMNIST's form."""

import functools
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from trainables.data.columns import FileLabels, merged
from trainables.data.source import FoundFile, Picture, shown
from trainables.data.splits import Layout, Part
from trainables.data.tree import OTHER, Folder
from trainables.errors import DatasetError

__all__ = ["find_array_file"]

_PREFIXES = {"train": "train", "validation": "val", "test": "test"}


def find_array_file(tree: Folder, skipped: Mapping[str, int]) -> Layout | None:
    """Find an .npz with the arrays train_images and train_labels, and perhaps val_… and test_….

    Args:
        tree: The folder; other files are ignored.
        skipped: What was left out while it was listed.

    Raises:
        DatasetError: There are several such files, one is damaged, or an array has another form.
    """
    candidates = [file for file in tree.below() if file.path.suffix.lower() == ".npz"]
    files = {file: members for file in candidates if "train_images" in (members := _members(file.path))}
    if not files:
        return None
    if len(files) > 1:
        names = ", ".join(shown(file.path.name) for file in files)
        raise DatasetError(
            f"{shown(tree.path)} holds several datasets ({names}): give --data a folder that holds one of them"
        )
    ((file, members),) = files.items()
    parts = {split: prefix for split, prefix in _PREFIXES.items() if f"{prefix}_images" in members}
    shape = _shape(file.path, "train_images")
    counts = Counter(skipped)
    counts[OTHER] += tree.count - 1
    return Layout(
        folder=tree.path,
        words=f"the arrays of {shown(file.path.name)}, in MedMNIST's form",
        parts={split: functools.partial(_part, file, prefix) for split, prefix in parts.items()},
        skipped=counts,
        channels=3 if shape[3:] == (3,) else 1,
    )


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn errors on damaged files into a DatasetError."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        OSError,
        EOFError,
        KeyError,
        ValueError,
        NotImplementedError,
        SyntaxError,
    ) as error:
        raise DatasetError(f"{shown(path)} is damaged or no .npz file ({error}): fetch it again") from error


def _members(path: Path) -> set[str]:
    with _damage(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an array: shape, whether in Fortran's order, and type."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype] = read(stream)
    return header


def _shape(path: Path, name: str) -> tuple[int, ...]:
    """Return the shape of an array of images.

    Raises:
        DatasetError: It holds no images of bytes, grey or RGB.
    """
    with _damage(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        shape, fortran, of = _header(stream)
    if fortran or of != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
        raise DatasetError(
            f"{name} of {shown(path)} must be uint8 [n, height, width] or [n, height, width, 3], not {of} "
            f"{list(shape)}: convert it"
        )
    return shape


def _part(file: FoundFile, prefix: str) -> Part:
    path, name = file.path, f"{prefix}_labels"
    if name not in _members(path):
        raise DatasetError(f"{shown(path)} has {prefix}_images but no {name}: add it")
    with _damage(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        labels = np.lib.format.read_array(stream, allow_pickle=False)
    shape = _shape(path, f"{prefix}_images")
    if labels.shape not in ((shape[0],), (shape[0], 1)) or labels.dtype.kind not in "iubU":
        raise DatasetError(
            f"{name} of {shown(path)} must hold a whole number for each of the {shape[0]} images, not {labels.dtype} "
            f"{list(labels.shape)}: only one label an image is supported"
        )
    values, codes = np.unique(labels.reshape(-1), return_inverse=True)
    where = f"{prefix}_images of {shown(path)}"
    found = FileLabels(where=where, codes=codes.reshape(-1).astype(np.int64), values=values.tolist(), names=None)
    numbers, classes = merged([found], None)
    return Part(
        where=where,
        codes=numbers,
        classes=classes,
        pictures=lambda: _images(path, f"{prefix}_images"),
        files=[file],
    )


def _images(path: Path, name: str) -> Iterator[Picture]:
    """Yield the images of an array, of which one is in memory."""
    count, height, width, *last = _shape(path, name)
    channels = last[0] if last else 1
    with _damage(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        _header(stream)
        for row in range(count):
            content = stream.read(height * width * channels)
            if len(content) < height * width * channels:
                raise ValueError(f"{name} ends in image {row}")
            pixels = np.frombuffer(content, np.uint8).reshape(height, width, channels)
            yield Picture(f"{name} of {shown(path)} row {row}", pixels.transpose(2, 0, 1))
