"""Readers of datasets as they are published: digits, CIFAR, the Tiny ImageNet folder, Parquet.

`find` looks at a folder and says which layout it has, without decoding; `Source.read` decodes it. Everything comes out
alike: uint8 images [n, ch, H, W], int64 labels [n], both complete in memory, ready to be written to the cache.
"""

import functools
import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables import catalog
from trainables.catalog import DatasetFacts
from trainables.decoding import Meter, Progress, decode, image_errors
from trainables.errors import DatasetError

__all__ = ["PARQUET", "RawDataset", "RawSplit", "Source", "find"]

PARQUET = "parquet"
"""The name for any Parquet dataset of square images of one size; its images become RGB whatever they are."""

_ONE_BYTE = 255
PARQUET_BATCH = 2048  # rows whose encoded bytes are in memory at a time


@dataclass(frozen=True)
class RawSplit:
    """Images uint8 [n, ch, H, W], writable, and labels int64 [n]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class RawDataset:
    """A decoded dataset; `levels` is the pixel value that stands for 1.0."""

    train: RawSplit
    test: RawSplit
    class_names: tuple[str, ...]
    levels: int = _ONE_BYTE


@dataclass(frozen=True)
class Source:
    """A dataset found, not yet decoded."""

    fingerprint: str
    """Changes when a file that would be read changes its path in the folder, its size or its time."""
    read: Callable[[Progress | None], RawDataset]
    """Decode everything; raises DatasetError where an image or a label is wrong."""


def find(name: str, data: Path | None) -> Source:
    """Find a dataset in a folder.

    Args:
        name: One of `catalog.names()`, or "parquet".
        data: The folder that holds it; unused for the digits.

    Raises:
        DatasetError: The name is unknown, or the folder does not hold the dataset in a layout that is known.
    """
    if name == "digits":
        return _find_digits()
    facts = None if name == PARQUET else catalog.facts(name)
    needed = facts.instructions if facts else "train*.parquet and test*.parquet (or val*.parquet)"
    if data is None:
        raise DatasetError(f"{name} needs its files: pass --data DIR, where DIR holds {needed}")
    if not data.is_dir():
        raise DatasetError(f"{data} is no folder: pass --data DIR, where DIR holds {needed}")
    source = None
    if name in ("cifar10", "cifar100"):
        source = _find_cifar(catalog.facts(name), data)
    elif name == "tiny_imagenet":
        source = _find_tiny_imagenet(catalog.facts(name), data)
    source = source or _find_parquet(facts, data)
    if source is None:
        raise DatasetError(f"{data} does not hold {name}: pass --data DIR, where DIR holds {needed}")
    return source


def _fingerprint(folder: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        status = path.stat()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


# -- digits and CIFAR: whole arrays, nothing to decode


def _find_digits() -> Source:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)

    def read(progress: Progress | None) -> RawDataset:
        rows = np.arange(len(labels))
        train, test = map(np.sort, train_test_split(rows, test_size=360, stratify=labels, random_state=0))
        Meter(progress, len(rows)).add(len(rows))
        return RawDataset(
            train=RawSplit(images[train], labels[train]),
            test=RawSplit(images[test], labels[test]),
            class_names=tuple("0123456789"),
            levels=16,
        )

    return Source(hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(), read)


def _find_cifar(facts: DatasetFacts, data: Path) -> Source | None:
    base = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[facts.name]
    folder = data if data.name == base else data / base
    if not folder.is_dir():
        return None

    def read(progress: Progress | None) -> RawDataset:
        from torchvision.datasets import CIFAR10, CIFAR100

        reader = {"cifar10": CIFAR10, "cifar100": CIFAR100}[facts.name]
        try:  # torchvision compares every file with its published checksum
            train, test = (reader(folder.parent, train=train, download=False) for train in (True, False))
        except RuntimeError as error:
            raise DatasetError(
                f"files of {folder} are missing or damaged: unpack the archive of {base} again"
            ) from error
        Meter(progress, len(train) + len(test)).add(len(train) + len(test))
        splits = [
            RawSplit(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.array(part.targets, dtype=np.int64))
            for part in (train, test)
        ]
        return RawDataset(train=splits[0], test=splits[1], class_names=tuple(train.classes))

    return Source(_fingerprint(folder, (path for path in folder.iterdir() if path.is_file())), read)


# -- Tiny ImageNet's own folder


def _find_tiny_imagenet(facts: DatasetFacts, data: Path) -> Source | None:
    folder = data if (data / "wnids.txt").is_file() else data / "tiny-imagenet-200"
    if not (folder / "wnids.txt").is_file():
        return None
    annotations = folder / "val" / "val_annotations.txt"
    if not annotations.is_file():
        raise DatasetError(f"{annotations} is missing: unpack tiny-imagenet-200.zip again, as it is")
    wnids = sorted((folder / "wnids.txt").read_text().split())
    if len(wnids) != facts.classes:
        raise DatasetError(f"{folder / 'wnids.txt'} lists {len(wnids)} classes, not {facts.classes}: unpack it again")
    train = [(path, wnid) for wnid in wnids for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))]
    rows = [line.split("\t") for line in annotations.read_text().splitlines()]
    test = [(folder / "val" / "images" / row[0], row[1]) for row in rows]

    def read(progress: Progress | None) -> RawDataset:
        meter = Meter(progress, len(train) + len(test))
        splits = []
        for split, part in (("training", train), ("validation", test)):
            if strange := {wnid for _, wnid in part} - set(wnids):
                raise DatasetError(f"{annotations} names {min(strange)}, which wnids.txt does not: unpack it again")
            labels = np.array([wnids.index(wnid) for _, wnid in part], dtype=np.int64)
            _check_labels(labels, len(wnids), f"the {split} images of {folder}")
            items = ((str(path), path) for path, _ in part)
            splits.append(RawSplit(decode(items, len(part), facts.channels, facts.image_size, meter), labels))
        return RawDataset(train=splits[0], test=splits[1], class_names=tuple(wnids))

    if missing := next((path for path, _ in test if not path.is_file()), None):
        raise DatasetError(f"{missing} is missing, which {annotations.name} lists: unpack tiny-imagenet-200.zip again")
    files = [annotations, folder / "wnids.txt", *(path for path, _ in (*train, *test))]
    return Source(_fingerprint(folder, files), read)


# -- Parquet


def _find_parquet(facts: DatasetFacts | None, data: Path) -> Source | None:
    train = _shards(data, "train")
    test = _shards(data, "test") or _shards(data, "val")
    if not train or not test:
        return None
    return Source(_fingerprint(data, [*train, *test]), functools.partial(_read_parquet, facts, train, test))


def _shards(folder: Path, prefix: str) -> list[Path]:
    """Return a split's files in order; refuse a set of numbered shards of which some are missing."""
    files = sorted(folder.glob(f"{prefix}*.parquet"))
    numbered = [match for path in files if (match := re.search(r"-\d+-of-(\d+)\.parquet$", path.name))]
    if numbered and len(files) != int(numbered[0][1]):
        raise DatasetError(
            f"{folder} must hold all the {int(numbered[0][1])} files that {numbered[0].string} counts, but has "
            f"{len(files)} of {prefix}*.parquet: add the missing ones or remove the foreign ones"
        )
    return files


