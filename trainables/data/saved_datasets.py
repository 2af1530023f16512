"""Folders that the Hugging Face library's `save_to_disk` writes: Arrow streams of a dataset, or of each split."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.data.columns import (
    LABELS,
    FileLabels,
    arrow_errors,
    class_names,
    column,
    merged,
    names_in,
    read_labels,
)
from trainables.data.image_columns import IMAGES, is_grey, pictures
from trainables.data.source import FoundFile, Picture, shown
from trainables.data.splits import Layout, Part, split_named
from trainables.data.tree import OTHER, Folder
from trainables.errors import DatasetError

__all__ = ["find_saved_dataset"]


def find_saved_dataset(tree: Folder, skipped: Mapping[str, int]) -> Layout | None:
    """Find a saved dataset: a folder with state.json and Arrow files, or one such folder for each split.

    Args:
        tree: The folder; other files are ignored.
        skipped: What was left out while it was listed.

    Raises:
        DatasetError: A file that state.json names is missing, no folder is the train split, or a column is missing.
    """
    if (tree.path / "state.json").is_file():
        folders = {"train": tree}
    else:
        folders = {
            split: folder
            for folder in tree.folders
            if (split := split_named(folder.name)) and (folder.path / "state.json").is_file()
        }
    if not folders:
        return None
    files = {split: _files(folder) for split, folder in folders.items()}
    first = next(part[0].path for part in files.values())
    with _open_stream(first) as reader:
        grey = is_grey(reader.schema.field(column(reader.schema, shown(first), IMAGES)).type)
    counts = Counter(skipped)
    counts[OTHER] += tree.count - sum(map(len, files.values()))
    return Layout(
        folder=tree.path,
        words="a dataset that the Hugging Face library saved (save_to_disk)",
        parts={split: functools.partial(_part, folders[split].path, part) for split, part in files.items()},
        skipped=counts,
        channels=1 if grey else 3,
    )


def _files(folder: Folder) -> list[FoundFile]:
    """Return the Arrow files that a folder's state.json names, in its order."""
    present = {file.path.name: file for file in folder.files}
    names = [entry.get("filename") for entry in _json(folder.path / "state.json").get("_data_files", [])]
    if missing := [name for name in names if name not in present]:
        raise DatasetError(
            f"{shown(folder.path)} lacks {missing[0]}, which its state.json names: copy the folder again"
        )
    if not names:
        raise DatasetError(f"{shown(folder.path / 'state.json')} names no Arrow files: save the dataset again")
    return [present[name] for name in names]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{shown(path)} cannot be read ({error}): save the dataset again") from error
    return content


def _part(folder: Path, files: Sequence[FoundFile]) -> Part:
    paths = [file.path for file in files]
    info = folder / "dataset_info.json"
    features = _json(info).get("features") if info.is_file() else None
    codes, classes = merged([_labels(path, features) for path in paths], None)
    return Part(
        where=shown(folder),
        codes=codes,
        classes=classes,
        pictures=lambda: (picture for path in paths for picture in _rows(path)),
        files=files,
    )


@contextmanager
def _open_stream(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with arrow_errors(path, "an Arrow stream"), pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield reader


def _labels(path: Path, features: Any) -> FileLabels:
    with _open_stream(path) as reader:
        name = column(reader.schema, shown(path), LABELS)
        names = names_in(features, name) or class_names(reader.schema.metadata, name)
        return read_labels((batch.column(name) for batch in reader), shown(path), name, names)


def _rows(path: Path) -> Iterator[Picture]:
    with _open_stream(path) as reader:
        name = column(reader.schema, shown(path), IMAGES)
        first = 0
        for batch in reader:
            yield from pictures(batch.column(name), shown(path), name, path.parent, first)
            first += len(batch)
