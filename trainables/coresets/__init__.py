"""Real-image coresets: the training images that a method keeps, as many of every class. METHOD §6, "Coresets".

One module a method: pure functions that choose within one class, and `select` functions that bring them what they
read (`Evidence`) and whose keyword arguments are the method's settings. docs/coresets/ has a page of reasons each.

    balance.py    the loop over classes          ranking.py    scores into ranks
"""

from collections.abc import Callable

from torch import Tensor

from trainables.coresets import (
    cad_prune,
    dynamic_uncertainty,
    el2n,
    forgetting,
    grand,
    herding,
    k_center,
    moderate,
    random,
    uncertainty,
)
from trainables.coresets.evidence import Evidence
from trainables.errors import ConfigError
from trainables.initialization import check_ipc

__all__ = ["NAMES", "Evidence", "select"]

_METHODS: dict[str, Callable[[Evidence, int, int], Tensor]] = {
    "random": random.select,
    "el2n_easy": el2n.select_easy,
    "el2n_hard": el2n.select_hard,
    "el2n_best": el2n.select_best,
    "grand": grand.select,
    "forgetting": forgetting.select,
    "k_center": k_center.select,
    "herding": herding.select,
    "moderate": moderate.select,
    "uncertainty": uncertainty.select,
    "dynamic_uncertainty": dynamic_uncertainty.select,
    "cad_prune": cad_prune.select,
}
NAMES = tuple(_METHODS)
"""The methods, in the order of METHOD §6."""


def select(name: str, evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return the training rows that a method keeps, under its default settings.

    The same images are chosen in whatever order the training images come (of exact duplicates, any). Another seed
    has scoring runs of its own, so coresets of several seeds are independent samples of what the method does.

    Args:
        name: One of `NAMES`.
        evidence: What the method may read: images, scoring runs, and for el2n_best a validation.
        ipc: Images per class.
        seed: Names the scoring runs, and decides ties and random choices.

    Returns:
        Rows of the training split in default order: class 0's, then class 1's …; int64 [ipc·C] on the CPU.

    Raises:
        ConfigError: No method has that name, a class has fewer than `ipc` images, or a scoring run diverged.
        DatasetError: The record of a scoring run is damaged.
    """
    if name not in _METHODS:
        raise ConfigError(f"a coreset is one of {', '.join(NAMES)}, not {name}")
    check_ipc(evidence.dataset, ipc)  # before anything is trained
    return _METHODS[name](evidence, ipc, seed)
