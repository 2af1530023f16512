"""What a report says of accuracy on the test split: of a search's sets and settings, of a study's variants."""

from collections.abc import Mapping
from typing import Any

from orchestrator.regimes import against_best
from orchestrator.settings import SweepSettings
from orchestrator.tables import (
    STUDY_HEADINGS,
    difference_parts,
    finals_table,
    markdown_table,
    mean_std,
    number_text,
    repeats_markdown,
    study_markdown,
)
from search_spaces import Space

__all__ = ["headline", "study_parts", "test_parts"]

SKIPPED = 0.5
"""Share of skipped updates above which a study's trial is warned of."""


def headline(result: Mapping[str, Any]) -> str:
    """Return the sentence with what won and by how much: over fresh distillations, where the finals made them."""
    finals, best, paper = result["finals"], result["best"], result["paper"]
    again = {name: each["accuracy"] for name, each in result.get("repeats", {"variants": {}})["variants"].items()}
    accuracies = {name: metrics["accuracy"] for name, metrics in finals.items()}
    how = f" with {accuracies['winner']['n']} networks"
    if again.get("winner"):
        accuracies |= {name: summary for name, summary in again.items() if summary}
        how = f" over {again['winner']['n']} distillations with seeds that the search never saw"
    winner = accuracies["winner"]

    comparisons = result["repeats"]["comparisons"] if again.get("winner") else result["comparisons"]

    rivals = {name: {"accuracy": summary} for name, summary in accuracies.items()}

    def gain(name: str) -> str:
        return f"{winner['mean'] - accuracies[name]['mean']:+.3f}{_verdict(comparisons, name)}"

    config = best["config"]
    which = f" ({config['variant']}, repeat {config['repeat']})" if "variant" in config else ""
    text = (
        f"The best setting, **{best['trial']}**{which}, reaches **{mean_std(winner)}** test accuracy{how}: "
        f"{gain('random_real')} against random real images of the same number"
    )
    if paper and paper["trial"] == best["trial"]:
        text = f"{text}; it is the reference setting itself."
    elif "paper_setting" in finals:
        text = f"{text} and {gain('paper_setting')} against the reference setting."
    else:
        text = f"{text}; the reference setting left no synthetic set to compare with."
    return f"{text} {against_best(rivals, comparisons)}"


def _verdict(comparisons: list[dict[str, Any]], other: str) -> str:
    """Say in a bracket whether chance explains the winner's difference from another set or setting."""
    for each in comparisons:
        if (each["a"], each["b"]) == ("winner", other):
            if each["p"] is None:
                return " (too few values to test)"
            said = "which chance does not explain" if each["significant"] else "which may be chance"
            return f" ({said}: {each['test']}, Holm-corrected p = {each['p_holm']:.2g})"
    return ""


def test_parts(settings: SweepSettings, result: dict[str, Any]) -> list[str]:
    """Return what was measured on the test split: the settings distilled again, the search's own sets, baselines."""
    protocol, full = settings.final_protocol, settings.full_data_protocol
    return [
        "## On the test split",
        f"Read once, after the search. Challenge protocol: {protocol.epochs} epochs, SGD {protocol.learning_rate} then "
        f"{protocol.learning_rate * protocol.drop_factor:g} after epoch {protocol.drop_after_epochs}, batch "
        f"{protocol.batch_size}; {full.epochs} epochs on the full training set.",
        *_repeats_parts(result),
        "### The search's own sets",
        "Mean ± standard deviation over fresh networks; network k starts alike for every set. This is the chance of "
        "evaluating these very sets, of which the best is the one to use; how much another distillation with the same "
        "settings would differ, other seeds tell.",
        finals_table(result["finals"]),
        against_best(result["finals"], result["comparisons"]),
        *difference_parts(result["comparisons"]),
        "![Synthetic images before and after](figures/synthetic.png)",
    ]


def _repeats_parts(result: dict[str, Any]) -> list[str]:
    """Return what a report says of the settings that the finals distilled again."""
    if not (repeats := result.get("repeats")):
        return []
    networks = result["finals"]["winner"]["accuracy"]["n"]
    return [
        "### The settings, distilled again",
        "The search took its winner for what one distillation reached, so that one flatters. Here the winner's and the "
        "reference's settings are distilled again with seeds that the search never saw, the same for both. Mean ± "
        f"standard deviation over n distillations; a distillation's value is the mean of {networks} networks.",
        repeats_markdown(repeats),
        *difference_parts(repeats["comparisons"]),
    ]


def study_parts(study: dict[str, Any], space: Space, rows: list[dict[str, Any]]) -> list[str]:
    """Return what a report says of a study: its variants, their figure, its data and the images."""
    columns = ["variant", "repeat", "trial", *STUDY_HEADINGS]
    data = markdown_table(
        ["variant", "repeat", "trial", *STUDY_HEADINGS.values()],
        [[number_text(row[column]) for column in columns] for row in rows],
    )
    networks = f"the mean over {rows[0]['networks']} fresh networks" if rows else "the mean over fresh networks"
    return [
        "## Variants",
        "Mean ± standard deviation over n repeats: distillations, each with a seed of its own. A repeat's value is "
        f"{networks}. Accuracy, F1 and recall are those on the test split; labels are hard and in default order.",
        study_markdown(study, space),
        *difference_parts(study["comparisons"]),
        *_skipped(rows),
        "![Variants](figures/study.png)",
        data,
        "![Synthetic images by variant](figures/variants.png)",
    ]


def _skipped(rows: list[dict[str, Any]]) -> list[str]:
    """Return a warning of trials that hardly moved their images: they say little of their variant."""
    still = [row for row in rows if (row["skip_rate"] or 0) > SKIPPED]
    if not still:
        return []
    told = ", ".join(f"{row['trial']} ({row['variant']}, {row['skip_rate']:.0%})" for row in still)
    return [
        f"**Updates were skipped** in more than {SKIPPED:.0%} of the last rung's iterations by {told}: the matching "
        "loss was above `max_matching_loss`. Such images have hardly moved, and say little of their range. A lower "
        "`alpha_init` brings the loss down."
    ]
