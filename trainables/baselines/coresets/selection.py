"""Selection of the same number of images of every class, in default order."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.data.real_images import check_ipc

__all__ = ["balanced", "highest", "highest_of_each_class", "lowest", "lowest_of_each_class"]


def balanced(evidence: Evidence, ipc: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the rows that `choose` selects of every class, int64 [ipc·C] in default order.

    Args:
        evidence: Provides the training images.
        ipc: Images per class.
        choose: Receives a class's rows, int64 [m], in an order that depends only on their content; returns the
            positions of the selected ones among them, int64 [ipc].

    Raises:
        ConfigError: `ipc` is below 1, or a class has fewer images.
    """
    check_ipc(evidence.dataset, ipc)
    return torch.cat([rows[choose(rows)] for rows in evidence.rows_by_class])


def highest_of_each_class(evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor) -> Tensor:
    """Return the rows, int64 [ipc·C], of each class's highest scores float [n]; keys int64 [n] decide ties."""
    return balanced(evidence, ipc, lambda rows: highest(scores[rows], keys[rows], ipc))


def lowest_of_each_class(evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor) -> Tensor:
    """Return the rows, int64 [ipc·C], of each class's lowest scores float [n]; keys int64 [n] decide ties."""
    return balanced(evidence, ipc, lambda rows: lowest(scores[rows], keys[rows], ipc))


def lowest(scores: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` lowest scores [m], lowest first; of equal ones, the smallest keys int64 [m].

    Positions are int64 [count].
    """
    by_key = keys.argsort(stable=True)
    return by_key[scores[by_key].argsort(stable=True)][:count]


def highest(scores: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` highest scores [m], highest first; of equal ones, the smallest keys."""
    return lowest(-scores, keys, count)
