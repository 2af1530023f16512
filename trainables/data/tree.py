"""What is below a folder of one's own images: every folder is listed once, and hidden things are left out."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainables.data.source import FoundFile, listing, shown
from trainables.errors import DatasetError

__all__ = ["HIDDEN", "OTHER", "Folder", "is_hidden", "walk"]

HIDDEN, OTHER = "hidden", "of another kind"
_BROKEN, _LOOP = "a broken link or no regular file", "a link to a folder that contains it"
_HIDDEN_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
_DEEPEST = 100
"""Levels of folders; more are a loop that links do not explain."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder, with the files that were wanted."""

    path: Path
    files: tuple[FoundFile, ...]
    """Its own files, sorted by name."""
    folders: tuple["Folder", ...]
    """Its folders, sorted by name, also those without files."""

    @property
    def name(self) -> str:
        """Its name, which can hold bytes that are not UTF-8."""
        return self.path.name

    @cached_property
    def count(self) -> int:
        """Number of files at any depth."""
        return len(self.files) + sum(folder.count for folder in self.folders)

    @cached_property
    def filled(self) -> tuple["Folder", ...]:
        """Its folders that have files at any depth."""
        return tuple(folder for folder in self.folders if folder.count)

    def below(self) -> Iterator[FoundFile]:
        """Yield the files at any depth, a folder's own first."""
        yield from self.files
        for folder in self.folders:
            yield from folder.below()

    def only(self, wanted: Callable[[FoundFile], bool]) -> "Folder":
        """Return the same folders with some of the files."""
        return Folder(
            path=self.path,
            files=tuple(file for file in self.files if wanted(file)),
            folders=tuple(folder.only(wanted) for folder in self.folders),
        )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out: hidden, or written by a system beside the images."""
    return name.startswith(".") or name.lower() in _HIDDEN_NAMES


def walk(folder: Path, wanted: Callable[[str], bool]) -> tuple[Folder, Counter[str]]:
    """List a folder at any depth; links to folders are followed, but not into a folder that contains them.

    Args:
        folder: The folder.
        wanted: Whether to return a file of this name; other files are counted and not accessed.

    Returns:
        The folder, and the number of files or folders that were left out, by reason.

    Raises:
        DatasetError: A folder cannot be listed, a file's status cannot be read, or folders are nested too deep.
    """
    skipped: Counter[str] = Counter()
    return _walk(folder, wanted, skipped, ()), skipped


def _walk(
    folder: Path, wanted: Callable[[str], bool], skipped: Counter[str], above: tuple[tuple[int, int], ...]
) -> Folder:
    if len(above) > _DEEPEST:
        raise DatasetError(f"{shown(folder)} is below {_DEEPEST} folders: name a folder further down")
    files, names = [], []
    with listing(folder) as entries:
        status = folder.stat()
        here = (*above, (status.st_dev, status.st_ino))
        for entry in entries:
            if is_hidden(entry.name):
                skipped[HIDDEN] += 1
            elif entry.is_dir():
                inside = entry.stat()
                if (inside.st_dev, inside.st_ino) in here:
                    skipped[_LOOP] += 1
                else:
                    names.append(entry.name)
            elif not entry.is_file():
                skipped[_BROKEN] += 1
            elif wanted(entry.name):
                status = entry.stat()
                files.append(FoundFile(Path(entry.path), status.st_size, status.st_mtime_ns))
            else:
                skipped[OTHER] += 1
    folders = tuple(_walk(folder / name, wanted, skipped, here) for name in sorted(names))
    return Folder(path=folder, files=tuple(sorted(files)), folders=folders)
