"""As many images of every class, in default order."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.coresets.evidence import Evidence
from trainables.coresets.ranking import highest, lowest
from trainables.errors import ConfigError

__all__ = ["balanced", "check_ipc", "highest_of_each_class", "lowest_of_each_class"]


def check_ipc(evidence: Evidence, ipc: int) -> None:
    """Check that every class has `ipc` training images.

    Raises:
        ConfigError: A class has fewer, or `ipc` is below 1.
    """
    if ipc < 1:
        raise ConfigError(f"ipc must be at least 1, not {ipc}")
    for name, rows in zip(evidence.dataset.class_names, evidence.rows_by_class, strict=True):
        if len(rows) < ipc:
            raise ConfigError(f"class {name!r} has {len(rows)} training images, fewer than ipc = {ipc}; lower ipc")


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
    check_ipc(evidence, ipc)
    return torch.cat([rows[choose(rows)] for rows in evidence.rows_by_class])


def highest_of_each_class(evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor) -> Tensor:
    """Return the rows, int64 [ipc·C], of each class's highest scores float [n]; keys int64 [n] decide ties."""
    return balanced(evidence, ipc, lambda rows: highest(scores[rows], keys[rows], ipc))


def lowest_of_each_class(evidence: Evidence, ipc: int, scores: Tensor, keys: Tensor) -> Tensor:
    """Return the rows, int64 [ipc·C], of each class's lowest scores float [n]; keys int64 [n] decide ties."""
    return balanced(evidence, ipc, lambda rows: lowest(scores[rows], keys[rows], ipc))
