"""Tiny ImageNet's folders: as published, or with the validation images sorted into folders of their classes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainables.data.catalog import DatasetFacts
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
)
from trainables.errors import DatasetError

__all__ = ["find_tiny_imagenet"]

_Labelled = Sequence[tuple[FoundFile, int]]
"""Image files and their labels, in the order of a split's rows."""


def find_tiny_imagenet(facts: DatasetFacts, data: Path) -> Source | None:
    """Find Tiny ImageNet as published: classes in the order of the sorted WordNet ids, validation images as test.

    The validation images may also be in folders of their classes, `val/CLASS/` or `val/images/CLASS/`.
    """
    folder = data if (data / "wnids.txt").is_file() else data / "tiny-imagenet-200"
    lists = list_files(folder, {"wnids.txt"}.__contains__)
    if not lists:
        return None
    wnids = sorted(lists[0].path.read_text(encoding="utf-8").split())
    if len(wnids) != facts.classes:
        raise DatasetError(f"{lists[0].path} lists {len(wnids)} classes, not {facts.classes}: unpack it again")
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    train = [(file, label) for wnid, label in label_of.items() for file in _images(folder / "train" / wnid / "images")]
    by_name = {file.path.name: file for file in _images(folder / "val" / "images")}
    annotations = list_files(folder / "val", {"val_annotations.txt"}.__contains__)
    if by_name and annotations:
        test, layout = list(_annotated(annotations[0].path, by_name, label_of)), "as published"
    else:
        sorted_into = next(
            (place for place in (folder / "val" / "images", folder / "val") if (place / wnids[0]).is_dir()), None
        )
        if sorted_into is None:
            raise DatasetError(
                f"{folder / 'val' / 'val_annotations.txt'} is missing: unpack tiny-imagenet-200.zip again"
                if by_name else f"{folder / 'val' / 'images'} has no images: unpack tiny-imagenet-200.zip again"
            )  # fmt: skip
        test = [(file, label) for wnid, label in label_of.items() for file in _images(sorted_into / wnid, below=True)]
        annotations, layout = [], f"as published, the validation images in {sorted_into.relative_to(folder)}/CLASS"
    parts = {f"the training images of {folder}": train, f"the validation images of {folder}": test}
    findings = Findings(layout=layout, skipped={}, test_from="validation", notes=())
    counted = replace(facts, train_images=len(train), test_images=len(test))
    return _source(counted, folder, parts, tuple(wnids), (*annotations, *lists), findings)


def _images(folder: Path, *, below: bool = False) -> list[FoundFile]:
    return list_files(folder, lambda name: name.endswith(".JPEG") and not name.startswith("."), below=below)


def _annotated(
    annotations: Path, by_name: Mapping[str, FoundFile], label_of: Mapping[str, int]
) -> Iterator[tuple[FoundFile, int]]:
    """Yield the validation images and their labels, in the order of the list.

    Raises:
        DatasetError: The list names a file or a class that is not there.
    """
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if not wnid:
            raise DatasetError(f"{annotations} line {number} has no file and class: unpack tiny-imagenet-200.zip again")
        if name not in by_name:
            missing = f"{annotations.parent / 'images' / name} is missing, which {annotations.name} lists"
            raise DatasetError(f"{missing}: unpack tiny-imagenet-200.zip again")
        if wnid not in label_of:
            raise DatasetError(f"{annotations} names {wnid}, which wnids.txt does not: unpack it again")
        yield by_name[name], label_of[wnid]


def _source(
    facts: DatasetFacts,
    folder: Path,
    parts: Mapping[str, _Labelled],
    class_names: tuple[str, ...],
    beside: Sequence[FoundFile],
    findings: Findings,
) -> Source:
    """Return the source of labelled files below a folder.

    Args:
        facts: The dataset's facts.
        folder: The folder of all files.
        parts: The training files and the test files, by their names in messages.
        class_names: The classes' names, by label.
        beside: Files that list the dataset's files; part of the fingerprint.
        findings: What was seen beside the images.
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
    return Source(facts=facts, fingerprint=fingerprint(folder, files), open=open_images, findings=findings)
