"""Uncertainty: images that a trained network is least sure about. docs/coresets/uncertainty.md. METHOD §6."""

from torch import Tensor

from trainables.coresets.balance import highest_of_each_class
from trainables.coresets.evidence import Evidence
from trainables.errors import ConfigError
from trainables.scores import Dynamics

__all__ = ["MEASURES", "select", "uncertainties"]

MEASURES = ("confidence", "entropy", "margin")


def uncertainties(run: Dynamics, measure: str) -> Tensor:
    """Return how unsure a run's network is of each image after its last epoch, float32 [n].

    Args:
        run: The run.
        measure: confidence: 1 − max p; entropy: −Σ p log p; margin: 1 − (largest p − second largest).
    """
    match measure:
        case "confidence":
            return 1 - run.confidence[-1]
        case "entropy":
            return run.entropy[-1]
        case "margin":
            return 1 - run.margin[-1]
        case _:
            raise ConfigError(f"measure of uncertainty is one of {', '.join(MEASURES)}, not {measure}")


def select(evidence: Evidence, ipc: int, seed: int, *, measure: str = "confidence") -> Tensor:
    """Return each class's training rows that the fully trained network is least sure about, int64 [ipc·C].

    Args:
        evidence: Has the full training.
        ipc: Images per class.
        seed: Names the training, and decides ties.
        measure: As for `uncertainties`.
    """
    scores = uncertainties(evidence.long_run(seed), measure)
    return highest_of_each_class(evidence, ipc, scores, evidence.keys(seed, "uncertainty"))