def _read_parquet(
    facts: DatasetFacts | None, train: list[Path], test: list[Path], progress: Progress | None
) -> RawDataset:
    labels = [np.concatenate([_labels_of(path) for path in files]) for files in (train, test)]
    class_names = _class_names(train[0])
    if facts is not None:
        classes, channels, size = facts.classes, facts.channels, facts.image_size
    else:
        classes = len(class_names) if class_names else int(labels[0].max(initial=0)) + 1
        channels, size = 3, _size_of_first(train[0])
    if class_names is None:
        class_names = tuple(f"class {label}" for label in range(classes))
    if len(class_names) != classes:
        raise DatasetError(f"{train[0]} names {len(class_names)} classes, not {classes}: is it another dataset?")
    if all(re.fullmatch(r"n\d{8}", name) for name in class_names) and list(class_names) != sorted(class_names):
        raise DatasetError(f"{train[0]} numbers its WordNet ids out of order: number the labels by the sorted ids")
    for files, part in ((train, labels[0]), (test, labels[1])):
        _check_labels(part, classes, f"{files[0]}" if len(files) == 1 else f"{files[0]} and its fellows")
    meter = Meter(progress, sum(map(len, labels)))
    splits = [
        RawSplit(decode(itertools.chain.from_iterable(map(_rows, files)), len(part), channels, size, meter), part)
        for files, part in ((train, labels[0]), (test, labels[1]))
    ]
    return RawDataset(train=splits[0], test=splits[1], class_names=class_names)


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; what Arrow finds wrong with it becomes a DatasetError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path} is damaged or no Parquet file ({str(error).splitlines()[0]}): fetch it again"
        ) from error


def _column(file: Any, path: Path, candidates: tuple[str, ...]) -> str:
    present = file.schema_arrow.names
    for name in candidates:
        if name in present:
            return name
    raise DatasetError(
        f"{path} has no column {' or '.join(candidates)}, only {', '.join(present)}: rename the one meant"
    )


def _label_column(file: Any, path: Path) -> str:
    return _column(file, path, ("label", "labels", "fine_label"))


def _labels_of(path: Path) -> np.ndarray:
    import pyarrow as pa

    with _open_parquet(path) as file:
        name = _label_column(file, path)
        column = file.read(columns=[name]).column(0)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise DatasetError(f"column {name} of {path} must hold an integer a row, not {column.type}, not null")
        return np.array(column.to_pylist(), dtype=np.int64)


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Return the names in the schema metadata: `class_names`, comma-joined, or what the Hugging Face hub writes."""
    with _open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
        if b"class_names" in metadata:
            return tuple(metadata[b"class_names"].decode().split(","))
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = features.get(_label_column(file, path), {}).get("names")
        return tuple(names) if names else None


def _rows(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Give what each row is called in messages, and its encoded image."""
    import pyarrow as pa

    with _open_parquet(path) as file:
        name = _column(file, path, ("image", "img"))
        number = itertools.count()
        for batch in file.iter_batches(batch_size=PARQUET_BATCH, columns=[name]):
            column = batch.column(0)
            if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
                column = column.field("bytes")
            if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
                raise DatasetError(f"column {name} of {path} must hold encoded images as bytes, not {column.type}")
            for value in column.to_pylist():
                yield f"{path} row {next(number)}", value


def _size_of_first(path: Path) -> int:
    from PIL import Image

    for where, encoded in _rows(path):
        with image_errors(where), Image.open(io.BytesIO(encoded or b"")) as image:
            return int(image.width)
    raise DatasetError(f"{path} has no rows: remove it, or put images into it")


# -- checking


def _check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    present = np.unique(labels)
    if len(present) and (present[0] < 0 or present[-1] >= classes):
        wrong = present[0] if present[0] < 0 else present[-1]
        raise DatasetError(f"labels must be 0 to {classes - 1}, but {where} has {wrong}: is it another dataset?")
    if len(present) < classes:
        missing = int(np.setdiff1d(np.arange(classes), present)[0])
        raise DatasetError(f"every class must occur, but {where} has none of class {missing}: complete the files")
