"""Metrics of a trained network on real images. docs/method.md, "Challenge protocol"."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["TESTED", "Metrics", "measure"]

TESTED = ("accuracy", "macro_f1", "macro_recall")
"""The properties of Metrics that are reported as figures."""


@dataclass(frozen=True)
class Metrics:
    """Metrics of a trained network on real images; every figure is a fraction in [0, 1]."""

    confusion: tuple[tuple[int, ...], ...]
    """Number of images by actual class (row) and predicted class (column)."""

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return float(self._hits.sum() / self._counts.sum())

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur; one that is never predicted has 0, as scikit-learn's `zero_division=0`."""
        return float((2 * self._hits / (self._counts.sum(0) + self._counts.sum(1)).clip(1))[self._present].mean())

    @property
    def macro_recall(self) -> float:
        """Mean recall of the classes that occur."""
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
        """Classes that occur: one without images cannot be recalled, and a mistake counts where it was made."""
        present: np.ndarray = self._counts.sum(1) > 0
        return present


def measure(predicted: Tensor, labels: Tensor, classes: int) -> Metrics:
    """Return the metrics of predictions int64 [m] against labels int64 [m], both in [0, classes)."""
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
    return Metrics(tuple(tuple(row) for row in confusion.tolist()))
