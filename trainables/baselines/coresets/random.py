"""Random images of every class: the baseline of all other methods. docs/coresets/random.md."""

from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import lowest_of_each_class

__all__ = ["select"]


def select(evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return `ipc` random training rows per class, int64 [ipc·C] in default order.

    The rows of a class at a smaller `ipc` are the first rows at a larger one.
    """
    keys = evidence.keys(seed, "random")
    return lowest_of_each_class(evidence, ipc, keys, keys)
