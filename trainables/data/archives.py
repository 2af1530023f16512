"""WebDataset's tar files: `key.jpg` beside `key.cls`, `key.txt` or `key.json`, in numbered shards of splits."""

import functools
import json
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.columns import LABELS, FileLabels, merged
from trainables.data.image_folders import SUFFIXES
from trainables.data.source import FoundFile, Picture, shown
from trainables.data.splits import NO_LABEL, Layout, Part, counts_text, files_by_split
from trainables.data.tree import OTHER, Folder, is_hidden
from trainables.errors import DatasetError

__all__ = ["find_archives"]

_LABEL_SUFFIXES = ("cls", "txt", "json")
_IN_JSON = ("cls", *LABELS)
_LONGEST_LABEL = 2**16  # bytes; a longer text is no class


@dataclass(kw_only=True)
class _Index:
    """Where the images of a tar file are."""

    names: list[str] = field(default_factory=list)
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    labels: list[int | str | None] = field(default_factory=list)
    others: int = 0
    """Files that are neither image nor label."""


def find_archives(tree: Folder, skipped: Mapping[str, int]) -> Layout | None:
    """Find tar files in WebDataset's form; a file whose name and folders name no split is train.

    Every file is read once from one end to the other, to index it.

    Args:
        tree: The folder; other files are ignored.
        skipped: What was left out while it was listed.

    Raises:
        DatasetError: The shards are in several folders, or a file is damaged, or a label is not understood.
    """
    files = [file for file in tree.below() if file.path.suffix.lower() == ".tar"]
    if not files:
        return None
    splits = files_by_split(tree.path, files, unnamed="train")
    for split, part in splits.items():
        if len(stems := {_stem(file) for file in part}) > 1:
            raise DatasetError(
                f"{shown(tree.path)} holds {' and '.join(sorted(stems)[:3])} of the {split} split: give --data the "
                "folder of one dataset, or give its shards one name and numbers"
            )
    indices = {file.path: _index(file.path) for file in files}
    if not any(index.names for index in indices.values()):
        return None
    counts = Counter(skipped)
    counts[OTHER] += tree.count - len(files)
    counts["neither image nor label, in a tar file"] += sum(index.others for index in indices.values())
    return Layout(
        folder=tree.path,
        words=f"WebDataset's tar files: {counts_text(splits)}",
        parts={split: functools.partial(_part, part, indices) for split, part in splits.items()},
        skipped=counts,
    )


def _stem(file: FoundFile) -> str:
    """Return a shard's folder and name without its number."""
    return shown(file.path.parent / re.sub(r"[-_.]?\d+(-of-\d+)?$", "", file.path.stem))


def _index(path: Path) -> _Index:
    """Read the headers and labels of a tar file.

    Raises:
        DatasetError: It is damaged, or a label is not understood.
    """
    index = _Index()
    of_key: dict[str, int] = {}
    labels: dict[str, int | str] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps a kilobyte for every file
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key, suffix = f"{folder}/{stem}", suffix.lower()
                if not member.isreg() or any(map(is_hidden, member.name.split("/"))):
                    index.others += not member.isdir()
                elif f".{suffix}" in SUFFIXES and key not in of_key and not member.issparse():
                    of_key[key] = len(index.names)
                    index.names.append(shown(member.name))
                    index.offsets.append(member.offset_data)
                    index.sizes.append(member.size)
                elif suffix in _LABEL_SUFFIXES and member.size <= _LONGEST_LABEL:
                    content = archive.extractfile(member)
                    assert content is not None, "regular files have content"
                    label = _label(content.read(), suffix, f"{shown(path)}: {shown(member.name)}")
                    if suffix == "cls" or key not in labels:  # .cls is the class, a .txt beside it may be a caption
                        labels[key] = label
                else:
                    index.others += 1
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(
            f"{shown(path)} is damaged or no tar file ({error}): fetch it again, or unpack it if it is compressed"
        ) from error
    index.labels = [labels.get(key) for key in of_key]
    return index


def _label(content: bytes, suffix: str, where: str) -> int | str:
    """Return the label in a file: a whole number where the text is one.

    Raises:
        DatasetError: The file holds no label.
    """
    try:
        text: Any = content.decode().strip()
        if suffix == "json":
            entries = json.loads(text)
            text = next(entries[name] for name in _IN_JSON if name in entries)
            if not isinstance(text, int | str):
                raise ValueError
    except (ValueError, TypeError, StopIteration, RecursionError) as error:
        raise DatasetError(
            f"{where} holds no label: write a whole number or a name"
            + (f" as {', '.join(_IN_JSON[:4])} …" if suffix == "json" else "")
        ) from error
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", str(text)) else str(text)


def _part(files: Sequence[FoundFile], indices: Mapping[Path, _Index]) -> Part:
    paths = [file.path for file in files]
    codes, classes = merged([_labels(path, indices[path]) for path in paths], None)
    return Part(
        where=shown(paths[0]) if len(paths) == 1 else f"{shown(paths[0])} and the other files",
        codes=codes,
        classes=classes,
        pictures=lambda: (picture for path in paths for picture in _images(path, indices[path])),
        files=files,
    )


def _labels(path: Path, index: _Index) -> FileLabels:
    place = {
        value: number
        for number, value in enumerate(label for label in dict.fromkeys(index.labels) if label is not None)
    }
    codes = [NO_LABEL if label is None else place[label] for label in index.labels]
    return FileLabels(where=shown(path), codes=np.array(codes, dtype=np.int64), values=list(place), names=None)


def _images(path: Path, index: _Index) -> Iterator[Picture]:
    """Yield the encoded images of a tar file."""
    try:
        with path.open("rb") as file:
            for name, offset, size in zip(index.names, index.offsets, index.sizes, strict=True):
                file.seek(offset)
                yield Picture(f"{shown(path)}: {name}", file.read(size))
    except OSError as error:
        raise DatasetError(f"{shown(path)} cannot be read ({error}): fetch it again") from error
