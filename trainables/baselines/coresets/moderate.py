"""Moderate: images at their class's median distance from its mean. docs/coresets/moderate.md."""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import balanced, lowest

__all__ = ["deviations", "most_moderate", "select"]


def deviations(features: Tensor) -> Tensor:
    """Return |d − median(d)|, float64 [m], with d = ‖h − μ‖₂ and μ the mean of features h, float [m, F].

    The median of an even number is the mean of the middle two.
    """
    points = features.double()
    distances: Tensor = torch.linalg.vector_norm(points - points.mean(dim=0), dim=1)
    return (distances - distances.quantile(0.5)).abs()


def most_moderate(features: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return positions of the `count` points of smallest deviation, int64 [count]; keys int64 [m] decide ties."""
    by_key = keys.argsort(stable=True)  # so that rounding does not depend on the order of the rows
    return by_key[lowest(deviations(features[by_key]), keys[by_key], count)]


def select(evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return each class's most moderate rows in the fully trained network's features, int64 [ipc·C] in default order.

    Args:
        evidence: Provides the full training.
        ipc: Images per class.
        seed: Seed of the training and of ties.
    """
    theta, keys = evidence.long_run(seed).theta, evidence.keys(seed, "moderate")
    return balanced(evidence, ipc, lambda rows: most_moderate(evidence.features(theta, rows), keys[rows], ipc))
