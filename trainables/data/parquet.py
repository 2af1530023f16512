"""Parquet files of images: of a catalogued dataset, or of one's own; shards of splits, wherever publishers put them."""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.catalog import DatasetFacts
from trainables.data.columns import (
    LABELS,
    FileLabels,
    arrow_errors,
    class_names,
    column,
    merged,
    read_labels,
)
from trainables.data.image_columns import IMAGES, is_grey, pictures
from trainables.data.image_folders import is_image
from trainables.data.source import (
    Findings,
    FoundFile,
    FoundImages,
    FoundSplit,
    Picture,
    Source,
    check_labels,
    fingerprint,
    list_files,
    shown,
)
from trainables.data.splits import Layout, Part, counts_text, files_by_split
from trainables.data.tree import OTHER, Folder, walk
from trainables.errors import DatasetError

__all__ = ["find_parquet", "find_parquet_layout"]

_ROWS, _BYTES = 2048, 64 * 2**20  # rows, and bytes of them, that are in memory at once
_LABEL_ROWS = 2**17
_PUBLISHED_IMAGES, _PUBLISHED_LABELS = ("image", "img"), ("label", "labels", "fine_label")
"""Names of the columns in catalogued datasets."""


def find_parquet(facts: DatasetFacts, data: Path) -> Source | None:
    """Find a catalogued dataset's Parquet files: train*.parquet and test*.parquet (or val*.parquet) in a folder.

    Without these it finds the files of the hub's layouts, at any depth.
    """
    files = list_files(data, lambda name: name.endswith(".parquet"))
    splits = {
        split: [file for file in files if file.path.name.startswith(prefix)]
        for split, prefix in (("train", "train"), ("test", "test"), ("validation", "val"))
    }
    for split, part in splits.items():
        _check_complete(data, part, f"the {split} split")
    if not splits["train"]:
        tree, _ = walk(data, lambda name: name.endswith(".parquet"))
        for split, part in files_by_split(data, tree.below(), unnamed="").items():
            splits.setdefault(split, []).extend(part)
        for split in ("train", "test", "validation"):
            _one_dataset(data, split, splits[split])
    test_from = "test" if splits["test"] else "validation"
    train_files, test_files = splits["train"], splits[test_from]
    if not train_files or not test_files:
        return None
    train, test = ([file.path for file in part] for part in (train_files, test_files))
    return Source(
        facts=replace(facts, train_images=_count(train), test_images=_count(test)),
        fingerprint=fingerprint(data, [*train_files, *test_files]),
        open=lambda: _open_catalogued(facts, train, test),
        findings=Findings(
            layout=f"Parquet files: {len(train)} of train, {len(test)} of {test_from}",
            skipped={},
            test_from=test_from,
            notes=(),
        ),
    )


def find_parquet_layout(tree: Folder, skipped: Mapping[str, int]) -> Layout | None:
    """Find Parquet files of a dataset of one's own, at any depth, as the Hugging Face hub lays them out.

    Files whose names and folders name no split are train.

    Args:
        tree: The folder; other files are ignored.
        skipped: What was left out while it was listed.

    Raises:
        DatasetError: The files are those of several datasets, shards are missing, or a column is missing.
    """
    files = [file for file in tree.below() if file.path.suffix.lower() == ".parquet"]
    if not files:
        return None
    splits = files_by_split(tree.path, files, unnamed="train")
    for split, part in splits.items():
        _one_dataset(tree.path, split, part)
    first = files[0].path
    with _open_parquet(first) as opened:
        name = column(opened.schema_arrow, shown(first), IMAGES)
        grey = is_grey(opened.schema_arrow.field(name).type)
    named = [] if isinstance(next(_rows(first, IMAGES), Picture("", b"")).content, bytes) else [
        file for file in tree.below() if is_image(file.path.name)
    ]  # fmt: skip
    counts = Counter(skipped)
    counts[OTHER] += tree.count - len(files) - len(named)

    @functools.cache
    def names() -> tuple[str, ...] | None:
        return next((found for file in files if (found := _names(file.path, LABELS))), None)

    def part_of(split: str, part: Sequence[FoundFile]) -> Part:
        paths = [file.path for file in part]
        codes, classes = merged([_labels(path, LABELS) for path in paths], names())
        return Part(
            where=_where(paths), codes=codes, classes=classes, pictures=lambda: _all_rows(paths, IMAGES),
            files=[*part, *named],
        )  # fmt: skip

    return Layout(
        folder=tree.path,
        words=f"Parquet files: {counts_text(splits)}",
        parts={split: functools.partial(part_of, split, part) for split, part in splits.items()},
        skipped=counts,
        channels=1 if grey else 3,
    )


def _one_dataset(folder: Path, split: str, files: Sequence[FoundFile]) -> None:
    """Refuse the files of a split if they are those of several datasets, or not all.

    Raises:
        DatasetError: Names the folders of the datasets, or how many files are missing.
    """
    # The hub's conversion puts many files of one split into folders train-part0, train-part1, …
    stems = {re.sub(r"-part\d+$", "", shown(file.path.parent.relative_to(folder))) for file in files}
    if len(stems) > 1:
        named = sorted(stems)
        raise DatasetError(
            f"{shown(folder)} holds Parquet files of the {split} split in {len(stems)} folders ({', '.join(named[:3])}"
            f"{' …' if len(named) > 3 else ''}): give --data the folder of one dataset"
        )
    _check_complete(folder, files, f"the {split} split")


