"""Folders of image files: Tiny ImageNet as published, and any dataset with one folder per class."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.catalog import FOLDER, DatasetFacts, own_facts
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
    list_folders,
)
from trainables.errors import DatasetError

__all__ = ["find_folder", "find_tiny_imagenet"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in upper or lower case: those of torchvision's ImageFolder."""

_Labelled = Sequence[tuple[FoundFile, int]]
"""Image files and their labels, in the order of a split's rows."""


def find_tiny_imagenet(facts: DatasetFacts, data: Path) -> Source | None:
    """Find Tiny ImageNet as published: classes in the order of the sorted WordNet ids, validation images as test."""
    folder = data if (data / "wnids.txt").is_file() else data / "tiny-imagenet-200"
    lists = list_files(folder, {"wnids.txt"}.__contains__)
    if not lists:
        return None
    annotations = list_files(folder / "val", {"val_annotations.txt"}.__contains__)
    if not annotations:
        raise DatasetError(f"{folder / 'val' / 'val_annotations.txt'} is missing: unpack tiny-imagenet-200.zip again")
    wnids = sorted(lists[0].path.read_text(encoding="utf-8").split())
    if len(wnids) != facts.classes:
        raise DatasetError(f"{lists[0].path} lists {len(wnids)} classes, not {facts.classes}: unpack it again")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = [
        (file, label)
        for wnid, label in label_of.items()
        for file in list_files(folder / "train" / wnid / "images", lambda name: name.endswith(".JPEG"))
    ]
    images = folder / "val" / "images"
    by_name = {file.path.name: file for file in list_files(images, lambda name: name.endswith(".JPEG"))}
    test = []
    for line in annotations[0].path.read_text(encoding="utf-8").splitlines():
        name, wnid = line.split("\t")[:2]
        if name not in by_name:
            missing = f"{images / name} is missing, which {annotations[0].path.name} lists"
            raise DatasetError(f"{missing}: unpack tiny-imagenet-200.zip again")
        if wnid not in label_of:
            raise DatasetError(f"{annotations[0].path} names {wnid}, which wnids.txt does not: unpack it again")
        test.append((by_name[name], label_of[wnid]))
    parts = {f"the training images of {folder}": train, f"the validation images of {folder}": test}
    counted = replace(facts, train_images=len(train), test_images=len(test))
    return _source(counted, folder, parts, tuple(wnids), beside=(*annotations, *lists))


def find_folder(data: Path) -> Source | None:
    """Find a folder `train/CLASS/…` and `test/CLASS/…` (or `val/CLASS/…`).

    Classes and files are those of torchvision's ImageFolder, in its order: classes by name, images at any depth. The
    reader is ours, because torchvision's loads torch, which a plan must not, and accesses every file once more.
    """
    train = data / "train"
    test = next((folder for folder in (data / "test", data / "val") if folder.is_dir()), None)
    if not train.is_dir() or test is None:
        return None
    class_names, test_names = list_folders(train), list_folders(test)
    if unpaired := sorted(set(test_names).symmetric_difference(class_names)):
        present, absent = (test, train) if unpaired[0] in test_names else (train, test)
        raise DatasetError(
            f"{present / unpaired[0]} has no counterpart in {absent}: every class needs a folder of its name in both"
        )
    parts = {str(folder): _labelled(folder, class_names) for folder in (train, test)}
    train_files, test_files = parts.values()
    if not train_files:
        raise DatasetError(f"{train} holds no images in class folders: put some into {train}/CLASS")
    facts = own_facts(
        FOLDER,
        classes=len(class_names),
        image_size=side_of(Picture(str(file.path), file.path) for file, _ in train_files),
        train_images=len(train_files),
        test_images=len(test_files),
    )
    return _source(facts, data, parts, tuple(class_names))


def _labelled(folder: Path, class_names: Sequence[str]) -> _Labelled:
    """Return a split's image files and their labels, ordered by class, folder and name."""
    return [
        (file, label)
        for label, name in enumerate(class_names)
        for file in sorted(
            list_files(folder / name, _is_image, below=True), key=lambda file: (str(file.path.parent), file.path.name)
        )
    ]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _source(
    facts: DatasetFacts,
    folder: Path,
    parts: Mapping[str, _Labelled],
    class_names: tuple[str, ...],
    beside: Sequence[FoundFile] = (),
) -> Source:
    """Return the source of labelled files below a folder.

    Args:
        facts: The dataset's facts.
        folder: The folder of all files.
        parts: The training files and the test files, by their names in messages.
        class_names: The classes' names, by label.
        beside: Files that list the dataset's files; part of the fingerprint.
    """

    def open_split(where: str, part: _Labelled) -> FoundSplit:
        labels = np.array([label for _, label in part], dtype=np.int64)
        check_labels(labels, facts.classes, where)
        return FoundSplit(
            where=where, labels=labels, pictures=lambda: (Picture(str(file.path), file.path) for file, _ in part)
        )

    def open_images() -> FoundImages:
        train, test = (open_split(where, part) for where, part in parts.items())
        return FoundImages(train=train, test=test, class_names=class_names)

    files = (*beside, *(file for part in parts.values() for file, _ in part))
    return Source(facts=facts, fingerprint=fingerprint(folder, files), open=open_images)
