"""Dyn-Unc: images whose true-class probability varies most in training. docs/coresets/dynamic_uncertainty.md."""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import highest_of_each_class
from trainables.errors import ConfigError

__all__ = ["dynamic_uncertainties", "select"]


def dynamic_uncertainties(probabilities: Tensor, window: int) -> Tensor:
    """Return the mean, over all windows of consecutive epochs, of the unbiased standard deviation within each.

    Args:
        probabilities: p at the true class after each epoch, float [E, n].
        window: Epochs of a window; E if the run has fewer.

    Returns:
        float64 [n].

    Raises:
        ConfigError: A window has fewer than two epochs.
    """
    length = min(window, len(probabilities))
    if length < 2:
        raise ConfigError(
            f"dynamic uncertainty needs windows of at least 2 epochs, not {length}: "
            f"window is {window}, the run has {len(probabilities)} epochs; raise the smaller"
        )
    total = torch.zeros(probabilities.shape[1], dtype=torch.float64)
    starts = range(len(probabilities) - length + 1)
    for start in starts:
        total += probabilities[start : start + length].double().std(dim=0)
    return total / len(starts)


def select(evidence: Evidence, ipc: int, seed: int, *, window: int = 10) -> Tensor:
    """Return each class's training rows of highest dynamic uncertainty in the full training, int64 [ipc·C].

    Args:
        evidence: Provides the full training.
        ipc: Images per class.
        seed: Seed of the training and of ties.
        window: As for `dynamic_uncertainties`.
    """
    scores = dynamic_uncertainties(evidence.long_run(seed).true_probability, window)
    return highest_of_each_class(evidence, ipc, scores, evidence.keys(seed, "dynamic_uncertainty"))
