"""The best set against the baselines: the best of them, and in every label regime.

Source: docs/method.md, "Label regimes".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from orchestrator.reporting.tables import differences_markdown
from orchestrator.reporting.templating import render
from orchestrator.reporting.words import TEACHERS, chance_text, mean_std, meanings_text, method_name
from orchestrator.results.entries import FULL_DATA, PAPER_SETTING, WINNER
from orchestrator.results.statistics import ALPHA
from orchestrator.state.settings import SweepSettings

__all__ = ["against_best", "regime_section"]

_OURS = (WINNER, PAPER_SETTING)


def against_best(sets: Mapping[str, Any], comparisons: list[dict[str, Any]]) -> str:
    """Return in a sentence of Markdown whether the winner beats the best baseline, and whether by chance."""
    rivals = {name: measured["accuracy"] for name, measured in sets.items() if name not in (*_OURS, FULL_DATA)}
    best = max(rivals, key=lambda name: float(rivals[name]["mean"]))
    test = next((test for test in comparisons if (test["a"], test["b"]) == (WINNER, best)), None)
    return render(
        "sections/against_best.md.j2",
        gain=sets[WINNER]["accuracy"]["mean"] - rivals[best]["mean"],
        rivals=len(rivals),
        best=method_name(best),
        accuracy=mean_std(rivals[best]),
        chance=chance_text(test),
        level=ALPHA if test and test["p"] is not None else None,
    )


class _Regime(NamedTuple):
    """The best set against the baselines in one label regime."""

    name: str
    spread: float
    """The largest mean accuracy less the smallest."""
    against_best: str
    differences: str
    """In Markdown."""


def regime_section(settings: SweepSettings, result: dict[str, Any]) -> str:
    """Return the section about the label regimes that the finals measured in Markdown; "" where there are none."""
    if not (regimes := result.get("regimes")):
        return ""
    first = next(iter(regimes.values()))
    return render(
        "sections/regimes.md.j2",
        meanings=meanings_text(regimes),
        epochs=settings.fixed["regime_epochs"],
        full_data_epochs=first["full_data_epochs"],
        temperature=settings.fixed["temperature"],
        teacher=TEACHERS[settings.fixed["teacher"]],
        headings=[f"`{regime}`" for regime in regimes],
        rows=[
            [method_name(name), *(mean_std(regimes[regime]["sets"][name]["accuracy"]) for regime in regimes)]
            for name in first["sets"]
        ],
        regimes=[
            _Regime(
                name,
                _spread(measured["sets"]),
                against_best(measured["sets"], measured["comparisons"]),
                differences_markdown(measured["comparisons"]),
            )
            for name, measured in regimes.items()
        ],
    )


def _spread(sets: Mapping[str, Any]) -> float:
    means = [float(measured["accuracy"]["mean"]) for measured in sets.values()]
    return max(means) - min(means)
