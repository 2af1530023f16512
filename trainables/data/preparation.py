"""Writes decoded images to the Arrow file that is memory-mapped: splits, their statistics, digests and layout.

Images come in blocks, so that memory is bounded whatever a dataset holds.
"""

import hashlib
import json
import math
import mmap
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from trainables.data.strata import stratified_mask
from trainables.errors import DatasetError
from trainables.storage.atomic import write_atomically

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "StoredSplit",
    "check_disk",
    "statistics",
    "validation_mask",
    "write",
]

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
"""The splits, in the order of the file's record batches."""

_VALIDATION_SEED = 20240930  # part of the format: another seed would give another validation split
_BLOCK_BYTES = 32 * 2**20  # of images in memory at once


@dataclass(frozen=True, kw_only=True)
class StoredSplit:
    """The images of a split, among others on disk."""

    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    rows: np.ndarray
    """Where its images lie among all that are stored, ascending, int64 [n]."""
    labels: np.ndarray
    """int64 [n]."""
    read: Callable[[int, int], np.ndarray]
    """Returns the stored images from a row on, and so many of them, uint8 [count, ch, H, W]."""

    @property
    def image_bytes(self) -> int:
        """Bytes of all its images."""
        return len(self.rows) * math.prod(self.shape)

    def only(self, chosen: np.ndarray) -> "StoredSplit":
        """Return the images of a mask, bool [n]."""
        return replace(self, rows=self.rows[chosen], labels=self.labels[chosen])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield its images in order, uint8 [b, ch, H, W]; may be called again."""
        most = max(1, _BLOCK_BYTES // math.prod(self.shape))
        begin = 0
        while begin < len(self.rows):
            first = int(self.rows[begin])
            end = int(np.searchsorted(self.rows, first + most))
            stored = self.read(first, int(self.rows[end - 1]) + 1 - first)
            yield stored[self.rows[begin:end] - first]
            begin = end


def validation_mask(labels: np.ndarray, share: float) -> np.ndarray:
    """Choose `share` of every class, rounded, at least one image and not all; return a mask, bool [n].

    Raises:
        DatasetError: A class has fewer than two images.
    """
    present, counts = np.unique(labels, return_counts=True)
    if (counts < 2).any():
        raise DatasetError(
            f"every class needs 2 training images, one to validate on; class {present[counts < 2][0]} has 1: add some"
        )
    return stratified_mask(labels, share, _VALIDATION_SEED)


def statistics(blocks: Iterable[np.ndarray], levels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of blocks of uint8 images [b, ch, H, W], divided by `levels`.

    Raises:
        DatasetError: A channel is constant.
    """
    counts: dict[int, np.ndarray] = {}
    for block in blocks:
        for channel in range(block.shape[1]):
            found = np.bincount(block[:, channel].ravel(), minlength=256)
            counts[channel] = counts.get(channel, 0) + found
    # With Python's integers: exact, so equal on every machine, as the digest requires.
    mean, std = [], []
    for channel in sorted(counts):
        histogram = counts[channel].tolist()
        pixels = sum(histogram)
        total = sum(value * count for value, count in enumerate(histogram))
        squares = sum(value * value * count for value, count in enumerate(histogram))
        mean.append(total / (pixels * levels))
        std.append(math.sqrt((pixels * squares - total * total) / (pixels * levels) ** 2))
    if not all(std):
        raise DatasetError(
            f"images must vary, but channel {std.index(0)} is the same in every pixel of the train split"
        )
    return tuple(mean), tuple(std)


def check_disk(place: Path, needed_bytes: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        place: A file or folder that is to be made.
        needed_bytes: Bytes that it and what lies beside it will take.
        what: What they are for, for the message.

    Raises:
        DatasetError: Fewer bytes are free.
    """
    folder = next(parent for parent in place.absolute().parents if parent.is_dir())
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        needed, free = (f"{amount / 2**30:,.2f} GiB" for amount in (needed_bytes, free_bytes))
        raise DatasetError(f"{what} needs {needed} in {folder}, where {free} are free: free some, or use another disk")


def _digest(split: StoredSplit) -> str:
    digest = hashlib.sha256(json.dumps([len(split.rows), *split.shape]).encode())
    for block in split.blocks():
        digest.update(np.ascontiguousarray(block).data)
    digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def write(path: Path, splits: Mapping[str, StoredSplit], metadata: dict[str, Any]) -> None:
    """Write every split as one record batch, atomically.

    Args:
        path: The file, in a folder that exists.
        splits: Every split.
        metadata: The file's metadata, without rows and digests, which are computed from the splits.
    """
    digests = {name: _digest(splits[name]) for name in SPLITS}
    whole = json.dumps([digests, metadata["mean"], metadata["std"], metadata["levels"]])
    metadata = {
        **metadata,
        "rows": {name: len(split.rows) for name, split in splits.items()},
        "split_digests": digests,
        "digest": hashlib.sha256(whole.encode()).hexdigest(),
    }
    pixel = pa.field("item", pa.uint8(), nullable=False)
    image = pa.list_(pixel, math.prod(metadata["shape"]))
    schema = pa.schema(
        [pa.field("image", image, nullable=False), pa.field("label", pa.int64(), nullable=False)],
        metadata={key: json.dumps(value) for key, value in metadata.items()},
    )

    def fill(aside: Path) -> None:
        with aside.open("wb") as file:
            sink = _Sink(file)
            with pa.ipc.new_file(pa.PythonFile(sink, "w"), schema) as writer:
                for name in SPLITS:
                    split = splits[name]
                    flat = pa.Array.from_buffers(pa.uint8(), split.image_bytes, [None, sink.stand_in(split)])
                    column = pa.Array.from_buffers(image, len(split.rows), [None], children=[flat])
                    buffer = pa.py_buffer(np.ascontiguousarray(split.labels))
                    label = pa.Array.from_buffers(pa.int64(), len(split.rows), [None, buffer])
                    writer.write_batch(pa.record_batch([column, label], schema=schema))

    write_atomically(path, fill)


class _Sink:
    """The file that Arrow writes to, which puts a split's blocks where Arrow writes its stand-in.

    Arrow writes a record batch only from buffers that are whole in memory. A stand-in has a split's size, and no
    memory: it is a read-only map of nothing, which nobody reads.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._splits: dict[int, StoredSplit] = {}
        self._maps: list[pa.Buffer] = []  # kept, so that no address occurs twice
        self.closed = False

    def stand_in(self, split: StoredSplit) -> pa.Buffer:
        """Return a buffer of the size of a split's images."""
        if not split.image_bytes:
            return pa.py_buffer(b"")
        nothing = mmap.mmap(-1, split.image_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
        buffer = pa.py_buffer(nothing)
        self._maps.append(buffer)
        self._splits[buffer.address] = split
        return buffer

    def write(self, content: Any) -> None:
        """Write bytes, or the images for which a buffer of Arrow's stands."""
        split = self._splits.get(content.address) if isinstance(content, pa.Buffer) else None
        if split is None:
            self._file.write(content)
            return
        assert content.size == split.image_bytes, "Arrow writes a buffer as a whole"
        for block in split.blocks():
            self._file.write(np.ascontiguousarray(block).data)

    def flush(self) -> None:
        """Do what Arrow expects of a file."""
        self._file.flush()

    def close(self) -> None:
        """Likewise; the file is closed by its context."""
        self.closed = True
