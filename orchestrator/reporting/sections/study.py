"""The section about a study, and its figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from orchestrator.reporting.tables import differences_markdown, study_markdown
from orchestrator.reporting.templating import render
from orchestrator.reporting.words import STUDY_HEADINGS, number_text
from orchestrator.results.movement import SKIPPED
from orchestrator.results.statistics import summarize
from orchestrator.results.study import variant_range
from search_spaces import Study

__all__ = ["draw_study", "study_section"]


def study_section(study: dict[str, Any], space: Study, rows: list[dict[str, Any]]) -> str:
    """Return the section about a study in Markdown: its variants, their figure, its data and the images.

    Args:
        study: `summarize_study` of the rows.
        space: The study.
        rows: One row per variant and repeat.
    """
    columns = ["variant", "repeat", "trial", *STUDY_HEADINGS]
    skipped = [row for row in rows if (row["skip_rate"] or 0) > SKIPPED]
    return render(
        "sections/study.md.j2",
        networks=rows[0]["networks"] if rows else None,
        variants=study_markdown(study, space),
        differences=differences_markdown(study["comparisons"]),
        limit=f"{SKIPPED:.0%}",
        skipped=[f"{row['trial']} ({row['variant']}, {row['skip_rate']:.0%})" for row in skipped],
        headings=list(STUDY_HEADINGS.values()),
        rows=[[number_text(row[column]) for column in columns] for row in rows],
    )


def draw_study(path: Path, space: Study, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the accuracy of every variant over its matching range: mean ± std, and the single repeats."""
    figure, axis = plt.subplots(figsize=(max(4.5, 1.6 * len(space.variants) + 1.5), 4.0), dpi=120, layout="constrained")
    series = {
        "accuracy": ("test split", "#1b6ca8", -0.15),
        "validation_accuracy": ("validation split", "#95a5a6", 0.08),
    }
    for metric, (label, colour, place) in series.items():
        for position, variant in enumerate(space.variants):
            values = [row[metric] for row in rows if row["variant"] == variant]
            axis.plot([position + place + 0.1] * len(values), values, "o", markersize=4, alpha=0.55, color=colour)
            if values:
                summary = summarize(values)
                spread = summary["std"] if len(values) > 1 else None
                axis.errorbar(position + place, summary["mean"], spread, fmt="D", markersize=6, capsize=5, color=colour)
        axis.plot([], [], "D", color=colour, label=f"{label}, mean ± std; dots: repeats")
    names = [f"{variant}\n{variant_range(space, variant)}" for variant in space.variants]
    axis.set_xticks(range(len(names)), names)
    axis.set(
        xlim=(-0.5, len(names) - 0.5), xlabel="variant and matching range T⁻–T→T⁺ (expert epochs)", ylabel="accuracy"
    )
    axis.grid(alpha=0.25, axis="y")
    axis.legend(fontsize=7)
    figure.savefig(path)
    plt.close(figure)
