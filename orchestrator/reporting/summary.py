"""A result in short, for the description of its MLflow run."""

from collections.abc import Mapping
from typing import Any

from orchestrator.reporting.comparison import spread, verdicts
from orchestrator.reporting.sections.accuracy import headline
from orchestrator.reporting.tables import differences_markdown, finals_table, repeats_markdown, study_markdown
from orchestrator.reporting.templating import render
from orchestrator.reporting.words import reference_text
from orchestrator.state.settings import SweepSettings, repeat_command
from search_spaces import Study

__all__ = ["describe", "describe_comparison"]


def describe_comparison(settings: SweepSettings, result: Mapping[str, Any]) -> str:
    """Return the description of a comparison's run in Markdown; short, since MLflow truncates a long one."""
    records = result["records"]
    folder = settings.places.shared
    return render("comparison_summary.md.j2", verdicts=verdicts(records), spread=spread(records), folder=folder)


def describe(result: Mapping[str, Any], settings: SweepSettings) -> str:
    """Return a finished sweep's result in Markdown, without pictures: MLflow does not resolve paths of artifacts.

    Args:
        result: The content of result.json.
        settings: Settings of the sweep.
    """
    repeats, space = result.get("repeats"), settings.space
    return render(
        "summary.md.j2",
        headline=headline(result),
        counts=result["trials"],
        reference=reference_text(space),
        folder=settings.places.shared,
        command=repeat_command(settings),
        finals=finals_table(result["finals"]),
        differences=differences_markdown(result["comparisons"]),
        repeats=repeats_markdown(repeats) if repeats else "",
        repeats_differences=differences_markdown(repeats["comparisons"]) if repeats else "",
        variants=study_markdown(result["study"], space) if isinstance(space, Study) else "",
    )
