"""Real-image coresets: training images that a method selects, the same number of every class.

Source: docs/method.md, "Coresets".

There is one module per method. Its pure functions choose within one class. Its `select` function gives them their
inputs (`Evidence`); the keyword arguments of `select` are the method's settings. docs/coresets/ has a page per method.
"""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Coreset, Evidence
from trainables.data.labels import default_order_labels
from trainables.data.real_images import check_ipc
from trainables.errors import ConfigError

__all__ = ["Coreset", "Evidence", "select"]


def select(coreset: Coreset, evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """Return the training rows that a coreset method selects with its default settings.

    The choice does not depend on the order of the training images (of exact duplicates, any may be chosen). Every seed
    has its own scoring runs, so coresets of several seeds are independent samples of the method.

    Args:
        coreset: The `select` function of the method.
        evidence: Inputs of the method: images, scoring runs, and a validation for el2n_best.
        ipc: Images per class.
        seed: Seed of the scoring runs, ties and random choices.

    Returns:
        Rows of the training split in default order: class 0's, then class 1's …; int64 [ipc·C] on the CPU.

    Raises:
        ConfigError: A class has fewer than `ipc` images, a scoring run diverged, or the result is not a valid coreset.
        DatasetError: The record of a scoring run is damaged.
    """
    check_ipc(evidence.dataset, ipc)  # before anything is trained
    rows = coreset(evidence, ipc, seed)
    classes = evidence.dataset.classes
    if rows.dtype != torch.int64 or rows.shape != (ipc * classes,) or len(rows.unique()) < len(rows):
        raise ConfigError(f"a coreset gives ipc · classes = {ipc * classes} different rows, int64, not {rows}")
    if not torch.equal(evidence.dataset.labels("train", rows), default_order_labels(ipc, classes)):
        raise ConfigError(f"a coreset gives {ipc} rows of class 0, then {ipc} of class 1 and so on; order its rows so")
    return rows
