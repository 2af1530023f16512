"""Summaries of repeated measurements."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["summarize"]


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, sample standard deviation (n − 1; 0 for one value), n and the values themselves."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "n": len(values),
        "values": [float(value) for value in values],
    }
