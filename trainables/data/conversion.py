"""Decodes a found dataset into the Arrow file that is memory-mapped."""

import itertools
import math
from pathlib import Path

import numpy as np

from trainables.config.reading import Reading
from trainables.data import catalog
from trainables.data.damage import Damage, kept_rows
from trainables.data.decoding import Meter, Progress, decode_blocks, sizes_found
from trainables.data.image_files import OtherSize, Wanted
from trainables.data.preparation import (
    FORMAT_VERSION,
    SPLITS,
    StoredSplit,
    check_disk,
    statistics,
    validation_mask,
    write,
)
from trainables.data.scratch import Scratch, open_scratch, stored_bytes
from trainables.data.source import FoundImages, Source
from trainables.errors import DatasetError

__all__ = ["convert"]

_SUGGESTED_SIZE = 64  # pixels, where the images are not smaller


def convert(source: Source, path: Path, share: float, reading: Reading, progress: Progress | None) -> None:
    """Decode a source into a file, in bounded memory; go on where a killed process stopped.

    Args:
        source: The dataset.
        path: The file.
        share: Share of each class's training images that becomes the validation split.
        reading: How its files are read.
        progress: See `decoding.Progress`.

    Raises:
        DatasetError: Images are damaged, of other sizes or alike, a class has too few, or the disk has no room.
    """
    facts, found = source.facts, source.open()
    wanted = Wanted(
        channels=facts.channels,
        size=reading.image_size or facts.image_size,
        reading=reading,
        found_levels=found.levels,
    )
    images = len(found.train.labels) + len(found.test.labels)
    # Beside the file there are its images in the scratch file, until it is whole.
    needed_bytes = images * (2 * math.prod(wanted.shape) + found.train.labels.itemsize) - stored_bytes(path)
    check_disk(path, needed_bytes, f"preparing {images:,} images of {wanted.size} × {wanted.size} pixels")
    with open_scratch(path, wanted.shape, [path.name, images]) as scratch:
        if path.exists():  # of another process, which had the scratch before
            return
        try:
            _decode(found, scratch, wanted, Meter(progress, images))
        except OtherSize as error:
            raise DatasetError(_sizes_text(source, found, error)) from error
        splits = _splits(found, scratch, wanted.shape, share, reading)
        mean, std = facts.mean, facts.std
        if mean is None or std is None:
            mean, std = statistics(splits["train"].blocks(), wanted.levels)
        metadata = {
            "format_version": FORMAT_VERSION,
            "name": facts.name,
            "class_names": found.class_names,
            "shape": wanted.shape,
            "mean": mean,
            "std": std,
            "levels": wanted.levels,
            "augmentation": facts.augmentation,
            "validation_share": float(share),
        }
        if scratch.damaged:
            metadata["damage"] = Damage.of(scratch.damaged).as_stored()
        write(path, splits, metadata)


def _decode(found: FoundImages, scratch: Scratch, wanted: Wanted, meter: Meter) -> None:
    """Decode all images, those of the test split after those of the training split, that the scratch has not yet."""
    if scratch.rows:
        meter.add(scratch.rows)
    pictures = itertools.chain(found.train.pictures(), found.test.pictures())
    rest = itertools.islice(pictures, scratch.rows, None)
    for block in decode_blocks(rest, scratch.rows, wanted, meter):
        scratch.add(block)
    if scratch.rows != meter.total:
        raise DatasetError(
            f"{found.train.where} and {found.test.where} must have an image for each of {meter.total:,} labels, but "
            f"have {scratch.rows:,} images: correct the finder"
        )


def _splits(
    found: FoundImages, scratch: Scratch, shape: tuple[int, int, int], share: float, reading: Reading
) -> dict[str, StoredSplit]:
    """Return the splits of decoded images, all in the original order."""
    train_kept, test_kept = kept_rows(found, scratch.damaged, reading.damaged)
    train, test = np.flatnonzero(train_kept), np.flatnonzero(test_kept)
    held_out = validation_mask(found.train.labels[train], share)
    rows = {"train": train[~held_out], "validation": train[held_out], "test": len(train_kept) + test}
    labels = np.concatenate([found.train.labels, found.test.labels])
    return {
        name: StoredSplit(shape=shape, rows=rows[name], labels=labels[rows[name]], read=scratch.read) for name in SPLITS
    }


def _sizes_text(source: Source, found: FoundImages, other: OtherSize) -> str:
    """Return why images of these sizes are refused, and which key resizes them; the headers of all are read."""
    expected, sizes = source.facts.image_size, sizes_found(found)
    (least_width, least_height), (most_width, most_height) = sizes[0], sizes[-1]
    suggested = min(_SUGGESTED_SIZE, min(map(min, sizes)))
    rule = "square and of one size"
    if source.facts.name in catalog.names():
        rule, suggested = f"{expected} × {expected} pixels", expected
    return (
        f"images must be {rule}, but {other.where} has {other.width} × {other.height} pixels, and all have "
        f"{least_width} × {least_height} to {most_width} × {most_height}: resize them with "
        f"--set image_size={suggested} (or another size)"
    )
