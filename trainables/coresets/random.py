"""Random images of every class: the baseline of every other method. docs/coresets/random.md."""

from torch import Tensor

from trainables.coresets.balance import lowest_of_each_class
from trainables.coresets.evidence import Evidence

__all__ = ["select"]


def select(evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return `ipc` random training rows a class, int64 [ipc·C] in default order; those of fewer begin those of more."""
    keys = evidence.keys(seed, "random")
    return lowest_of_each_class(evidence, ipc, keys, keys)
