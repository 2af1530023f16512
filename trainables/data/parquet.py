"""Parquet files of encoded images: shards per split, the columns and class names that publishers use."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.catalog import PARQUET, DatasetFacts, own_facts
from trainables.data.decoding import side_of
from trainables.data.source import (
    FoundFile,
    FoundImages,
    FoundSplit,
    Picture,
    Source,
    check_labels,
    fingerprint,
    list_files,
)
from trainables.errors import DatasetError

__all__ = ["PARQUET_BATCH", "find_parquet"]

PARQUET_BATCH = 2048  # rows whose encoded bytes are in memory at once


def find_parquet(facts: DatasetFacts | None, data: Path) -> Source | None:
    """Find Parquet files in a folder; without facts, read them from the labels, the class names and the first image."""
    files = list_files(data, lambda name: name.endswith(".parquet"))
    shards = {prefix: _shards(data, prefix, files) for prefix in ("train", "test", "val")}
    train_files, test_files = shards["train"], shards["test"] or shards["val"]
    if not train_files or not test_files:
        return None
    train, test = ([file.path for file in part] for part in (train_files, test_files))
    if facts:  # with the counts of these files, which may hold a part of the published images
        known = replace(facts, train_images=_rows_in(train), test_images=_rows_in(test))
    else:
        known = _own_facts(train, test)

    return Source(
        facts=known,
        fingerprint=fingerprint(data, [*train_files, *test_files]),
        open=lambda: _open_images(known, train, test),
    )


def _shards(folder: Path, prefix: str, present: Sequence[FoundFile]) -> list[FoundFile]:
    """Return a split's files in order; refuse numbered shards if some are missing."""
    files = [file for file in present if file.path.name.startswith(prefix)]
    numbered = [match for file in files if (match := re.search(r"-\d+-of-(\d+)\.parquet$", file.path.name))]
    if numbered and len(files) != int(numbered[0][1]):
        raise DatasetError(
            f"{folder} must hold all the {int(numbered[0][1])} files that {numbered[0].string} counts, but has "
            f"{len(files)} of {prefix}*.parquet: add the missing ones or remove those of other datasets"
        )
    return files


def _rows_in(files: Sequence[Path]) -> int:
    """Return the number of rows of all files, from their footers."""
    rows = 0
    for path in files:
        with _open_parquet(path) as file:
            rows += file.metadata.num_rows
    return rows


def _own_facts(train: list[Path], test: list[Path]) -> DatasetFacts:
    labels, class_names = _labels_of_all(train), _class_names(train[0])
    return own_facts(
        PARQUET,
        classes=len(class_names) if class_names else int(labels.max(initial=0)) + 1,
        image_size=side_of(itertools.chain.from_iterable(map(_rows, train))),
        train_images=len(labels),
        test_images=len(_labels_of_all(test)),
    )


def _open_images(facts: DatasetFacts, train: list[Path], test: list[Path]) -> FoundImages:
    splits = _open_split(train), _open_split(test)
    class_names = _class_names(train[0]) or tuple(f"class {label}" for label in range(facts.classes))
    if len(class_names) != facts.classes:
        raise DatasetError(f"{train[0]} names {len(class_names)} classes, not {facts.classes}: is it another dataset?")
    if all(re.fullmatch(r"n\d{8}", name) for name in class_names) and list(class_names) != sorted(class_names):
        raise DatasetError(f"{train[0]} numbers its WordNet ids out of order: number the labels by the sorted ids")
    for split in splits:
        check_labels(split.labels, facts.classes, split.where)
    return FoundImages(train=splits[0], test=splits[1], class_names=class_names)


def _open_split(files: list[Path]) -> FoundSplit:
    return FoundSplit(
        where=f"{files[0]}" if len(files) == 1 else f"{files[0]} and the other files",
        labels=_labels_of_all(files),
        pictures=lambda: itertools.chain.from_iterable(map(_rows, files)),
    )


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """Open a Parquet file; Arrow's errors become a DatasetError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path} is damaged or not a Parquet file ({str(error).splitlines()[0]}): fetch it again"
        ) from error


def _column(file: Any, path: Path, candidates: tuple[str, ...]) -> str:
    present = file.schema_arrow.names
    for name in candidates:
        if name in present:
            return name
    raise DatasetError(f"{path} has no column {' or '.join(candidates)}, only {', '.join(present)}: rename the column")


def _label_column(file: Any, path: Path) -> str:
    return _column(file, path, ("label", "labels", "fine_label"))


def _labels_of(path: Path) -> np.ndarray:
    import pyarrow as pa

    with _open_parquet(path) as file:
        name = _label_column(file, path)
        column = file.read(columns=[name]).column(0)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise DatasetError(f"column {name} of {path} must hold one integer per row, not {column.type}, not null")
        return np.array(column.to_pylist(), dtype=np.int64)


def _labels_of_all(files: list[Path]) -> np.ndarray:
    return np.concatenate([_labels_of(path) for path in files])


def _class_names(path: Path) -> tuple[str, ...] | None:
    """Return the class names in the schema metadata: `class_names`, comma-joined, or the Hugging Face features."""
    with _open_parquet(path) as file:
        metadata = file.schema_arrow.metadata or {}
        if b"class_names" in metadata:
            return tuple(metadata[b"class_names"].decode().split(","))
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = features.get(_label_column(file, path), {}).get("names")
        return tuple(names) if names else None


def _rows(path: Path) -> Iterator[Picture]:
    """Yield every row's image."""
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
                yield Picture(f"{path} row {next(number)}", value)
