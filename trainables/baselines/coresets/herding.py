"""Herding: images whose running mean stays closest to the mean of their class. docs/coresets/herding.md."""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import balanced
from trainables.errors import ConfigError

__all__ = ["CRITERIA", "herd", "select"]

CRITERIA = ("closest", "farthest")


def herd(features: Tensor, keys: Tensor, count: int, criterion: str) -> Tensor:
    """Return positions of `count` points, int64 [count] in the order in which they were chosen.

    Let μ be the mean of all points and S the i points chosen so far. The next point is the x that minimises
    ‖(i + 1)·μ − Σ_S h − h_x‖₂ (Welling 2009); of equal ones, that with the smallest key.

    Args:
        features: float [m, F], m ≥ count.
        keys: Decide ties, int64 [m].
        count: Number of points to choose.
        criterion: closest; or farthest, which maximises instead, as DeepCore's code does.

    Raises:
        ConfigError: The criterion is unknown.

    Cost: count·m·F operations in float64.
    """
    if criterion not in CRITERIA:
        raise ConfigError(f"criterion of herding is one of {', '.join(CRITERIA)}, not {criterion}")
    by_key = keys.argsort(stable=True)
    points = features[by_key].double()
    sign = 1.0 if criterion == "closest" else -1.0
    mean, missing = points.mean(dim=0), torch.zeros_like(points[0])
    left = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    chosen: list[int] = []
    for _ in range(count):
        missing += mean
        chosen.append(int((sign * (missing - points).square().sum(dim=1) + left).argmin()))  # the first of equal ones
        left[chosen[-1]] = torch.inf
        missing -= points[chosen[-1]]
    return by_key[chosen]


def select(evidence: Evidence, ipc: int, seed: int, *, criterion: str = "closest") -> Tensor:
    """Return what herding chooses of each class in the fully trained network's features, int64 [ipc·C].

    Args:
        evidence: Provides the full training.
        ipc: Images per class.
        seed: Seed of the training and of ties.
        criterion: As for `herd`.
    """
    theta, keys = evidence.long_run(seed).theta, evidence.keys(seed, "herding")
    return balanced(evidence, ipc, lambda rows: herd(evidence.features(theta, rows), keys[rows], ipc, criterion))
