"""How a trained network does on real images. METHOD §3."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["TESTED", "Metrics", "measure"]

TESTED = ("accuracy", "macro_f1", "macro_recall")
"""What of Metrics is reported as a figure."""


@dataclass(frozen=True)
class Metrics:
    """How a trained network does on real images; every figure is a fraction in [0, 1]."""

    confusion: tuple[tuple[int, ...], ...]
    """Number of images by actual class (row) and predicted class (column)."""

    @property
    def accuracy(self) -> float:
        """Share of the images that are predicted as what they are."""
        return float(self._hits.sum() / self._counts.sum())

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1; one that is never predicted has 0, as scikit-learn's `zero_division=0` has it."""
        return float((2 * self._hits / (self._counts.sum(0) + self._counts.sum(1)).clip(1))[self._present].mean())

    @property
    def macro_recall(self) -> float:
        """Mean of the classes' recall."""
        return float((self._hits / self._counts.sum(1).clip(1))[self._present].mean())

    @property
    def _counts(self) -> np.ndarray:
        return np.asarray(self.confusion)

    @property
    def _hits(self) -> np.ndarray:
        hits: np.ndarray = np.diagonal(self._counts)
        return hits

    @property
    def _present(self) -> np.ndarray:
        """Classes that occur or are predicted."""
        present: np.ndarray = (self._counts.sum(0) + self._counts.sum(1)) > 0
        return present


def measure(predicted: Tensor, labels: Tensor, classes: int) -> Metrics:
    """Return how predictions int64 [m] do against labels int64 [m], both in [0, classes)."""
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    return Metrics(tuple(tuple(row) for row in confusion.tolist()))
