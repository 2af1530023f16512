"""Made images: random ones in memory, and a small dataset on disk whose classes a network can tell apart."""

import io
from pathlib import Path

import numpy as np

from trainables.data import catalog, datasets

__all__ = ["random_dataset", "write_made_cifar100"]

CLASSES, SIDE = 100, 32
PATCHES = 4
"""A class's pattern has so many patches of one colour in each direction."""
CONTRAST, NOISE = 8, 60
"""Largest distance of a patch's colours from grey, and standard deviation of the noise on them, in levels of 255."""


def random_dataset(images: int, size: int, classes: int) -> datasets.ImageDataset:
    """Return a dataset of random training images, uint8 [images, 3, size, size], and no other split."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (images, 3, size, size), dtype=np.uint8)
    labels = np.arange(images, dtype=np.int64) % classes
    return datasets.ImageDataset(
        name="random",
        class_names=tuple(map(str, range(classes))),
        channels=3,
        image_size=size,
        mean=(0.5,) * 3,
        std=(0.29,) * 3,
        levels=255,
        augmentation=catalog.ALL_FAMILIES,
        digest="",
        validation_share=0.1,
        path=Path(),
        splits={"train": datasets.Split(pixels, labels, "")},
    )


def write_made_cifar100(folder: Path, each: int) -> None:
    """Write Parquet files in CIFAR-100's form: `each` training images of a class, and a fifth as many to test.

    Every class has a pattern of coloured patches, and its images have noise on it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    folder.mkdir()
    draws = np.random.default_rng(0)
    patterns = draws.integers(128 - CONTRAST, 129 + CONTRAST, (CLASSES, PATCHES, PATCHES, 3))
    patch = np.ones((SIDE // PATCHES, SIDE // PATCHES, 1))
    for split, count in (("train", each), ("test", max(1, each // 5))):
        labels = np.tile(np.arange(CLASSES), count)
        encoded = []
        for label in labels:
            pixels = np.kron(patterns[label], patch) + draws.normal(0, NOISE, (SIDE, SIDE, 3))
            content = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "PNG")
            encoded.append(content.getvalue())
        table = pa.table({"img": pa.array(encoded, pa.binary()), "fine_label": labels})
        pq.write_table(table, folder / f"{split}.parquet")
