"""GraNd: norm of an image's gradient in early networks. docs/coresets/grand.md.

docs/method.md, "Coresets": E‖∇ℓ‖, or its part in the last layer, ‖p − q‖·√(1 + ‖h‖²).
"""

import torch
from torch import Tensor

from trainables.baselines.coresets.evidence import EARLY_EPOCHS, EARLY_RUNS, Evidence
from trainables.baselines.coresets.selection import highest_of_each_class
from trainables.errors import ConfigError

__all__ = ["FORMS", "select"]

FORMS = ("last_layer", "exact")


def select(
    evidence: Evidence,
    ipc: int,
    seed: int,
    *,
    form: str = "last_layer",
    runs: int = EARLY_RUNS,
    epochs: int = EARLY_EPOCHS,
) -> Tensor:
    """Return each class's training rows of largest mean gradient norm, int64 [ipc·C] in default order.

    Args:
        evidence: Provides the scoring runs.
        ipc: Images per class.
        seed: Seed of the runs and of ties.
        form: last_layer, or exact: the gradient of all parameters, which costs one gradient per image and run.
        runs: Number of runs that are averaged; docs/method.md, "Coresets" has at least 10.
        epochs: The epoch after which they score, counted from 1.
    """
    if form not in FORMS:
        raise ConfigError(f"form of GraNd is one of {', '.join(FORMS)}, not {form}")
    scores = torch.stack(
        [
            run.grand[-1] if form == "last_layer" else evidence.gradient_norms(run.theta)
            for run in evidence.early_runs(seed, runs, epochs)
        ]
    )
    return highest_of_each_class(evidence, ipc, scores.double().mean(dim=0), evidence.keys(seed, "grand"))
