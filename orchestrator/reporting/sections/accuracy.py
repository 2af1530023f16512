"""The headline of a report, and its section about accuracy on the test split."""

from collections.abc import Mapping
from typing import Any

from orchestrator.reporting.sections.movement import movement_text
from orchestrator.reporting.sections.regimes import against_best
from orchestrator.reporting.tables import (
    differences_markdown,
    finals_table,
    repeats_markdown,
)
from orchestrator.reporting.templating import render
from orchestrator.reporting.words import mean_std
from orchestrator.results.entries import PAPER_SETTING, RANDOM_REAL, WINNER
from orchestrator.state.settings import SweepSettings

__all__ = ["headline", "test_section"]


def headline(result: Mapping[str, Any]) -> str:
    """Return the winner and its gains in Markdown: over fresh distillations where the finals made them.

    It says too where the best trial, or most trials, hardly moved their images.
    """
    finals, best, paper = result["finals"], result["best"], result["paper"]
    again = {name: variant["accuracy"] for name, variant in result.get("repeats", {"variants": {}})["variants"].items()}
    accuracies = {name: metrics["accuracy"] for name, metrics in finals.items()}
    distillations = again[WINNER]["n"] if again.get(WINNER) else None
    if distillations:
        accuracies |= {name: summary for name, summary in again.items() if summary}
    winner = accuracies[WINNER]

    comparisons = result["repeats"]["comparisons"] if distillations else result["comparisons"]
    rivals = {name: {"accuracy": summary} for name, summary in accuracies.items()}

    def gain(name: str) -> str:
        return f"{winner['mean'] - accuracies[name]['mean']:+.3f}{_verdict(comparisons, name)}"

    return render(
        "sections/headline.md.j2",
        trial=best["trial"],
        variant=best["config"].get("variant"),
        repeat=best["config"].get("repeat"),
        accuracy=mean_std(winner),
        distillations=distillations,
        networks=winner["n"],
        random_gain=gain(RANDOM_REAL),
        is_reference=bool(paper) and paper["trial"] == best["trial"],
        reference_gain=gain(PAPER_SETTING) if PAPER_SETTING in finals else None,
        against_best=against_best(rivals, comparisons),
        movement=movement_text(result),
    )


def _verdict(comparisons: list[dict[str, Any]], other: str) -> str:
    """Return in brackets whether the winner's difference from another set or setting is significant."""
    for test in comparisons:
        if (test["a"], test["b"]) == (WINNER, other):
            if test["p"] is None:
                return " (too few values to test)"
            said = "which chance does not explain" if test["significant"] else "which may be chance"
            return f" ({said}: {test['test']}, Holm-corrected p = {test['p_holm']:.2g})"
    return ""


def test_section(settings: SweepSettings, result: dict[str, Any]) -> str:
    """Return the section about the test split in Markdown: the settings distilled again, the search's own sets."""
    repeats = result.get("repeats")
    return render(
        "sections/accuracy.md.j2",
        protocol=settings.final_protocol,
        full_epochs=settings.full_data_protocol.epochs,
        repeats=repeats_markdown(repeats) if repeats else "",
        repeats_differences=differences_markdown(repeats["comparisons"]) if repeats else "",
        networks=result["finals"][WINNER]["accuracy"]["n"],
        finals=finals_table(result["finals"]),
        against_best=against_best(result["finals"], result["comparisons"]),
        differences=differences_markdown(result["comparisons"]),
    )
