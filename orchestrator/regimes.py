"""What the best set is worth beside the baselines: the best of them, and label regime by label regime. METHOD §6."""

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.comparisons import compare_finals
from orchestrator.finals import CHALLENGE, FULL_DATA, Measured, name_finals
from orchestrator.settings import SweepSettings
from orchestrator.statistics import ALPHA
from orchestrator.tables import FINAL_NAMES, chance_text, difference_parts, markdown_table, mean_std
from trainables.regimes import full_data_epochs

__all__ = ["MEANINGS", "TEACHERS", "against_best", "meanings_text", "regime_parts", "summarize_regimes"]

_OURS = ("winner", "paper_setting")
MEANINGS = {
    "hard": "the image's class",
    "soft": "a teacher's answer to the image",
    "soft_kd": "a teacher's answer to every augmented and mixed view",
}
TEACHERS = {"trained": "trained on all real images", "expert": "an expert at the horizon"}


def meanings_text(regimes: Iterable[str]) -> str:
    """Return what label regimes are, in a line."""
    return "; ".join(f"`{regime}`: {MEANINGS[regime]}" for regime in regimes)


def summarize_regimes(settings: SweepSettings, measured: Measured, best: str, images: int) -> dict[str, Any]:
    """Return `regimes` of result.json: by regime what the best set and the baselines reached, and how they differ.

    Args:
        settings: The sweep's.
        measured: What the finals measured.
        best: The best trial's name.
        images: Real training images, |D|.
    """
    regimes = {}
    for regime, sets in measured.items():
        if regime == CHALLENGE:
            continue
        named = name_finals(sets, best, best)
        del named["paper_setting"]  # name_finals would have the best set twice
        set_images = settings.fixed["ipc"] * len(next(iter(sets.values()))[0].confusion)
        regimes[regime] = {
            "full_data_epochs": full_data_epochs(settings.fixed["regime_epochs"], set_images, images),
            "sets": named,
            "comparisons": compare_finals(named),
        }
    return regimes


def against_best(sets: Mapping[str, Any], comparisons: list[dict[str, Any]]) -> str:
    """Return the sentence that says whether the winner beats the best baseline, and whether chance explains it."""
    rivals = {name: each["accuracy"] for name, each in sets.items() if name not in (*_OURS, FULL_DATA)}
    best = max(rivals, key=lambda name: float(rivals[name]["mean"]))
    gain = sets["winner"]["accuracy"]["mean"] - rivals[best]["mean"]
    of = f"the best of {len(rivals)} baselines, {FINAL_NAMES[best]}" if len(rivals) > 1 else FINAL_NAMES[best]
    verdict = next((each for each in comparisons if (each["a"], each["b"]) == ("winner", best)), None)
    level = f", level {ALPHA:g}" if verdict and verdict["p"] is not None else ""
    word = "beats" if gain > 0 else "does not beat"
    return f"The distilled set {word} {of} ({mean_std(rivals[best])}): {gain:+.3f} ({chance_text(verdict)}{level})."


def regime_parts(settings: SweepSettings, result: dict[str, Any]) -> list[str]:
    """Return what a report says of the label regimes that the finals measured."""
    if not (regimes := result.get("regimes")):
        return []
    names = list(next(iter(regimes.values()))["sets"])
    rows = [
        [FINAL_NAMES[name], *(mean_std(regimes[regime]["sets"][name]["accuracy"]) for regime in regimes)]
        for name in names
    ]
    spreads = {regime: _spread(each["sets"]) for regime, each in regimes.items()}
    said = ", ".join(f"{spread:.3f} in `{regime}`" for regime, spread in spreads.items())
    budget = next(iter(regimes.values()))["full_data_epochs"]
    parts = [
        "## Label regimes",
        f"The best set and the baselines once more, by where a student's labels come from. {meanings_text(regimes)}. "
        f"{settings.fixed['regime_epochs']} epochs on a set, as many images as {budget:.3g} epochs on all real ones; "
        f"T = {settings.fixed['temperature']:g}; the teacher is {TEACHERS[settings.fixed['teacher']]}. Soft "
        "labels tell a student what the teacher knows, and so can hide what the images are worth.",
        markdown_table(["trained on", *(f"`{regime}`" for regime in regimes)], rows),
        f"From the worst set to the best: {said}.",
    ]
    for regime, each in regimes.items():
        parts += [f"**`{regime}`**: {against_best(each['sets'], each['comparisons'])}"]
        parts += difference_parts(each["comparisons"])
    return parts


def _spread(sets: Mapping[str, Any]) -> float:
    means = [float(each["accuracy"]["mean"]) for each in sets.values()]
    return max(means) - min(means)
