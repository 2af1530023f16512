"""As many images of every class, in default order."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.coresets.evidence import Evidence
from trainables.coresets.ranking import highest, lowest
from trainables.initialization import check_ipc

__all__ = ["balanced", "highest_of_each_class", "lowest_of_each_class"]


def balanced(evidence: Evidence, ipc: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `choose` keeps of every class, rows int64 [ipc·C] in default order.

    Args:
        evidence: Whose training images they are.
        ipc: Images per class.
        choose: Given a class's rows, int64 [m] in an order that their content alone decides, returns the positions
            among them of those it keeps, int64 [ipc].

    Raises:
        ConfigError: As `check_ipc`.
    """
    check_ipc(evidence.dataset, ipc)
    return torch.cat([rows[choose(rows)] for rows in evidence.rows_by_class])


def highest_of_each_class(evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor) -> Tensor:
    """Return the rows, int64 [ipc·C], of each class's highest scores float [n]; keys int64 [n] decide ties."""
    return balanced(evidence, ipc, lambda rows: highest(scores[rows], keys[rows], ipc))


def lowest_of_each_class(evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor) -> Tensor:
    """Return the rows, int64 [ipc·C], of each class's lowest scores float [n]; keys int64 [n] decide ties."""
    return balanced(evidence, ipc, lambda rows: lowest(scores[rows], keys[rows], ipc))
