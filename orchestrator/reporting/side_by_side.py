"""A page about several sweeps: their winners, and which of the differences are significant.

Of a sweep that has not finished it has the best trial so far, by its accuracy on the validation split.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.reporting.page import write_report_pages
from orchestrator.reporting.tables import differences_markdown
from orchestrator.reporting.templating import escape_markdown, render
from orchestrator.reporting.words import mean_std
from orchestrator.results.differences import compare_winners
from orchestrator.results.entries import FULL_DATA, RANDOM_REAL, WINNER
from orchestrator.results.standing import Standing, Standings
from orchestrator.state.settings import SweepSettings

__all__ = ["write_comparison"]

_MUST_AGREE = ("ipc", "classes", "net_depth", "net_width", "protocol_epochs")


class _Pictured(NamedTuple):
    """A sweep under its own heading."""

    name: str
    title: str
    pictures: list[str]
    """Paths relative to the page's folder."""


def write_comparison(folder: Path, standings: Sequence[Standing]) -> Path:
    """Write a page about sweeps, as Markdown and as HTML, named after them, and return the path of the HTML.

    Args:
        folder: Where to write.
        standings: Sweeps that have a best trial; the folders of finished ones contain the pictures.
    """
    sweeps = [standing.settings for standing in standings]
    names = [settings.name for settings in sweeps]
    title = " and ".join(names)
    folder.mkdir(parents=True, exist_ok=True)
    text = render(
        "side_by_side.md.j2",
        title=title,
        rows=[_row(standing) for standing in standings],
        unfinished=[f"{each.settings.name} ({each.state})" for each in standings if each.state != Standings.FINISHED],
        disagreements=_disagreements(sweeps),
        differences=_differences(standings),
        sweeps=[_Pictured(settings.name, settings.space.title, _pictures(settings, folder)) for settings in sweeps],
    )
    page = folder / f"{'+'.join(names)}.html"
    write_report_pages(page, text, title=title)
    return page


def _pictures(settings: SweepSettings, folder: Path) -> list[str]:
    """Return the paths of a sweep's pictures that exist, relative to the page's folder."""
    pictures = [settings.places.folder / "figures" / name for name in ("synthetic.png", "trials.png")]
    return [Path(os.path.relpath(picture, folder)).as_posix() for picture in pictures if picture.exists()]


def _row(standing: Standing) -> list[str]:
    settings, result = standing.settings, standing.result
    assert result is not None, "it has a best trial"
    if standing.state == Standings.FINISHED:
        finals = result["finals"]
        accuracies = [mean_std(finals[name]["accuracy"]) for name in (WINNER, RANDOM_REAL, FULL_DATA)]
    else:
        accuracies = [f"validation {result['best']['validation_accuracy']:.3f}", "–", "–"]
    return [
        escape_markdown(settings.name),
        settings.space.name,
        str(settings.seed),
        result["best"]["trial"],
        *accuracies,
        f"{result['seconds']['total']:.0f}",
    ]


def _disagreements(sweeps: Sequence[SweepSettings]) -> list[str]:
    """Return the settings that must be equal for accuracies to be compared, and are not."""
    facts = [
        {"dataset": settings.space.dataset, **{key: settings.fixed[key] for key in _MUST_AGREE}} for settings in sweeps
    ]
    return [key for key in facts[0] if len({fact[key] for fact in facts}) > 1]


def _differences(standings: Sequence[Standing]) -> str:
    """Return the differences of finished sweeps' winners in Markdown, corrected as one family.

    "" where accuracies cannot be compared, or fewer than two sweeps have finished.
    """
    finished = {
        standing.settings.name: standing.result
        for standing in standings
        if standing.state == Standings.FINISHED and standing.result is not None
    }
    if len(finished) < 2 or _disagreements([standing.settings for standing in standings]):
        return ""
    return differences_markdown(compare_winners(finished))
