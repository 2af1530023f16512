"""Uncertainty: images with the least certain predictions of a trained network. docs/coresets/uncertainty.md."""

from torch import Tensor

from trainables.baselines.coresets.evidence import Evidence
from trainables.baselines.coresets.scores import Dynamics
from trainables.baselines.coresets.selection import highest_of_each_class
from trainables.errors import ConfigError

__all__ = ["MEASURES", "select", "uncertainties"]

MEASURES = ("confidence", "entropy", "margin")


def uncertainties(run: Dynamics, measure: str) -> Tensor:
    """Return the uncertainty of a run's network about each image after its last epoch, float32 [n].

    Args:
        run: The run.
        measure: confidence: 1 − max p; entropy: −Σ p log p; margin: 1 − (largest p − second largest).

    Raises:
        ConfigError: The measure is unknown.
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
    """Return each class's training rows of highest uncertainty in the fully trained network, int64 [ipc·C].

    Args:
        evidence: Provides the full training.
        ipc: Images per class.
        seed: Seed of the training and of ties.
        measure: As for `uncertainties`.
    """
    scores = uncertainties(evidence.long_run(seed), measure)
    return highest_of_each_class(evidence, ipc, scores, evidence.keys(seed, "uncertainty"))
