"""From the splits that files have to a source: which split is the test split, and which label is which class."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.config.reading import Reading
from trainables.data.catalog import own_facts
from trainables.data.decoding import side_of
from trainables.data.source import (
    Findings,
    FoundFile,
    FoundImages,
    FoundSplit,
    Picture,
    Source,
    fingerprint,
    shown,
)
from trainables.data.strata import stratified_mask
from trainables.errors import DatasetError

__all__ = [
    "NO_LABEL",
    "SPLIT_WORDS",
    "Layout",
    "Part",
    "assemble",
    "counts_text",
    "files_by_split",
    "split_in",
    "split_named",
]

NO_LABEL = -1
"""The code of an image without a label."""

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What the splits are called in names of files and folders."""
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_CARVED = "carved from train"
_CARVE_SEED = 20261130  # part of the format: another seed would give another test split
_NAMED = 5  # classes that a message names


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split of the files, with the classes as it numbers and names them."""

    where: str
    """Its name in messages."""
    codes: np.ndarray
    """int64 [n]: each image's class, as its place in `classes`, or NO_LABEL."""
    classes: tuple[str, ...]
    """The classes' names, in the order that numbers them."""
    pictures: Callable[[], Iterator[Picture]]
    """Yields the n images in the order of the codes; may be called again."""
    files: Sequence[FoundFile]
    """The files that hold them."""

    def occurring(self) -> set[str]:
        """Return the names of the classes that have images."""
        return {self.classes[code] for code in np.unique(self.codes).tolist() if code != NO_LABEL}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A dataset of one's own as it was found."""

    folder: Path
    words: str
    """The layout, in words."""
    parts: Mapping[str, Callable[[], Part]]
    """Reads a split of the files, by train, validation and test."""
    skipped: Mapping[str, int]
    """Number of files or folders left out, by reason."""
    channels: int = 3
    """1: every image is grey, which the form of the files says; 3: images become RGB."""
    notes: tuple[str, ...] = ()


def split_named(name: str) -> str | None:
    """Return the split that a folder of this name is: train, validation or test."""
    return _SPLIT_OF.get(name.lower())


def split_in(path: Path) -> str | None:
    """Return the split that a file's relative path names: in its name, or else in the nearest folder's."""
    for name in reversed(path.parts):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in _SPLIT_OF:
                return _SPLIT_OF[word]
    return None


def files_by_split(folder: Path, files: Iterable[FoundFile], *, unnamed: str) -> dict[str, list[FoundFile]]:
    """Return files below a folder by the split that each one's relative path names; `unnamed` where it names none."""
    splits: dict[str, list[FoundFile]] = {}
    for file in files:
        splits.setdefault(split_in(file.path.relative_to(folder)) or unnamed, []).append(file)
    return splits


def counts_text(splits: Mapping[str, Sequence[FoundFile]]) -> str:
    """Return the number of files of each split in words."""
    return ", ".join(f"{len(part)} of {split}" for split, part in splits.items())


def assemble(name: str, layout: Layout, reading: Reading) -> Source:
    """Choose or carve the test split, number the classes, and return the source.

    Raises:
        DatasetError: There is no labelled training image, fewer than two classes, a class without training images, or
            a class of the test split that the train split lacks.
    """
    train = _train(layout)
    chosen, test, notes = _test(layout, train, reading)
    labels, channels = train.codes, layout.channels
    if test is None:
        mask = _carve(train, reading.test_share)
        splits = _rows(train, labels, channels, ~mask), _rows(train, labels, channels, mask)
    else:
        _check_counts(train, 2, "one to validate on")
        splits = _rows(train, labels, channels), _rows(test, _matched(train, test), channels)
        occurring = test.occurring()
        if missing := [name for name in train.classes if name not in occurring]:
            has, it = ("has", "it") if len(missing) == 1 else ("have", "them")
            notes.append(f"{_listed(missing)} {has} no test images: macro-F1 and macro-recall leave {it} out")
    facts = own_facts(
        name,
        classes=len(train.classes),
        channels=layout.channels,
        image_size=_image_size(splits[0], reading),
        train_images=len(splits[0].labels),
        test_images=len(splits[1].labels),
    )
    findings = Findings(
        layout=layout.words,
        skipped={reason: count for reason, count in layout.skipped.items() if count},
        test_from=chosen or _CARVED,
        notes=(*layout.notes, *notes),
    )
    found = FoundImages(train=splits[0], test=splits[1], class_names=train.classes)
    return Source(
        facts=facts,
        fingerprint=_fingerprint(layout.folder, train, test, chosen, reading),
        open=lambda: found,
        findings=findings,
    )


def _train(layout: Layout) -> Part:
    """Read the train split and check its classes."""
    if "train" not in layout.parts:
        raise DatasetError(
            f"{shown(layout.folder)} has no train split, only {' and '.join(layout.parts)} ({layout.words}): name the "
            "folder or the files of the training images train"
        )
    train = layout.parts["train"]()
    without = int((train.codes == NO_LABEL).sum())
    if without or not len(train.codes):
        raise DatasetError(
            f"{train.where} has {without:,} of {len(train.codes):,} images without a label (null or -1): label them or "
            "leave them out"
            if without
            else f"{train.where} has no images: put some into it"
        )
    if len(train.classes) < 2:
        raise DatasetError(
            f"a dataset needs two classes, but {train.where} has only {_listed(train.classes)} ({layout.words}): give "
            "--data the folder that holds train, or a folder of each class"
        )
    occurring = train.occurring()
    if empty := [name for name in train.classes if name not in occurring]:
        raise DatasetError(
            f"every class needs training images, but {train.where} has none of {_listed(empty)}: add some, or remove "
            "the class"
        )
    return train


