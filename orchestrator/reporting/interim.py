"""The report of a sweep or comparison that has not finished: what there is, what it does, and what is missing."""

import tempfile
from pathlib import Path

from orchestrator.reporting.comparison import report_comparison
from orchestrator.reporting.page import write_report_pages
from orchestrator.reporting.sections.advice import advice_section
from orchestrator.reporting.sections.importance import (
    draw_importance,
    draw_parallel,
    has_enough_trials,
    settings_section,
)
from orchestrator.reporting.sections.pages import pages_section
from orchestrator.reporting.sections.trials import draw_trials
from orchestrator.reporting.standing import lines_of
from orchestrator.reporting.sweep import question_section
from orchestrator.reporting.tables import trials_table
from orchestrator.reporting.templating import render
from orchestrator.results.result_json import dataset_warnings
from orchestrator.results.standing import Standing, Standings
from orchestrator.results.trials import TrialRecord, best_trial, ranked
from orchestrator.state.settings import SweepSettings
from search_spaces import Comparison

__all__ = ["write_interim_report"]

_ENDED = {
    Standings.RUNNING: "is running",
    Standings.STOPPED: "was stopped by hand and has not finished",
    Standings.FAILED: "failed and has not finished",
    Standings.KILLED: "was killed, or lost with its machine, and has not finished",
}


def write_interim_report(standing: Standing, records: list[TrialRecord]) -> None:
    """Write report.md, report.html and the figures of a sweep that has not finished; its driver may run meanwhile.

    Args:
        standing: The standing of the sweep, which has a result.json.
        records: Its trials that have begun; none for a comparison.
    """
    settings, result = standing.settings, standing.result
    assert result is not None, "the caller has refused a sweep without result.json"
    notice = _notice(standing)
    if isinstance(settings.space, Comparison):
        report_comparison(settings, result, notice)
        return
    best = best_trial(records)
    if best is not None:
        _draw(settings, records, best)
    title = f"{settings.name}: {settings.space.title}"
    text = render(
        "interim.md.j2",
        title=title,
        warnings=dataset_warnings(result),
        notice=notice,
        question=question_section(settings, result),
        trials=trials_table(ranked(records), settings.space.varied) if best is not None else "",
        settings=settings_section(settings.space, records),
        advice=advice_section(settings.space, records),
        pages=pages_section(settings, result["mlflow"]),
    )
    write_report_pages(settings.places.folder / "report.html", text, title=title)


def _draw(settings: SweepSettings, records: list[TrialRecord], best: TrialRecord) -> None:
    """Draw the figures aside and rename them: the driver may write, and another command read, the same files."""
    figures, space = settings.places.folder / "figures", settings.space
    figures.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.places.folder, prefix=".figures-") as folder:
        aside = Path(folder)
        draw_trials(aside / "trials.png", records, best)
        if not space.is_grid and has_enough_trials(records):
            draw_importance(aside / "importance.png", space, records)
            draw_parallel(aside / "parallel.png", space, records)
        for picture in aside.iterdir():
            picture.replace(figures / picture.name)


def _notice(standing: Standing) -> str:
    """Return the first paragraphs: how the sweep ended or that it runs, its status, and what is missing."""
    under_way, settings = standing.under_way, standing.settings
    assert under_way is not None, "a sweep that has not finished is under way"
    return render(
        "sections/notice.md.j2",
        kind="comparison" if isinstance(settings.space, Comparison) else "sweep",
        ended=_ENDED[standing.state],
        written=f"{under_way.written.astimezone():%Y-%m-%d %H:%M:%S}",
        lines=[line.strip() for line in lines_of(standing, None, under_way.written)[1:]],
        missing=_missing(standing),
    )


def _missing(standing: Standing) -> list[str]:
    """Return what a finished sweep's report has besides."""
    result, settings = standing.result or {}, standing.settings
    if isinstance(settings.space, Comparison):
        return ["networks that are not tested yet", "which updates were skipped"]
    ended, expected = sum(result["trials"].values()), settings.fixed["trials"]
    parts = [f"{expected - ended} of {expected} trials"] if ended < expected else []
    if settings.fixed["final_seeds"]:
        parts.append("distillations of the best and of the reference setting with fresh seeds")
    return [*parts, "accuracy on the test split, beside real images", "pictures of the sets", "diagnostics and cost"]
