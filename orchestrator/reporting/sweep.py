"""The report of a sweep: report.md, and the same text as report.html, one file with embedded pictures."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.reporting.page import write_report_pages
from orchestrator.reporting.sections.accuracy import headline, test_section
from orchestrator.reporting.sections.advice import advice_section
from orchestrator.reporting.sections.algorithm import pseudo_code
from orchestrator.reporting.sections.classes import class_section, draw_confusion
from orchestrator.reporting.sections.cost import cost_section
from orchestrator.reporting.sections.diagnostics import (
    diagnostics_section,
    draw_diagnostics,
    label_section,
    loss_section,
)
from orchestrator.reporting.sections.importance import (
    draw_importance,
    draw_parallel,
    has_enough_trials,
    settings_section,
)
from orchestrator.reporting.sections.pages import pages_section
from orchestrator.reporting.sections.ranges import draw_ranges, range_section
from orchestrator.reporting.sections.regimes import regime_section
from orchestrator.reporting.sections.starting_alpha import alpha_section
from orchestrator.reporting.sections.study import draw_study, study_section
from orchestrator.reporting.sections.trials import draw_trials
from orchestrator.reporting.tables import trials_table
from orchestrator.reporting.templating import render
from orchestrator.reporting.words import number_text, overridden_text, reference_text
from orchestrator.results.finals import read_confusions
from orchestrator.results.result_json import dataset_lines, dataset_warnings
from orchestrator.results.trials import TrialRecord, best_trial, ranked
from orchestrator.state.settings import SweepSettings, repeat_command
from search_spaces import Space, Study
from search_spaces.set_size import size_text

__all__ = ["question_section", "write_report"]


def write_report(
    settings: SweepSettings, result: dict[str, Any], records: list[TrialRecord], rows: list[dict[str, Any]]
) -> None:
    """Write report.md, report.html and the figures of the trials; the figures of the images must exist.

    Args:
        settings: Settings of the sweep.
        result: The content of result.json.
        records: All trials that ended.
        rows: Rows of a study; empty for a search.
    """
    space = settings.space
    _draw(settings, records, rows)
    facts = json.loads((settings.places.folder / "diagnostics.json").read_text(encoding="utf-8"))
    draw_diagnostics(settings.places.folder / "figures" / "diagnostics.png", facts)
    classes, confusions = read_confusions(settings.places.folder / "finals.parquet")
    draw_confusion(settings.places.folder / "figures" / "confusion.png", classes, confusions[result["best"]["trial"]])
    title = f"{result['sweep']}: {space.title}"
    text = render(
        "sweep.md.j2",
        title=title,
        warnings=dataset_warnings(result),
        headline=headline(result),
        result=result,
        counts=result["trials"],
        reference=reference_text(space),
        question=question_section(settings, result),
        study=study_section(result["study"], space, rows) if isinstance(space, Study) else "",
        test=test_section(settings, result),
        regimes=regime_section(settings, result),
        classes=class_section(classes, confusions, result["best"]["trial"]),
        trials=trials_table(ranked(records), space.varied),
        settings=settings_section(space, records),
        ranges=range_section(space, records),
        diagnostics=diagnostics_section(facts),
        alpha=alpha_section(facts, result["best"]["config"]),
        labels=label_section(records),
        loss=loss_section(records),
        advice=advice_section(space, records),
        cost=cost_section(settings.fixed["iterations"], result, records),
        command=repeat_command(settings),
        algorithm=pseudo_code(result["best"]["config"]),
        pages=pages_section(settings, result["mlflow"]),
        repeated=next((name for name in ("study", "repeats") if name in result), ""),
    )
    write_report_pages(settings.places.folder / "report.html", text, title=title)


def question_section(settings: SweepSettings, result: Mapping[str, Any]) -> str:
    """Return the section that says what is searched, and on what data, in Markdown."""
    space, fixed = settings.space, settings.fixed
    return render(
        "sections/question.md.j2",
        dataset=space.dataset,
        fixed=fixed,
        size=size_text(fixed["ipc"]),
        searched=_searched(space),
        data_lines=dataset_lines(result),
        overridden=overridden_text(space),
    )


def _draw(settings: SweepSettings, records: list[TrialRecord], rows: list[dict[str, Any]]) -> None:
    space, figures, best = settings.space, settings.places.folder / "figures", best_trial(records)
    assert best is not None, "a finished sweep has a winner"
    draw_trials(figures / "trials.png", records, best)
    if isinstance(space, Study):
        draw_study(figures / "study.png", space, rows)
    elif has_enough_trials(records):
        draw_importance(figures / "importance.png", space, records)
        draw_parallel(figures / "parallel.png", space, records)
    draw_ranges(figures / "ranges.png", space, records)


def _searched(space: Space) -> list[list[str]]:
    """Return the cells of the searched settings: name, range, value of trial 0, source; none for a grid."""
    if space.is_grid:
        return []
    return [
        [f"`{name}`", str(dimension), number_text(dimension.first), dimension.source]
        for name, dimension in space.searched.items()
    ]
