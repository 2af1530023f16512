"""Columns of labels in Arrow tables, of Parquet files or of saved datasets; their names and numbers become classes."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.source import shown
from trainables.data.splits import NO_LABEL
from trainables.errors import DatasetError

__all__ = [
    "LABELS",
    "FileLabels",
    "arrow_errors",
    "class_names",
    "column",
    "merged",
    "names_in",
    "read_labels",
]

LABELS = ("label", "labels", "fine_label", "target", "targets", "class", "classes", "class_label", "category", "y")
"""Names of the columns in datasets of one's own, in any case of letters; the first that is there is taken."""

Value = int | bool | str


@dataclass(frozen=True, kw_only=True)
class FileLabels:
    """The labels of one file."""

    where: str
    codes: np.ndarray
    """int64 [n]: each row's place in `values`, or NO_LABEL."""
    values: Sequence[Value]
    """The distinct labels, as they are in the file."""
    names: tuple[str, ...] | None
    """The class names in the file's metadata, numbered by whole numbers from 0."""


@contextmanager
def arrow_errors(path: Path, kind: str) -> Iterator[None]:
    """Turn Arrow's errors into a DatasetError that names the file; `kind` is what the file should be."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DatasetError(f"{shown(path)} is damaged or not {kind} ({reason}): fetch it again") from error


def column(schema: Any, where: str, candidates: Sequence[str]) -> str:
    """Return the name of the first of the candidates that a schema has.

    Raises:
        DatasetError: It has none; lists its columns.
    """
    names: list[str] = schema.names
    present = {name.lower(): name for name in reversed(names)}
    for name in candidates:
        if name in names:
            return name
        if name in present:
            return present[name]
    raise DatasetError(f"{where} has no column {' or '.join(candidates)}, only {', '.join(names)}: rename the column")


def class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """Return the class names in a schema's metadata: `class_names`, comma-joined, or the Hugging Face features."""
    metadata = metadata or {}
    try:
        if b"class_names" in metadata:
            return tuple(metadata[b"class_names"].decode().split(","))
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return names_in(features, label)
    except (ValueError, LookupError, TypeError):
        return None  # metadata of another kind


def names_in(features: Any, label: str) -> tuple[str, ...] | None:
    """Return the names of a ClassLabel in Hugging Face features."""
    try:
        names = features[label]["names"]
    except (LookupError, TypeError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def read_labels(arrays: Iterable[Any], where: str, name: str, names: tuple[str, ...] | None) -> FileLabels:
    """Read a label column in batches: whole numbers, strings or booleans, also dictionary-encoded.

    Memory: 8 bytes a row, and the distinct labels.

    Args:
        arrays: The column's Arrow arrays.
        where: The file's name in messages.
        name: The column's.
        names: The class names in the file's metadata.

    Raises:
        DatasetError: The column holds something else.
    """
    import pyarrow as pa

    found: dict[tuple[str, Value], int] = {}
    parts = [np.empty(0, dtype=np.int64)]
    for array in arrays:
        of = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if pa.types.is_null(of):
            parts.append(np.full(len(array), NO_LABEL, dtype=np.int64))
            continue
        text = pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of)
        if not (text or pa.types.is_integer(of) or pa.types.is_boolean(of)):
            raise DatasetError(
                f"column {name} of {where} must hold one whole number, string or boolean per row, not {of}"
            )
        if not pa.types.is_dictionary(array.type):
            array = (array.cast(pa.large_string()) if text else array).dictionary_encode()
        values = [
            NO_LABEL if value is None else found.setdefault((type(value).__name__, value), len(found))
            for value in array.dictionary.to_pylist()
        ]
        places = array.indices.cast(pa.int64()).fill_null(len(values)).to_pylist()
        parts.append(np.array([*values, NO_LABEL], dtype=np.int64)[np.array(places, dtype=np.int64)])
    return FileLabels(where=where, codes=np.concatenate(parts), values=[value for _, value in found], names=names)


def merged(files: Sequence[FileLabels], default: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels of the files of a split as one, matched by name.

    Args:
        files: The labels of each file, in order.
        default: The names of classes for files without any.

    Returns:
        Each row's class, int64 [n], as its place in the classes or NO_LABEL; and the names of the classes: in the order
        of the metadata, or else that of the sorted labels.

    Raises:
        DatasetError: A number has no name in the metadata, or two have one.
    """
    tables, order, plain = [], dict[str, None](), dict[tuple[str, Value], None]()
    for file in files:
        names = file.names or default
        if names is not None and len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DatasetError(f"{file.where} names two classes {twice!r}: rename one")
        numbered = names is not None and all(type(value) is int for value in file.values)
        if numbered:
            assert names is not None
            order |= dict.fromkeys(names)
            tables.append([_name_of(value, names, file.where) for value in file.values])
        else:
            plain |= dict.fromkeys((type(value).__name__, value) for value in file.values)
            tables.append([str(value) for value in file.values])
            if names and {str(value) for value in file.values} <= set(names):
                order |= dict.fromkeys(names)
    order |= dict.fromkeys(str(value) for _, value in sorted(plain))
    place = {name: number for number, name in enumerate(order)}
    codes = [
        np.array([*(NO_LABEL if name is None else place[name] for name in table), NO_LABEL], dtype=np.int64)[file.codes]
        for file, table in zip(files, tables, strict=True)
    ]
    return np.concatenate(codes), tuple(order)


def _name_of(value: Value, names: tuple[str, ...], where: str) -> str | None:
    """Return the name of a number; None: -1, which is no label."""
    number = int(value)
    if number == NO_LABEL:
        return None
    if not 0 <= number < len(names):
        raise DatasetError(
            f"labels must be 0 to {len(names) - 1}, as {where} names {len(names)} classes, but it has {number}: "
            "correct the label or the names"
        )
    return names[number]
