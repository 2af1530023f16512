"""Forgetting: how often an image changes from correct to wrong in training. docs/coresets/forgetting.md."""

import math

from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import highest_of_each_class
from trainables.errors import ConfigError

__all__ = ["NEVER_LEARNED", "forgettings", "select"]

NEVER_LEARNED = ("most", "least")


def forgettings(correct: Tensor, never_learned: str) -> Tensor:
    """Return how often each image changes from correctly to wrongly classified, float64 [n].

    Args:
        correct: Whether each image is classified correctly after each epoch, bool [E, n].
        never_learned: Images that are never classified correctly count as forgotten most, ∞ (Toneva), or least, 0
            (DeepCore).

    Raises:
        ConfigError: `never_learned` is neither.
    """
    if never_learned not in NEVER_LEARNED:
        raise ConfigError(f"never_learned is one of {', '.join(NEVER_LEARNED)}, not {never_learned}")
    counts = (correct[:-1] & ~correct[1:]).sum(dim=0).double()
    return counts.masked_fill(~correct.any(dim=0), math.inf if never_learned == "most" else 0.0)


def select(evidence: Evidence, ipc: int, seed: int, *, never_learned: str = "most") -> Tensor:
    """Return each class's most often forgotten training rows, int64 [ipc·C] in default order.

    Args:
        evidence: Provides the full training.
        ipc: Images per class.
        seed: Seed of the training and of ties, which decide most of the choice.
        never_learned: As for `forgettings`.
    """
    scores = forgettings(evidence.long_run(seed).correct, never_learned)
    return highest_of_each_class(evidence, ipc, scores, evidence.keys(seed, "forgetting"))
