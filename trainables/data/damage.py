"""Images that cannot be read: refused all at once, or left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from trainables.data.decoding import Damaged
from trainables.data.source import FoundImages
from trainables.errors import DatasetError

__all__ = ["Damage", "kept_rows"]

_NAMED = 10  # images whose names a message has


@dataclass(frozen=True)
class Damage:
    """The damaged images of a dataset."""

    count: int
    first: tuple[str, ...]
    """The first ten, with the reasons."""

    @classmethod
    def of(cls, damaged: Sequence[Damaged]) -> Self:
        """Return what is told of damaged images."""
        return cls(len(damaged), tuple(f"{where} ({reason})" for _, where, reason in damaged[:_NAMED]))

    @classmethod
    def read(cls, stored: dict[str, Any] | None) -> "Damage | None":
        """Return what `as_stored` stored; None: nothing."""
        return None if stored is None else cls(stored["count"], tuple(stored["first"]))

    def as_stored(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"count": self.count, "first": self.first}

    def __str__(self) -> str:
        """Name the first ten."""
        more = self.count - len(self.first)
        return "; ".join(self.first) + (f"; and {more:,} more" if more else "")


def kept_rows(found: FoundImages, damaged: Sequence[Damaged], rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the images to be kept, bool [n], of the training and of the test split.

    Args:
        found: The dataset.
        damaged: Its damaged images.
        rule: refuse, or skip: they are left out.

    Raises:
        DatasetError: The rule is refuse and there are damaged images, or all images of a class are damaged.
    """
    train, test = found.train, found.test
    kept = np.ones(len(train.labels) + len(test.labels), dtype=bool)
    kept[[row for row, _, _ in damaged]] = False
    if damaged and rule == "refuse":
        damage = Damage.of(damaged)
        leave_out = "or leave them out with --set damaged=skip"
        if damage.count == 1:
            (_, where, reason), *_ = damaged
            raise DatasetError(f"{where} cannot be decoded as an image ({reason}): fetch it again, {leave_out}")
        raise DatasetError(
            f"{damage.count:,} of {len(kept):,} images cannot be decoded: {damage}: fetch them again, {leave_out}"
        )
    masks = kept[: len(train.labels)], kept[len(train.labels) :]
    for split, mask in zip((train, test), masks, strict=True):
        if lost := sorted(set(np.unique(split.labels)) - set(np.unique(split.labels[mask]))):
            name = found.class_names[lost[0]]
            raise DatasetError(
                f"all images of the class {name!r} in {split.where} are damaged, as {Damage.of(damaged)}: fetch them "
                "again, or remove the class"
            )
    return masks
