"""Folders of image files, one for each class, in folders of the splits or without."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from trainables.data.source import FoundFile, Picture, name_of, shown
from trainables.data.splits import NO_LABEL, Layout, Part, split_named
from trainables.data.tree import OTHER, Folder
from trainables.errors import DatasetError

__all__ = ["find_image_folders", "is_image"]

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""Suffixes of image files, in upper or lower case: those of torchvision's ImageFolder, and .gif and .jfif."""


def is_image(name: str) -> bool:
    """Return whether a file of this name is an image."""
    return Path(name).suffix.lower() in SUFFIXES


def find_image_folders(tree: Folder, skipped: Mapping[str, int]) -> Layout | None:
    """Find folders of image files: `train/CLASS/…` and perhaps other splits, or `CLASS/…` alone.

    Classes and files are those of torchvision's ImageFolder, in its order: classes by name, images at any depth. Single
    folders around the splits or the classes are looked through.

    Args:
        tree: The folder; files that are no images are ignored.
        skipped: What was left out while it was listed.

    Raises:
        DatasetError: The folders are several datasets, or have no classes.
    """
    images = tree.only(lambda file: is_image(file.path.name))
    if not images.count:
        return None
    counts = Counter(skipped)
    counts["not an image"] = counts.pop(OTHER, 0) + tree.count - images.count
    root, notes = _unwrapped(images, _has_no_splits)
    splits = _splits(root)
    if splits is None:
        _refuse_several(root)
        splits = {"train": root}
        words = "a folder of each class, without folders of splits"
    else:
        words = "folders " + ", ".join(f"{shown(folder.name)}/CLASS" for folder in splits.values())
        if others := [shown(folder.name) for folder in root.filled if folder not in splits.values()]:
            notes.append(f"{shown(root.path)}: {', '.join(others)} beside the folders of the splits is not used")
            counts["in no split"] += sum(folder.count for folder in root.filled if folder not in splits.values())
    inner: dict[str, Folder] = {}
    classes: set[str] = set()
    for split, folder in splits.items():  # train comes first
        inner[split], more = _unwrapped(folder, functools.partial(_is_no_class, classes))
        if split == "train":
            classes |= {each.name for each in inner[split].filled}
        notes += more
        if inner[split].filled and inner[split].files:
            counts["in no class"] += len(inner[split].files)
    if root.files and root not in inner.values():
        counts["in no class"] += len(root.files)
    return Layout(
        folder=tree.path,
        words=words,
        parts={split: functools.partial(_part, folder, split, classes) for split, folder in inner.items()},
        skipped=counts,
        notes=tuple(notes),
    )


def _unwrapped(folder: Folder, wraps: Callable[[Folder], bool]) -> tuple[Folder, list[str]]:
    """Return the folder inside folders that hold nothing but one folder of folders, and what there is to say."""
    start = folder
    while len(folder.filled) == 1 and not folder.files and folder.filled[0].filled and wraps(folder):
        folder = folder.filled[0]
    return folder, [] if folder is start else [f"{shown(start.path)} holds only {shown(folder.path)}, which was read"]


def _has_no_splits(folder: Folder) -> bool:
    return not any(split_named(inner.name) for inner in folder.filled)


def _is_no_class(classes: set[str], folder: Folder) -> bool:
    """Return whether the only folder in a folder of the test split is none of the classes."""
    return folder.filled[0].name not in classes


def _splits(root: Folder) -> dict[str, Folder] | None:
    """Return the folders of the splits; None if the folders are classes, of which one may be called train.

    Raises:
        DatasetError: Two folders are one split.
    """
    named = [folder for folder in root.filled if split_named(folder.name)]
    if not named or (not any(folder.filled for folder in named) and len(named) < len(root.filled)):
        return None
    splits: dict[str, Folder] = {}
    for folder in named:
        split = str(split_named(folder.name))
        if split in splits:
            raise DatasetError(
                f"{shown(root.path)} has two {split} splits, {shown(splits[split].name)} and {shown(folder.name)}: "
                "move one away"
            )
        splits[split] = folder
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _refuse_several(root: Folder) -> None:
    """Refuse folders that are datasets themselves."""
    for folder in root.filled:
        if any(split_named(inner.name) == "train" and inner.filled for inner in folder.filled):
            raise DatasetError(
                f"{shown(root.path)} holds {len(root.filled)} folders, of which {shown(folder.name)} has a train split "
                f"itself: give --data one dataset, such as {shown(folder.path)}"
            )
        if len(splits := {split_named(inner.name) for inner in folder.filled} - {None}) > 1 and "train" in splits:
            raise DatasetError(
                f"{shown(folder.path)} has folders of splits, but a class is inside a split: move its images to "
                f"{shown(root.path)}/train/{shown(folder.name)} and the like"
            )


def _part(folder: Folder, split: str, train_classes: set[str]) -> Part:
    """Read the classes of a split's folder.

    Raises:
        DatasetError: The train split has images in no class folder.
    """
    classes = [inner.name for inner in folder.folders if inner.count or split == "train"]
    if not classes and split == "train":
        raise DatasetError(
            f"{shown(folder.path)} holds {len(folder.files):,} images in no class folder: put them into "
            f"{shown(folder.path)}/CLASS, a folder for each class"
        )
    # Published test splits without labels: images side by side, perhaps in one folder of any name.
    lone = len(classes) == 1 and not folder.filled[0].filled and classes[0] not in train_classes
    if split != "train" and (not classes or lone):
        files = [*folder.files, *(folder.filled[0].files if lone else ())]
        codes, names = np.full(len(files), NO_LABEL, dtype=np.int64), []
    else:
        labelled = [
            (file, label)
            for label, inner in enumerate(inner for inner in folder.folders if inner.name in set(classes))
            for file in sorted(inner.below(), key=lambda file: (str(file.path.parent), file.path.name))
        ]
        files, codes = [file for file, _ in labelled], np.array([label for _, label in labelled], dtype=np.int64)
        names = classes
    return Part(
        where=shown(folder.path),
        codes=codes,
        classes=tuple(map(name_of, names)),
        pictures=lambda: _pictures(files),
        files=files,
    )


def _pictures(files: Sequence[FoundFile]) -> Iterator[Picture]:
    """Yield image files."""
    return (Picture(shown(file.path), file.path) for file in files)
