"""A sweep's report for people: report.md, and the same as report.html, one file with its pictures inside."""

import json
import shlex
from typing import Any

from orchestrator.accuracy import headline, study_parts, test_parts
from orchestrator.advice import next_steps
from orchestrator.algorithm import pseudo_code
from orchestrator.classes import class_parts, draw_confusion, read_confusions
from orchestrator.cost import cost_parts
from orchestrator.diagnostics_report import diagnostics_parts, draw_diagnostics, label_parts
from orchestrator.figures import draw_study, draw_trials
from orchestrator.html import write_report_pages
from orchestrator.range_figures import draw_ranges, range_parts
from orchestrator.regimes import regime_parts
from orchestrator.search_figures import draw_importance, draw_parallel, tell_anything
from orchestrator.settings import SweepSettings
from orchestrator.statistics import ALPHA, rank_correlation
from orchestrator.tables import markdown_table, number_text, size_text, trials_table
from orchestrator.trials import TrialRecord, best_trial, ranked
from search_spaces import Space, names
from search_spaces.dimensions import Fixed

__all__ = ["repeat_command", "write_report"]


def write_report(
    settings: SweepSettings, result: dict[str, Any], records: list[TrialRecord], rows: list[dict[str, Any]]
) -> None:
    """Write report.md and report.html, and the figures of the trials; those of the images must be there.

    Args:
        settings: What the sweep was asked.
        result: result.json's content.
        records: All trials that ended.
        rows: A study's rows; of a search none.
    """
    space = settings.space
    more = next((part for part in ("study", "repeats") if part in result), None)
    _draw(settings, records, rows)
    facts = json.loads((settings.folder / "diagnostics.json").read_text())
    draw_diagnostics(settings.folder / "figures" / "diagnostics.png", facts)
    classes, confusions = read_confusions(settings.folder / "finals.parquet")
    draw_confusion(settings.folder / "figures" / "confusion.png", classes, confusions[result["best"]["trial"]])
    parts = [
        f"# {result['sweep']}: {space.title}",
        headline(result),
        _counts(result, space.reference),
        *_question(settings),
        *(study_parts(result["study"], space, rows) if space.variants else ()),
        *test_parts(settings, result),
        *regime_parts(settings, result),
        *class_parts(classes, confusions, result["best"]["trial"]),
        "## Trials, best first",
        "Accuracy on the validation split, which neither experts nor distillation saw; those that went furthest first.",
        trials_table(ranked(records), space.varied),
        "![Search](figures/trials.png)",
        *_settings_parts(space, records),
        *range_parts(space, records),
        *diagnostics_parts(facts),
        *label_parts(records),
        *_loss_parts(records),
        *_advice(space, records),
        *cost_parts(settings.fixed["iterations"], result, records),
        "## Repeat it",
        f"    {repeat_command(settings)}",
        "The same seed gives the same bits with `--concurrent 1`; with more trials at once the proposals depend on "
        "which ends first.",
        "## The algorithm",
        f"With the values of {result['best']['trial']}, the best trial.",
        f"```\n{pseudo_code(result['best']['config'])}\n```",
        "## Files",
        "- `synthetic.safetensors`: images, labels, α, normalisation, class names, settings, provenance\n"
        "- `synthetic.pt`: the images alone, a float tensor in default order, as the challenge wants it\n"
        "- `finals.parquet`: every network of the finals, with its confusion; `model/`: one of them, on the best set\n"
        + (f"- `{more}.parquet`: a row a variant and repeat\n" if more else "")
        + "- `trials.parquet`, `diagnostics.json`, `result.json`, `settings.json`",
    ]
    write_report_pages(settings.folder / "report.html", parts, title=f"{result['sweep']}: {space.title}")


def _draw(settings: SweepSettings, records: list[TrialRecord], rows: list[dict[str, Any]]) -> None:
    space, figures, best = settings.space, settings.folder / "figures", best_trial(records)
    assert best is not None, "a finished sweep has a winner"
    draw_trials(figures / "trials.png", records, best)
    if space.variants:
        draw_study(figures / "study.png", space, rows)
    elif tell_anything(records):
        draw_importance(figures / "importance.png", space, records)
        draw_parallel(figures / "parallel.png", space, records)
    draw_ranges(figures / "ranges.png", space, records)


