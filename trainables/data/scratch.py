"""A scratch file of decoded images: a preparation that was killed goes on from its last whole block.

Two files lie beside the dataset that they become: the pixels, and a journal with a line for its header and for every
block whose pixels are on disk. The journal is locked while a process works on it, so two processes that prepare the
same dataset do not write into the same files.
"""

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np

from trainables.data.decoding import Block, Damaged

__all__ = ["Scratch", "open_scratch", "stored_bytes"]

_FORMAT_VERSION = 1
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Scratch:
    """Decoded images on disk, and which of them are damaged."""

    def __init__(
        self, journal: BufferedRandom, pixels: BufferedRandom, shape: tuple[int, int, int], header: list[Any]
    ) -> None:
        """Take up the whole blocks that a process left with an equal header; discard anything else."""
        self._journal, self._pixels, self._shape = journal, pixels, shape
        self._row_bytes = int(np.prod(shape))
        self.rows = 0
        """Images in whole blocks."""
        self.damaged: list[Damaged] = []
        """Those of them that could not be read."""
        first = _line({"format_version": _FORMAT_VERSION, "shape": shape, "of": header})
        lines = journal.read().splitlines(keepends=True)
        kept = first if lines[:1] == [first] else b""
        for line in lines[1:] if kept else ():
            if not line.endswith(b"\n"):
                break  # torn by the end of the process
            block = json.loads(line)
            self.rows = block["rows"]
            self.damaged += [Damaged(*entry) for entry in block["damaged"]]
            kept += line
        self._pixels.truncate(self.rows * self._row_bytes)
        journal.seek(0)
        journal.truncate()
        self._append(kept or first)

    def add(self, block: Block) -> None:
        """Store a block: first its pixels, then the line that says that they are stored."""
        self._pixels.seek(self.rows * self._row_bytes)
        self._pixels.write(np.ascontiguousarray(block.images).data)
        _force(self._pixels)
        self.rows += len(block.images)
        self.damaged += block.damaged
        self._append(_line({"rows": self.rows, "damaged": block.damaged}))

    def read(self, first: int, count: int) -> np.ndarray:
        """Return the images from row `first` on, uint8 [count, ch, H, W]."""
        images = np.empty((count, *self._shape), dtype=np.uint8)
        self._pixels.seek(first * self._row_bytes)
        if self._pixels.readinto(images.data.cast("B")) != images.nbytes:
            raise EOFError(f"the scratch file ends before row {first + count}")
        return images

    def _append(self, lines: bytes) -> None:
        self._journal.seek(0, os.SEEK_END)
        self._journal.write(lines)
        _force(self._journal)


def stored_bytes(target: Path) -> int:
    """Return how much of the disk a killed process has taken for the scratch of a dataset's file."""
    try:
        return _pixels_of(_journal_of(target)).stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def open_scratch(target: Path, shape: tuple[int, int, int], header: list[Any]) -> Iterator[Scratch]:
    """Open the scratch of a dataset's file; wait while another process on it works on that dataset.

    It is removed at the end, also after an error. After a kill or Ctrl-C it stays.

    Args:
        target: The file that the images become; its folder is created if it does not exist.
        shape: Channels, height and width of an image.
        header: What must be equal for the stored blocks to be used: any JSON.
    """
    folder = target.parent
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    with _locked(_journal_of(target)) as journal:
        place = Path(journal.name)
        pixels_place = _pixels_of(place)
        with _open(pixels_place) as pixels:
            try:
                yield Scratch(journal, pixels, shape, header)
            except Exception:  # not KeyboardInterrupt, with which Ctrl-C and SIGTERM stop a command
                _remove(pixels_place, place)
                for path in created:
                    with suppress(OSError):  # it is not empty
                        path.rmdir()
                raise
            _remove(pixels_place, place)


def _journal_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.decoded")


def _pixels_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.pixels")


def _remove(pixels_place: Path, place: Path) -> None:
    pixels_place.unlink(missing_ok=True)
    place.unlink(missing_ok=True)  # last: who has the lock on it has the pixels


@contextmanager
def _locked(place: Path) -> Iterator[BufferedRandom]:
    """Open a file that no other process has open so; on a disk without locks, a file of this process alone."""
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            opened = _open(place)
        except FileNotFoundError:  # another process has just removed the folder, which it had created
            continue
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                place.unlink(missing_ok=True)
                break
            if _is_at(file, place):  # or else the process that had the lock has finished and removed the file
                yield file
                return
    with _open(place.with_name(f"{place.name}.{uuid.uuid4().hex}")) as file:
        yield file


def _open(place: Path) -> BufferedRandom:
    """Open a file to read and write it; it is created if it does not exist."""
    return open(place, "r+b", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666))


def _is_at(file: BufferedRandom, place: Path) -> bool:
    """Return whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _force(file: BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())
