"""What a prepared dataset holds: images by class and split, and the mean of each class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainables.data.datasets import load, open_splits
from trainables.data.preparation import StoredSplit

__all__ = ["ClassContent", "class_contents"]


@dataclass(frozen=True, kw_only=True)
class ClassContent:
    """One class of a prepared dataset."""

    name: str
    train: int
    """Images of the train split."""
    validation: int
    """Images of the validation split."""
    test: int
    """Images of the test split."""
    mean: tuple[float, ...]
    """Mean per channel over the train split, in [0, 1]."""


def class_contents(path: Path) -> list[ClassContent]:
    """Return the classes of a prepared dataset, by label.

    Memory: a block of images.

    Args:
        path: What `datasets.prepare` returned.

    Raises:
        DatasetError: `datasets.load` refuses the dataset.
    """
    dataset = load(path, ())
    with open_splits(path) as splits:
        counts = {name: np.bincount(split.labels, minlength=dataset.classes).tolist() for name, split in splits.items()}
        sums = _sums(splits["train"], dataset.classes)
    pixels = dataset.image_size**2 * dataset.levels
    return [
        ClassContent(
            name=name,
            train=counts["train"][label],
            validation=counts["validation"][label],
            test=counts["test"][label],
            mean=tuple(total / (counts["train"][label] * pixels) for total in sums[label].tolist()),
        )
        for label, name in enumerate(dataset.class_names)
    ]


def _sums(split: StoredSplit, classes: int) -> np.ndarray:
    """Return the sum of the pixels of each class and channel, int64 [C, ch]."""
    sums = np.zeros((classes, split.shape[0]), dtype=np.int64)
    first = 0
    for block in split.blocks():
        np.add.at(sums, split.labels[first : first + len(block)], block.sum(axis=(2, 3), dtype=np.int64))
        first += len(block)
    return sums
