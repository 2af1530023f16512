"""Writes decoded images to the Arrow file that is memory-mapped: splits, their statistics, digests and layout."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainables.data.decoding import Meter, Progress, decode
from trainables.data.source import FoundImages
from trainables.data.strata import stratified_mask
from trainables.errors import DatasetError
from trainables.storage.atomic import write_atomically

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "Arrays",
    "decode_all",
    "split_train_validation",
    "statistics",
    "validation_mask",
    "write",
]

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
"""The splits, in the order of the file's record batches."""

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images uint8 [n, ch, H, W] and labels int64 [n] by split."""

_VALIDATION_SEED = 20240930  # part of the format: another seed would give another validation split
_CHUNK = 2048  # images moved or counted at once, to limit temporary memory


def decode_all(found: FoundImages, channels: int, size: int, share: float, progress: Progress | None) -> Arrays:
    """Decode a dataset and split its training images into train and validation, both in the original order.

    Raises:
        DatasetError: An image is damaged or has another size than `size`.
    """
    meter = Meter(progress, len(found.train.labels) + len(found.test.labels))
    train, test = (decode(split, channels, size, meter) for split in (found.train, found.test))
    return {**split_train_validation(train, found.train.labels, share), "test": (test, found.test.labels)}


def split_train_validation(images: np.ndarray, labels: np.ndarray, share: float) -> Arrays:
    """Split training images uint8 [n, ch, H, W] and labels int64 [n] into train and validation, in the original order.

    The train split reuses the memory of `images`, which it overwrites.
    """
    mask = validation_mask(labels, share)
    validation = (images[mask], labels[mask])
    kept = np.flatnonzero(~mask)
    # Row i comes from kept[i] ≥ i, so moving rows in order overwrites none that is still needed.
    for first in range(0, len(kept), _CHUNK):
        rows = kept[first : first + _CHUNK]
        images[first : first + len(rows)] = images[rows]
    train = (images[: len(kept)], labels[kept])
    return {"train": train, "validation": validation}


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


def statistics(images: np.ndarray, levels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images [n, ch, H, W], divided by `levels`.

    Raises:
        DatasetError: A channel is constant.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for first in range(0, len(images), _CHUNK):
        for channel in range(channels):
            counts[channel] += np.bincount(images[first : first + _CHUNK, channel].ravel(), minlength=256)
    # With Python's integers: exact, so equal on every machine, as the digest requires.
    mean, std = [], []
    for channel in range(channels):
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


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256(json.dumps(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def write(path: Path, arrays: Arrays, metadata: dict[str, Any]) -> None:
    """Write every split as one record batch, atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        arrays: Images and labels of every split.
        metadata: The file's metadata, without rows and digests, which are computed from the arrays.
    """
    digests = {split: _digest(*arrays[split]) for split in SPLITS}
    whole = json.dumps([digests, metadata["mean"], metadata["std"], metadata["levels"]])
    metadata = {
        **metadata,
        "rows": {split: len(labels) for split, (_, labels) in arrays.items()},
        "split_digests": digests,
        "digest": hashlib.sha256(whole.encode()).hexdigest(),
    }
    pixel = pa.field("item", pa.uint8(), nullable=False)
    image = pa.list_(pixel, math.prod(metadata["shape"]))
    schema = pa.schema(
        [pa.field("image", image, nullable=False), pa.field("label", pa.int64(), nullable=False)],
        metadata={key: json.dumps(value) for key, value in metadata.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)

    def fill(aside: Path) -> None:
        with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for split in SPLITS:
                images, labels = arrays[split]
                rows = len(labels)
                flat = pa.Array.from_buffers(pa.uint8(), images.size, [None, pa.py_buffer(images)])
                column = pa.Array.from_buffers(image, rows, [None], children=[flat])
                label = pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(labels)])
                writer.write_batch(pa.record_batch([column, label], schema=schema))

    write_atomically(path, fill)
