"""k-centre greedy: images such that every image of the class is close to one of them. docs/coresets/k_center.md."""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import balanced

__all__ = ["centers", "select"]


def centers(features: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return positions of `count` centres, int64 [count] in the order in which they were chosen.

    The first centre is the point with the smallest key. Each further centre is the point farthest from all centres so
    far; of equally far points, that with the smallest key. The largest distance of a point to its nearest centre is at
    most twice the minimum (Gonzalez 1985).

    Args:
        features: float [m, F], m ≥ count.
        keys: int64 [m].
        count: Number of centres.

    Cost: count·m·F operations in float64; no m × m matrix.
    """
    by_key = keys.argsort(stable=True)
    points = features[by_key].double()
    chosen = [0]
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(dim=1))
        nearest[chosen[-1]] = -1  # below any distance: a duplicate of a centre still comes before the centre itself
        chosen.append(int(nearest.argmax()))  # the first of equal ones
    return by_key[chosen]


def select(evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return k centres of each class in the fully trained network's feature space, int64 [ipc·C] in default order.

    Args:
        evidence: Provides the full training.
        ipc: Images per class.
        seed: Seed of the training and of each class's first centre.
    """
    theta, keys = evidence.long_run(seed).theta, evidence.keys(seed, "k_center")
    return balanced(evidence, ipc, lambda rows: centers(evidence.features(theta, rows), keys[rows], ipc))
