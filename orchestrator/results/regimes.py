"""Summaries of the finals' label regimes."""

from typing import Any

from orchestrator.results.differences import compare_finals
from orchestrator.results.entries import PAPER_SETTING
from orchestrator.results.finals import CHALLENGE, Measured, name_finals
from orchestrator.state.settings import SweepSettings
from trainables.evaluation.regimes import full_data_epochs

__all__ = ["summarize_regimes"]


def summarize_regimes(
    settings: SweepSettings, measured: Measured, best: str, images: int, *, tested: bool = True
) -> dict[str, Any]:
    """Return `regimes` of result.json: by regime the best set's and the baselines' summaries, and their differences.

    Args:
        settings: The sweep's.
        measured: Measurements of the finals.
        best: The best trial's name.
        images: Real training images, |D|.
        tested: Whether differences are tested; if not, there are none.
    """
    regimes = {}
    for regime, sets in measured.items():
        if regime == CHALLENGE:
            continue
        named = name_finals(sets, best, best)
        named.pop(PAPER_SETTING, None)  # `best` is passed for the reference too, which gives the best set twice
        set_images = settings.fixed["ipc"] * len(next(iter(sets.values()))[0].confusion)
        regimes[regime] = {
            "full_data_epochs": full_data_epochs(settings.fixed["regime_epochs"], set_images, images),
            "sets": named,
            "comparisons": compare_finals(named) if tested else [],
        }
    return regimes
