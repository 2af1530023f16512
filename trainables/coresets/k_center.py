"""k-centre greedy: images such that none of the class is far from one of them. docs/coresets/k_center.md. METHOD §6."""

import torch
from torch import Tensor

from trainables.coresets.balance import balanced
from trainables.coresets.evidence import Evidence

__all__ = ["centers", "select"]


def centers(features: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return positions of `count` centres, int64 [count] in the order in which they were chosen.

    The first is the one of smallest key, each further one that farthest from all chosen before; of equally far ones
    that of smallest key. The largest distance of a point to its nearest centre is at most twice the least possible
    (Gonzalez 1985).

    Args:
        features: float [m, F], m ≥ count.
        keys: int64 [m].
        count: How many.

    Cost: count·m·F operations in float64; no m × m matrix.
    """
    by_key = keys.argsort(stable=True)
    points = features[by_key].double()
    chosen = [0]
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64, device=points.device)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(dim=1))
        nearest[chosen[-1]] = -1  # below any distance: not even a duplicate of a centre loses to the centre itself
        chosen.append(int(nearest.argmax()))  # the first of equal ones
    return by_key[chosen]


def select(evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return k centres of each class in the fully trained network's feature space, int64 [ipc·C] in default order.

    Args:
        evidence: Has the full training.
        ipc: Images per class.
        seed: Names the training and each class's first centre.
    """
    theta, keys = evidence.long_run(seed).theta, evidence.keys(seed, "k_center")
    return balanced(evidence, ipc, lambda rows: centers(evidence.features(theta, rows), keys[rows], ipc))
