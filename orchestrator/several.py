"""Several finished sweeps side by side: their winners, and which of the differences chance does not explain."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.comparisons import compare_winners
from orchestrator.html import write_report_pages
from orchestrator.settings import SweepSettings
from orchestrator.tables import difference_parts, markdown_table, mean_std

__all__ = ["write_comparison"]

_MUST_AGREE = ("ipc", "classes", "net_depth", "net_width", "protocol_epochs")


def write_comparison(folder: Path, sweeps: Sequence[tuple[SweepSettings, Mapping[str, Any]]]) -> Path:
    """Write a page about sweeps, as Markdown and as HTML, named after them, and return the latter.

    Args:
        folder: Where to write.
        sweeps: Settings and result.json's content of finished sweeps; their folders have the pictures.
    """
    names = [settings.name for settings, _ in sweeps]
    title = " and ".join(names)
    parts = [
        f"# {title}",
        "The best trial of each, on the test split. Values are fresh networks trained on one synthetic set each.",
        markdown_table(
            ["sweep", "space", "seed", "best trial", "accuracy", "random real images", "full training set", "seconds"],
            [_row(settings, result) for settings, result in sweeps],
        ),
        *(_differences(sweeps) or [f"Accuracies do not compare: the sweeps differ in {', '.join(_disagree(sweeps))}."]),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for settings, _ in sweeps:
        parts.append(f"## {settings.name}: {settings.space.title}")
        for figure in ("synthetic.png", "trials.png"):
            picture = Path(os.path.relpath(settings.folder / "figures" / figure, folder))
            parts.append(f"![{settings.name}]({picture.as_posix()})")
    page = folder / f"{'+'.join(names)}.html"
    write_report_pages(page, parts, title=title)
    return page


def _row(settings: SweepSettings, result: Mapping[str, Any]) -> list[str]:
    finals = result["finals"]
    accuracies = [mean_std(finals[name]["accuracy"]) for name in ("winner", "random_real", "full_data")]
    total = f"{result['seconds']['total']:.0f}"
    return [settings.name, settings.space.name, str(settings.seed), result["best"]["trial"], *accuracies, total]


def _disagree(sweeps: Sequence[tuple[SweepSettings, Mapping[str, Any]]]) -> list[str]:
    """Return what must be the same where accuracies are compared, and is not."""
    facts = [{"dataset": each.space.dataset, **{key: each.fixed[key] for key in _MUST_AGREE}} for each, _ in sweeps]
    return [key for key in facts[0] if len({fact[key] for fact in facts}) > 1]


def _differences(sweeps: Sequence[tuple[SweepSettings, Mapping[str, Any]]]) -> list[str]:
    """Return the winners' differences, corrected as one family; nothing where they do not compare."""
    if _disagree(sweeps):
        return []
    return difference_parts(compare_winners({settings.name: result for settings, result in sweeps}))
