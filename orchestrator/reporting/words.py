"""The words of reports: names of entries, methods and regimes, and numbers as text."""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.results.entries import FULL_DATA, PAPER_SETTING, RANDOM_REAL, WINNER
from search_spaces import Space
from search_spaces.registry import label

__all__ = [
    "MEANINGS",
    "STUDY_HEADINGS",
    "TEACHERS",
    "chance_text",
    "mean_std",
    "meanings_text",
    "method_name",
    "number_text",
    "overridden_text",
    "reference_text",
]

MEANINGS = {
    "hard": "the image's class",
    "soft": "a teacher's answer to the image",
    "soft_kd": "a teacher's answer to every augmented and mixed view",
}
TEACHERS = {"trained": "trained on all real images", "expert": "an expert at the horizon"}

_FINAL_NAMES = {
    WINNER: "best trial",
    PAPER_SETTING: "reference setting (trial 0)",
    RANDOM_REAL: "random real images",
    FULL_DATA: "full training set",
}
STUDY_HEADINGS = {
    "validation_accuracy": "validation",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "macro_recall": "macro-recall",
}


def meanings_text(regimes: Iterable[str]) -> str:
    """Return the meanings of label regimes in one line of Markdown."""
    return "; ".join(f"`{regime}`: {MEANINGS[regime]}" for regime in regimes)


def method_name(name: str) -> str:
    """Return the name of a set of the finals, or of a method of a comparison, in reports."""
    return _FINAL_NAMES.get(name) or label(name) or name


def chance_text(comparison: Mapping[str, Any] | None) -> str:
    """Return whether chance explains a difference, in words; None: it was not tested."""
    if comparison is None or comparison["p"] is None:
        return "too few values to test"
    how = "chance does not explain it" if comparison["significant"] else "which may be chance"
    return f"{how}: {comparison['test']}, Holm-corrected p = {comparison['p_holm']:.2g}"


def mean_std(summary: dict[str, Any]) -> str:
    """Return mean ± std of a summary to three decimals; one value has no std."""
    spread = f" ± {summary['std']:.3f}" if summary["n"] > 1 else ""
    return f"{summary['mean']:.3f}{spread}"


def overridden_text(space: Space) -> str:
    """Return the settings that `--set` has changed, in Markdown; "" where it changed none."""
    return ", ".join(f"`{name}={value}`" for name, value in space.set_by().items())


def reference_text(space: Space) -> str:
    """Return the origin of trial 0's settings, in Markdown, and what `--set` has changed in them."""
    overridden = overridden_text(space)
    return f"{space.reference}{f', but for {overridden}' if overridden else ''}"


def number_text(value: Any) -> str:
    """Return a value as text, a float to three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
