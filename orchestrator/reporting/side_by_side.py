"""A page about several finished sweeps: their winners, and which of the differences are significant."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.reporting.page import write_report_pages
from orchestrator.reporting.tables import differences_markdown
from orchestrator.reporting.templating import escape_markdown, render
from orchestrator.reporting.words import mean_std
from orchestrator.results.differences import compare_winners
from orchestrator.results.entries import FULL_DATA, RANDOM_REAL, WINNER
from orchestrator.state.settings import SweepSettings

__all__ = ["write_comparison"]

_MUST_AGREE = ("ipc", "classes", "net_depth", "net_width", "protocol_epochs")


class _Pictured(NamedTuple):
    """A sweep under its own heading."""

    name: str
    title: str
    pictures: list[str]
    """Paths relative to the page's folder."""


def write_comparison(folder: Path, sweeps: Sequence[tuple[SweepSettings, Mapping[str, Any]]]) -> Path:
    """Write a page about sweeps, as Markdown and as HTML, named after them, and return the path of the HTML.

    Args:
        folder: Where to write.
        sweeps: Settings and content of result.json of finished sweeps; their folders contain the pictures.
    """
    names = [settings.name for settings, _ in sweeps]
    title = " and ".join(names)
    folder.mkdir(parents=True, exist_ok=True)
    text = render(
        "side_by_side.md.j2",
        title=title,
        rows=[_row(settings, result) for settings, result in sweeps],
        disagreements=_disagreements(sweeps),
        differences=_differences(sweeps),
        sweeps=[_Pictured(settings.name, settings.space.title, _pictures(settings, folder)) for settings, _ in sweeps],
    )
    page = folder / f"{'+'.join(names)}.html"
    write_report_pages(page, text, title=title)
    return page


def _pictures(settings: SweepSettings, folder: Path) -> list[str]:
    """Return the paths of a sweep's pictures, relative to the page's folder."""
    figures = settings.places.folder / "figures"
    return [Path(os.path.relpath(figures / name, folder)).as_posix() for name in ("synthetic.png", "trials.png")]


def _row(settings: SweepSettings, result: Mapping[str, Any]) -> list[str]:
    finals = result["finals"]
    accuracies = [mean_std(finals[name]["accuracy"]) for name in (WINNER, RANDOM_REAL, FULL_DATA)]
    total = f"{result['seconds']['total']:.0f}"
    return [
        escape_markdown(settings.name),
        settings.space.name,
        str(settings.seed),
        result["best"]["trial"],
        *accuracies,
        total,
    ]


def _disagreements(sweeps: Sequence[tuple[SweepSettings, Mapping[str, Any]]]) -> list[str]:
    """Return the settings that must be equal for accuracies to be compared, and are not."""
    facts = [
        {"dataset": settings.space.dataset, **{key: settings.fixed[key] for key in _MUST_AGREE}}
        for settings, _ in sweeps
    ]
    return [key for key in facts[0] if len({fact[key] for fact in facts}) > 1]


def _differences(sweeps: Sequence[tuple[SweepSettings, Mapping[str, Any]]]) -> str:
    """Return the winners' differences in Markdown, corrected as one family; "" where they cannot be compared."""
    if _disagreements(sweeps):
        return ""
    return differences_markdown(compare_winners({settings.name: result for settings, result in sweeps}))