def _test(layout: Layout, train: Part, reading: Reading) -> tuple[str | None, Part | None, list[str]]:
    """Return the name of the split of the files that is the test split, that split, and what there is to say.

    Raises:
        DatasetError: `reading.test_split` names a split that the files lack, or one without labels.
    """
    present = [split for split in ("test", "validation") if split in layout.parts]
    notes, dismissed = [], list[str]()
    if reading.test_split != "auto":
        if reading.test_split not in present:
            raise DatasetError(
                f"test_split={reading.test_split}, but {shown(layout.folder)} has no {reading.test_split} split, only "
                f"{' and '.join(['train', *present])}: leave test_split out"
            )
        considered = [reading.test_split]
    else:
        considered = present
    for split in considered:
        part = layout.parts[split]()
        if problem := _unlabelled(part, train):
            if reading.test_split != "auto":
                raise DatasetError(f"test_split={split}, but {part.where} {problem}: choose another split")
            notes.append(f"{part.where} {problem}, so it is not the test split")
            dismissed.append(split)
            continue
        if split == "validation":
            notes.append(f"The test split is the validation split of the files, {part.where}")
        if (other := {"test": "validation", "validation": "test"}[split]) in present and other not in dismissed:
            instead = ": the images to validate on are taken from train" if other == "validation" else ""
            notes.append(f"The {other} split of the files is not used{instead}")
        return split, part, notes
    share = reading.test_share
    notes.append(
        f"{'No split of the files is a test split' if present else 'The files have no test split'}: {share:g} of each "
        "class's training images became it (test_share)"
    )
    return None, None, notes


def _unlabelled(part: Part, train: Part) -> str:
    """Return why a split cannot be the test split; empty if it can."""
    if not len(part.codes):
        return "has no images"
    if (part.codes == NO_LABEL).all() or (part.classes == ("-1",) and "-1" not in train.classes):
        return "has no labels"
    return ""


def _matched(train: Part, test: Part) -> np.ndarray:
    """Return the test labels int64 [n] in the train split's numbers; classes are matched by name."""
    if without := int((test.codes == NO_LABEL).sum()):
        raise DatasetError(
            f"{test.where} has {without:,} of {len(test.codes):,} images without a label (null or -1): label them or "
            "leave them out"
        )
    label_of = {name: label for label, name in enumerate(train.classes)}
    if unknown := sorted(test.occurring() - label_of.keys()):
        raise DatasetError(
            f"{test.where} has {_listed(unknown)}, of which {train.where} has no image: add training images of it, or "
            "remove it"
        )
    labels: np.ndarray = np.array([label_of.get(name, NO_LABEL) for name in test.classes], dtype=np.int64)[test.codes]
    return labels


def _carve(train: Part, share: float) -> np.ndarray:
    """Return which training images become the test split, bool [n]."""
    _check_counts(train, 3, "as the files have no test split: to train, to validate and to test on")
    return stratified_mask(train.codes, share, _CARVE_SEED, kept=2)


def _check_counts(train: Part, fewest: int, why: str) -> None:
    """Refuse classes with fewer training images."""
    counts = np.bincount(train.codes, minlength=len(train.classes))
    if few := [train.classes[label] for label in np.flatnonzero(counts < fewest)]:
        raise DatasetError(
            f"every class needs {fewest} training images, {why}, but {_listed(few)} of {train.where} "
            f"{'has' if len(few) == 1 else 'have'} fewer: add some"
        )


def _rows(part: Part, labels: np.ndarray, channels: int, mask: np.ndarray | None = None) -> FoundSplit:
    """Return the images of a split, or those of a mask, with their labels."""

    def pictures() -> Iterator[Picture]:
        for where, content in part.pictures() if mask is None else itertools.compress(part.pictures(), mask):
            if isinstance(content, np.ndarray) and len(content) < channels:  # grey among coloured ones
                content = np.repeat(content, channels, axis=0)
            yield Picture(where, content)

    return FoundSplit(where=part.where, labels=labels if mask is None else labels[mask], pictures=pictures)


def _image_size(split: FoundSplit, reading: Reading) -> int:
    """Return the size that is set, or the width of the first readable image."""
    return reading.image_size or side_of(split.pictures())


def _fingerprint(folder: Path, train: Part, test: Part | None, chosen: str | None, reading: Reading) -> str:
    """Return the files' fingerprint; it also tells what else determines which image is in which split."""
    files = {*train.files, *(test.files if test else ())}
    of_files = fingerprint(folder, files)
    if test is None:
        how: list[object] = [_CARVED, reading.test_share, _CARVE_SEED]
    elif set(train.files) & set(test.files):  # one file with all splits
        how = [chosen]
    else:
        return of_files
    return hashlib.sha256(json.dumps([of_files, *how]).encode()).hexdigest()


def _listed(names: Sequence[str]) -> str:
    """Return classes' names for a message."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{'class' if len(names) == 1 else 'classes'} {', '.join(map(repr, names[:_NAMED]))}{more}"