def _check_complete(folder: Path, files: Sequence[FoundFile], what: str) -> None:
    """Refuse numbered shards if some are missing."""
    numbered = [match for file in files if (match := re.search(r"-\d+-of-(\d+)(-\w+)?\.parquet$", file.path.name))]
    if numbered and len(files) != int(numbered[0][1]):
        raise DatasetError(
            f"{shown(folder)} must hold all the {int(numbered[0][1])} files that {shown(numbered[0].string)} counts, "
            f"but has {len(files)} of {what}: add the missing ones or remove those of other datasets"
        )


def _open_catalogued(facts: DatasetFacts, train: list[Path], test: list[Path]) -> FoundImages:
    names = _names(train[0], _PUBLISHED_LABELS) or tuple(f"class {label}" for label in range(facts.classes))
    if len(names) != facts.classes:
        raise DatasetError(f"{train[0]} names {len(names)} classes, not {facts.classes}: is it another dataset?")
    if all(re.fullmatch(r"n\d{8}", name) for name in names) and list(names) != sorted(names):
        raise DatasetError(f"{train[0]} numbers its WordNet ids out of order: number the labels by the sorted ids")
    splits = []
    for files in (train, test):
        labels = np.concatenate([_in_order(_published_labels(path), path, names) for path in files])
        check_labels(labels, facts.classes, _where(files))
        splits.append(
            FoundSplit(
                where=_where(files), labels=labels, pictures=functools.partial(_all_rows, files, _PUBLISHED_IMAGES)
            )
        )
    return FoundImages(train=splits[0], test=splits[1], class_names=names)


def _in_order(labels: np.ndarray, path: Path, order: Sequence[str]) -> np.ndarray:
    """Return labels int64 [n] numbered by `order`; those of a file that names its classes in another order are matched.

    Raises:
        DatasetError: The file names other classes.
    """
    names = _names(path, _PUBLISHED_LABELS)
    if names is None or names == order or ((labels < 0) | (labels >= len(names))).any():
        return labels  # wrong labels are refused by their caller
    if sorted(names) != sorted(order):
        raise DatasetError(f"{path} names other classes than the first file: is it of another dataset?")
    numbers: np.ndarray = np.array([order.index(name) for name in names], dtype=np.int64)[labels]
    return numbers


def _published_labels(path: Path) -> np.ndarray:
    """Return the labels of a file of a catalogued dataset, int64 [n]: whole numbers in every row."""
    import pyarrow as pa

    found = _labels(path, _PUBLISHED_LABELS)
    with _open_parquet(path) as file:
        name = column(file.schema_arrow, shown(path), _PUBLISHED_LABELS)
        of = file.schema_arrow.field(name).type
    of = of.value_type if pa.types.is_dictionary(of) else of
    if not pa.types.is_integer(of) or (found.codes < 0).any():
        raise DatasetError(f"column {name} of {path} must hold one integer per row, not {of}, not null")
    values = np.array([min(max(int(value), -1), 2**62) for value in found.values], dtype=np.int64)  # uint64 too
    return np.asarray(values[found.codes])


def _count(files: Sequence[Path]) -> int:
    rows = 0
    for path in files:
        with _open_parquet(path) as file:
            rows += file.metadata.num_rows
    return rows


def _where(files: Sequence[Path]) -> str:
    return shown(files[0]) if len(files) == 1 else f"{shown(files[0])} and the other files"


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; Arrow's errors become a DatasetError."""
    import pyarrow.parquet as pq

    with arrow_errors(path, "a Parquet file"), pq.ParquetFile(path, memory_map=True) as file:
        yield file


def _labels(path: Path, candidates: Sequence[str]) -> FileLabels:
    with _open_parquet(path) as file:
        name = column(file.schema_arrow, shown(path), candidates)
        batches = file.iter_batches(batch_size=_LABEL_ROWS, columns=[name])
        names = class_names(file.schema_arrow.metadata, name)
        return read_labels((batch.column(0) for batch in batches), shown(path), name, names)


def _names(path: Path, candidates: Sequence[str]) -> tuple[str, ...] | None:
    with _open_parquet(path) as file:
        return class_names(file.schema_arrow.metadata, column(file.schema_arrow, shown(path), candidates))


def _all_rows(files: Sequence[Path], candidates: Sequence[str]) -> Iterator[Picture]:
    return itertools.chain.from_iterable(_rows(path, candidates) for path in files)


def _rows(path: Path, candidates: Sequence[str]) -> Iterator[Picture]:
    """Yield every row's image."""
    with _open_parquet(path) as file:
        name = column(file.schema_arrow, shown(path), candidates)
        mean = max(1, path.stat().st_size // max(1, file.metadata.num_rows))
        first = 0
        for batch in file.iter_batches(batch_size=min(_ROWS, 1 + _BYTES // mean), columns=[name]):
            yield from pictures(batch.column(0), shown(path), name, path.parent, first)
            first += len(batch)