def repeat_command(settings: SweepSettings) -> str:
    """Return the command that runs a sweep like this one again: space, preset, seed, and what `--set` changed.

    Of a space from a user's own file, whose place is not kept, it has the name with .py.
    """
    space = settings.space.name if settings.space.name in names() else f"{settings.space.name}.py"
    words = ["python", "-m", "orchestrator.sweep", "--space", space, "--seed", str(settings.seed)]
    if settings.preset:
        words += ["--preset", settings.preset]
    for name, dimension in settings.space.parameters.items():
        if isinstance(dimension, Fixed) and dimension.source == "--set":
            words += ["--set", f"{name}={dimension.value}"]
    if settings.data:
        words += ["--data", str(settings.data)]
    return shlex.join(words)


def _question(settings: SweepSettings) -> list[str]:
    """Return what was asked: data, and what was searched in which ranges."""
    space, fixed = settings.space, settings.fixed
    classes = f"its first {fixed['classes']} classes" if fixed["classes"] else "all its classes"
    asked = (
        f"Which settings distil `{space.dataset}` ({classes}) best into {size_text(fixed['ipc'])} (ipc)? Accuracy "
        f"is that of fresh networks ({fixed['net_depth']} blocks, {fixed['net_width']} wide) that have seen them alone."
    )
    if space.variants:
        return ["## The question", asked]
    rows = [[f"`{name}`", str(each), number_text(each.first), each.source] for name, each in space.searched.items()]
    return ["## The question", asked, markdown_table(["searched", "range", "trial 0", "source"], rows)]


def _settings_parts(space: Space, records: list[TrialRecord]) -> list[str]:
    """Return what a report says of the settings' part in the accuracy; see `search_figures`."""
    if space.variants or not tell_anything(records):
        return []
    return [
        "## Which settings matter",
        "A line a trial, each range from its lower bound to its upper; the darker, the more accurate at its last rung.",
        "![Settings of all trials](figures/parallel.png)",
        "How much of the accuracy's variance over the ranges each setting explains alone (fANOVA), at the first rung, "
        f"which all trials came to. With {sum(bool(record.rungs) for record in records)} trials this is but a hint.",
        "![Importance of the settings](figures/importance.png)",
    ]


def _loss_parts(records: list[TrialRecord]) -> list[str]:
    """Return whether the matching loss tells which trial is good: it is minimised, not wanted. METHOD §6."""
    told = [
        (record.measures["matching_loss"], record.last)
        for record in records
        if "matching_loss" in record.measures and record.last is not None
    ]
    found = rank_correlation([loss for loss, _ in told], [accuracy for _, accuracy in told])
    if found is None:
        return []
    rho, p = found
    if p > ALPHA:
        reading = "so over these trials a lower matching loss says nothing of accuracy that chance would not"
    elif rho < 0:
        reading = "so a lower matching loss went with higher accuracy"
    else:
        reading = "so a lower matching loss went with lower accuracy"
    return [
        "## Does the matching loss tell accuracy?",
        f"Spearman's ρ between a trial's mean matching loss and its validation accuracy, both at its last rung, is "
        f"{rho:+.2f} (n = {len(told)}, permutation p = {p:.2g}), {reading}. Losses under another N, M or range "
        "are relative to other distances: this asks whether the search could have been steered by the loss in place of "
        "accuracy.",
    ]


def _advice(space: Space, records: list[TrialRecord]) -> list[str]:
    if space.variants:
        return []
    sentences = next_steps(space, records)
    said = "\n".join(f"- {sentence}" for sentence in sentences) if sentences else "No range is touched at its bound."
    return ["## What to try next", said]


def _counts(result: dict[str, Any], reference: str) -> str:
    counts = result["trials"]
    return (
        f"Space `{result['space']}`, seed {result['seed']}; {counts['finished']} trials finished, "
        f"{counts['pruned']} pruned, {counts['failed']} failed. Trial 0 is {reference}."
    )
