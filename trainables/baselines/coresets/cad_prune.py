"""CAD-Prune: images whose scores vary most late in a run of matched budget. docs/coresets/cad_prune.md.

With s_j(x) the score of image x after epoch j = 0 … K − 1 of one run of the matched K epochs:

    U_k = std of s_k … s_{k+J−1} (unbiased),    CAD = (1/W) Σ U_k over k = K − J − W … K − J − 1

The window that ends at the last epoch, k = K − J, is not used.
"""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.selection import highest_of_each_class
from trainables.errors import ConfigError

__all__ = ["SCORES", "cad", "scores", "select"]

SCORES = ("probability", "el2n")


def cad(history: Tensor, J: int | None, W: int) -> Tensor:
    """Return CAD of each image, float64 [n].

    Args:
        history: s, a score of each image after each epoch, float [K, n].
        J: Epochs of a standard deviation; None: K − W, the maximum.
        W: Number of standard deviations that are averaged.

    Raises:
        ConfigError: J is below 2, W below 1, or J + W above K.
    """
    K = len(history)
    length = K - W if J is None else J
    if length < 2 or W < 1 or length + W > K:
        raise ConfigError(
            f"CAD-Prune needs J of at least 2, W of at least 1 and J + W of at most K = {K} epochs, "
            f"not J = {length} and W = {W}; lower J or W, or leave J out"
        )
    windows = [history[k : k + length].double().std(dim=0) for k in range(K - length - W, K - length)]
    return torch.stack(windows).mean(dim=0)


def scores(
    evidence: Evidence, ipc: int, seed: int, *, J: int | None = None, W: int = 2, score: str = "probability"
) -> Tensor:
    """Return CAD of every training image in the run that matches a coreset's budget, float64 [n].

    Args:
        evidence: Provides the run of matched length.
        ipc: Images per class, which decides that length.
        seed: Seed of the run.
        J: As for `cad`; 6 is reported for ImageNet-1K.
        W: As for `cad`.
        score: s: probability, p at the true class, or el2n, ‖p − q‖₂.

    Raises:
        ConfigError: The score is unknown, `cad` refuses J or W, or the run diverged.
    """
    if score not in SCORES:
        raise ConfigError(f"score of CAD-Prune is one of {', '.join(SCORES)}, not {score}")
    run = evidence.matched_run(seed, ipc, W)
    return cad(run.true_probability if score == "probability" else run.el2n, J, W)


def select(
    evidence: Evidence, ipc: int, seed: int, *, J: int | None = None, W: int = 2, score: str = "probability"
) -> Tensor:
    """Return each class's training rows of highest CAD, int64 [ipc·C] in default order.

    Arguments as for `scores`; the seed also decides ties.
    """
    values = scores(evidence, ipc, seed, J=J, W=W, score=score)
    return highest_of_each_class(evidence, ipc, values, evidence.keys(seed, "cad_prune"))
