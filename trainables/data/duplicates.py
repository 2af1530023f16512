"""Images of a prepared dataset that occur more than once, found by their decoded pixels."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from trainables.data.datasets import load, open_splits
from trainables.data.image_keys import pixel_keys
from trainables.data.preparation import SPLITS
from trainables.storage.atomic import write_json

__all__ = ["Duplicates", "duplicates_of"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """How many images of a dataset have exactly the pixels of another, whatever their labels."""

    test: int
    """Images of the test split."""
    test_in_train: int
    """Those of them that are also in the train or validation split."""
    within_train: int
    """Images of the train and validation split that repeat an earlier one of these two."""

    @property
    def warning(self) -> str:
        """One sentence on test images that are also training images; "" if there are none."""
        if not self.test_in_train:
            return ""
        return (
            f"{self.test_in_train:,} of {self.test:,} test images are also training images, pixel by pixel, so that "
            "accuracies on the test split are too high; remove them from one of the two"
        )


def duplicates_of(path: Path) -> Duplicates:
    """Return the duplicates of a prepared dataset; counted once and kept in a file beside it.

    Only hashes of the test images are compared; nothing is learned from them. Cost: one read of the file's bytes.
    Memory: a block of images, and 8 bytes an image.

    Args:
        path: What `datasets.prepare` or `datasets.whiten` returned.

    Raises:
        DatasetError: `datasets.load` refuses the dataset.
    """
    images = path.with_name(f"{path.name.partition('.')[0]}.arrow")
    kept = images.with_name(f"{images.stem}.duplicates.json")
    identity = {"version": FORMAT_VERSION, "digest": load(images, ()).digest}
    if kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content.items() >= identity.items():
            return Duplicates(**{name: count for name, count in content.items() if name not in identity})
    found = _count(images)
    write_json(kept, {**identity, **asdict(found)})
    return found


def _count(path: Path) -> Duplicates:
    with open_splits(path) as splits:
        train, validation, test = (pixel_keys(splits[name]) for name in SPLITS)
    seen = np.concatenate([train, validation])
    different = np.unique(seen)
    return Duplicates(
        test=len(test), test_in_train=int(np.isin(test, different).sum()), within_train=len(seen) - len(different)
    )
