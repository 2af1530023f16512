"""Scores into ranks; keys, not positions, decide ties."""

from torch import Tensor

__all__ = ["highest", "lowest"]


def lowest(scores: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` lowest scores [m], lowest first; of equal ones, the smallest keys int64 [m].

    Positions are int64 [count].
    """
    by_key = keys.argsort(stable=True)
    return by_key[scores[by_key].argsort(stable=True)][:count]


def highest(scores: Tensor, keys: Tensor, count: int) -> Tensor:
    """Return the positions of the `count` highest scores [m], highest first; of equal ones, the smallest keys."""
    return lowest(-scores, keys, count)
