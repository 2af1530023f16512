"""The source that every reader of published files returns: found first, decoded later."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainables.data.catalog import DatasetFacts
from trainables.errors import DatasetError

__all__ = [
    "AS_PUBLISHED",
    "Findings",
    "FoundFile",
    "FoundImages",
    "FoundSplit",
    "Picture",
    "Source",
    "check_labels",
    "fingerprint",
    "list_files",
    "listing",
    "name_of",
    "shown",
]

_ONE_BYTE = 255


class Picture(NamedTuple):
    """An image that was found, not yet decoded."""

    where: str
    """Its name in messages: a file, or a file and a row."""
    content: bytes | Path | np.ndarray | None
    """Encoded bytes, a file that holds them, or pixels uint8 [ch, H, W]; None if the row is empty."""


@dataclass(frozen=True, kw_only=True)
class FoundSplit:
    """The images of a split and their labels, found but not decoded."""

    where: str
    """Its name in messages."""
    labels: np.ndarray
    """int64 [n]."""
    pictures: Callable[[], Iterator[Picture]]
    """Yields the n images in the order of the labels; may be called again."""

    @classmethod
    def of_pixels(cls, where: str, images: np.ndarray, labels: np.ndarray) -> "FoundSplit":
        """Return the split of images uint8 [n, ch, H, W] that are in memory, and labels int64 [n]."""
        return cls(where=where, labels=labels, pictures=lambda: (Picture(where, image) for image in images))


@dataclass(frozen=True, kw_only=True)
class FoundImages:
    """A dataset's images, found but not decoded; `levels` is the pixel value that represents 1.0."""

    train: FoundSplit
    test: FoundSplit
    class_names: tuple[str, ...]
    levels: int = _ONE_BYTE


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a finder saw beside the images."""

    layout: str
    """The layout, in words: "folders train/CLASS, test/CLASS"."""
    skipped: Mapping[str, int]
    """Number of files or folders that were left out, by reason: hidden, not an image."""
    test_from: str
    """What the test split is: "test" or "validation", a split of the files, or "carved from train"."""
    notes: tuple[str, ...]
    """Sentences for the plan, the report and the terminal."""
    warnings: tuple[str, ...] = ()
    """Sentences that the report begins with: what makes its figures wrong."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The notes, and what was left out."""
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        return (*self.notes, f"Files or folders that were left out: {left_out}") if left_out else self.notes

    def completed(self, *, note: str = "", warning: str = "") -> "Findings":
        """Return the findings with another note and another warning; "" is none."""
        notes, warnings = ((text,) if text else () for text in (note, warning))
        return replace(self, notes=(*self.notes, *notes), warnings=(*self.warnings, *warnings))


AS_PUBLISHED = Findings(layout="as published", skipped={}, test_from="test", notes=())
"""Nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset that was found but not yet decoded."""

    facts: DatasetFacts
    """The catalog's facts, or those of the files for a dataset that is not in the catalog; counts are the files'."""
    fingerprint: str
    """Changes if a file to be read changes its path in the folder, its size or its modification time."""
    open: Callable[[], FoundImages]
    """Read what decoding needs beside the images; raises DatasetError if a label is wrong."""
    findings: Findings = AS_PUBLISHED
    """What was seen beside the images."""


class FoundFile(NamedTuple):
    """A file to be read, with the status that changes with its content."""

    path: Path
    bytes: int
    modified_ns: int
    """Time of the last modification, in nanoseconds since 1970."""


def list_files(folder: Path, wanted: Callable[[str], bool], *, below: bool = False) -> list[FoundFile]:
    """Return the files of a folder, sorted by path: one listing per folder and one `stat` per file.

    Args:
        folder: The folder; if it does not exist, the result is empty.
        wanted: Whether to return a file of this name; other files are not accessed.
        below: Whether to list its subfolders too, at any depth. Links to folders are not followed.

    Raises:
        DatasetError: A folder cannot be listed, or a file's status cannot be read.
    """
    if not folder.is_dir():
        return []
    files = []
    with listing(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if below:
                    files += list_files(Path(entry.path), wanted, below=True)
            elif wanted(entry.name) and entry.is_file():
                status = entry.stat()
                files.append(FoundFile(Path(entry.path), status.st_size, status.st_mtime_ns))
    return sorted(files)


@contextmanager
def listing(folder: Path) -> Iterator[Iterator["os.DirEntry[str]"]]:
    """List a folder.

    Raises:
        DatasetError: The folder cannot be listed, or what is read about an entry inside the block fails.
    """
    try:
        with os.scandir(folder) as entries:
            yield entries
    except OSError as error:
        raise DatasetError(
            f"{shown(error.filename or folder)} cannot be read ({error.strerror}): make it readable to this user"
        ) from error


def name_of(file: str | Path) -> str:
    """Return the name of a file or folder as text: bytes that are not UTF-8 become \\x and two digits."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def shown(path: str | Path) -> str:
    """Return a path for a message of one line: as `name_of`, and line breaks and other control characters escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name_of(path))


def fingerprint(folder: Path, files: Iterable[FoundFile]) -> str:
    """Return the fingerprint of files below a folder; it does not depend on the folder's own path."""
    digest = hashlib.sha256()
    for path, size, modified_ns in sorted(files):
        digest.update(os.fsencode(path.relative_to(folder).as_posix()) + f"\0{size}\0{modified_ns}\n".encode())
    return digest.hexdigest()


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Check labels int64 [n]; `where` is the files' name in messages.

    Raises:
        DatasetError: A label is not in 0 to classes − 1, or a class has no image.
    """
    present = np.unique(labels)
    if len(present) and (present[0] < 0 or present[-1] >= classes):
        wrong = present[0] if present[0] < 0 else present[-1]
        raise DatasetError(f"labels must be 0 to {classes - 1}, but {where} has {wrong}: is it another dataset?")
    if len(present) < classes:
        missing = int(np.setdiff1d(np.arange(classes), present)[0])
        raise DatasetError(f"every class must occur, but {where} has none of class {missing}: complete the files")
