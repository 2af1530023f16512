"""What a sweep leaves for people: the result table, report.md and its figures."""

from pathlib import Path
from typing import Any

from rich.table import Table

from orchestrator.study import range_text
from orchestrator.trials import TrialRecord, ranked
from search_spaces import Space

__all__ = ["FINAL_NAMES", "result_table", "study_figure_table", "study_table", "write_report"]

FINAL_NAMES = {
    "winner": "best trial",
    "paper_setting": "reference setting (trial 0)",
    "random_real": "random real images",
    "full_data": "full training set",
}
_STUDY_HEADINGS = {
    "validation_accuracy": "validation",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "macro_recall": "macro-recall",
}


def result_table(result: dict[str, Any]) -> Table:
    """Return the finals as a table for the terminal."""
    networks = next(iter(result["finals"].values()))["accuracy"]["n"]
    table = Table(title=f"Test split, mean ± std over {networks} networks", title_justify="left")
    table.add_column("trained on")
    for heading in ("accuracy", "macro-F1", "macro-recall"):
        table.add_column(heading, justify="right")
    for name, metrics in result["finals"].items():
        cells = [_mean_std(metrics[metric]) for metric in ("accuracy", "macro_f1", "macro_recall")]
        table.add_row(FINAL_NAMES[name], *cells)
    return table


def study_table(study: dict[str, Any], space: Space) -> Table:
    """Return a study's variants as a table for the terminal."""
    table = Table(title="Variants, mean ± std over repeats; test split but for validation", title_justify="left")
    for heading in ("variant", "range"):
        table.add_column(heading)
    for heading in (*_STUDY_HEADINGS.values(), "n"):
        table.add_column(heading, justify="right")
    for cells in _study_cells(study, space):
        table.add_row(*cells)
    return table


def study_figure_table(study: dict[str, Any]) -> Table:
    """Return what figures/study.png draws, as a table for the terminal: a point a repeat, and their mean and std."""
    table = Table(title="figures/study.png: its data", title_justify="left")
    for heading in ("variant", "accuracy on"):
        table.add_column(heading)
    for heading in ("mean", "std", "n", "repeats"):
        table.add_column(heading, justify="right")
    for name, variant in study["variants"].items():
        for metric, split in (("accuracy", "test split"), ("validation_accuracy", "validation split")):
            if summary := variant[metric]:
                spread = f"{summary['std']:.4f}" if summary["n"] > 1 else "–"
                repeats = "  ".join(f"{value:.4f}" for value in summary["values"])
                table.add_row(name, split, f"{summary['mean']:.4f}", spread, str(summary["n"]), repeats)
    return table


def _study_cells(study: dict[str, Any], space: Space) -> list[list[str]]:
    """Return a variant's name, matching range, summaries and n, a list a variant."""
    rows = []
    for name, variant in study["variants"].items():
        summaries = [variant[metric] for metric in _STUDY_HEADINGS]
        figures = ["–" if summary is None else _mean_std(summary) for summary in summaries]
        count = str(summaries[0]["n"]) if summaries[0] else "0"
        rows.append([name, range_text(space, name), *figures, count])
    return rows


def write_report(
    path: Path,
    result: dict[str, Any],
    records: list[TrialRecord],
    *,
    space: Space,
    rows: list[dict[str, Any]],
    protocol: str,
) -> None:
    """Write report.md: the answer, the ranked trials, the pictures and the cost.

    Args:
        path: The file.
        result: result.json's content.
        records: All trials that ended.
        space: The question, whose setting trial 0 is, and what varied.
        rows: A study's rows; of a search none.
        protocol: How the finals trained, in a sentence.
    """
    experts, seconds = result["experts"], result["seconds"]
    parts = [
        f"# {result['sweep']}: {space.title}",
        _headline(result),
        _counts(result, space.reference),
        *(_study_parts(result["study"], space, rows) if space.variants else ()),
        "## On the test split",
        f"Read once, after the search. {protocol} Mean ± standard deviation over fresh networks; network k starts "
        "alike for every set. This is the chance of evaluating these sets; how much another distillation would differ, "
        "a study's repeats tell.",
        _finals_table(result["finals"]),
        *_difference_parts(result["comparisons"]),
        "![Synthetic images before and after](figures/synthetic.png)",
        "## Trials, best first",
        "Accuracy on the validation split, which neither experts nor distillation saw; those that went furthest first.",
        _trials_table(ranked(records), space.varied),
        "![Search](figures/trials.png)",
        "## Cost",
        f"Experts {seconds['experts']:.0f} s ({experts['trained']} trained, {experts['reused']} reused), search "
        f"{seconds['search']:.0f} s, finals {seconds['finals']:.0f} s, all {seconds['total']:.0f} s.",
        "## Files",
        "- `synthetic.safetensors`: images, labels, α, normalisation, class names, settings, provenance\n"
        "- `synthetic.pt`: the images alone, a float tensor in default order, as the challenge wants it\n"
        "- `trials.parquet`, `result.json`, `settings.json`" + (", `study.parquet`" if space.variants else ""),
    ]
    path.write_text("\n\n".join(parts) + "\n")


def _study_parts(study: dict[str, Any], space: Space, rows: list[dict[str, Any]]) -> list[str]:
    """Return what a report says of a study: its variants, their figure, its data and the images."""
    summary = _markdown(["variant", "range", *_STUDY_HEADINGS.values(), "n"], _study_cells(study, space))
    columns = ["variant", "repeat", "trial", *_STUDY_HEADINGS]
    data = _markdown(
        ["variant", "repeat", "trial", *_STUDY_HEADINGS.values()],
        [[_number(row[column]) for column in columns] for row in rows],
    )
    networks = f"the mean over {rows[0]['networks']} fresh networks" if rows else "the mean over fresh networks"
    return [
        "## Variants",
        "Mean ± standard deviation over n repeats: distillations, each with a seed of its own. A repeat's value is "
        f"{networks}. Accuracy, F1 and recall are those on the test split; labels are hard and in default order.",
        summary,
        *_difference_parts(study["comparisons"]),
        "![Variants](figures/study.png)",
        data,
        "![Synthetic images by variant](figures/variants.png)",
    ]


def _difference_parts(comparisons: list[dict[str, Any]]) -> list[str]:
    """Return what a report says of a family of differences: their table, and which test was used and why."""
    if not comparisons:
        return []
    headings = ["difference in accuracy", "", "95 % interval", "effect size", "test", "p", "p, Holm", "significant"]
    rows = []
    for each in comparisons:
        between = f"{FINAL_NAMES.get(each['a'], each['a'])} − {FINAL_NAMES.get(each['b'], each['b'])}"
        interval = "–" if each["interval_95"] is None else "{:+.3f} … {:+.3f}".format(*each["interval_95"])
        figures = [_number(each[name]) if each[name] is not None else "–" for name in ("effect_size", "p", "p_holm")]
        verdict = "–" if each["p"] is None else "yes" if each["significant"] else "no"
        rows.append(
            [between, f"{each['difference']:+.3f}", interval, figures[0], each["test"] or "–", *figures[1:], verdict]
        )
    notes = "; ".join(dict.fromkeys(each["note"] for each in comparisons))
    return [_markdown(headings, rows), f"Which test: {notes}. Corrected for {len(comparisons)} by Holm's procedure."]


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def _headline(result: dict[str, Any]) -> str:
    finals, best, paper = result["finals"], result["best"], result["paper"]
    winner = finals["winner"]["accuracy"]

    def gain(name: str) -> str:
        return f"{winner['mean'] - finals[name]['accuracy']['mean']:+.3f}"

    config = best["config"]
    which = f" ({config['variant']}, repeat {config['repeat']})" if "variant" in config else ""
    text = (
        f"The best setting, **{best['trial']}**{which}, reaches **{_mean_std(winner)}** test accuracy, "
        f"{gain('random_real')} against random real images of the same number"
    )
    if paper and paper["trial"] == best["trial"]:
        return f"{text}; it is the reference setting itself."
    if "paper_setting" in finals:
        return f"{text} and {gain('paper_setting')} against the reference setting."
    return f"{text}; the reference setting left no synthetic set to compare with."


def _counts(result: dict[str, Any], reference: str) -> str:
    counts = result["trials"]
    return (
        f"Space `{result['space']}`, seed {result['seed']}; {counts['finished']} trials finished, "
        f"{counts['pruned']} pruned, {counts['failed']} failed. Trial 0 is {reference}."
    )


def _finals_table(finals: dict[str, Any]) -> str:
    rows = []
    for name, metrics in finals.items():
        cells = [_mean_std(metrics[metric]) for metric in ("accuracy", "macro_f1", "macro_recall")]
        rows.append([FINAL_NAMES[name], *cells, str(metrics["accuracy"]["n"])])
    return _markdown(["trained on", "accuracy", "macro-F1", "macro-recall", "n"], rows)


def _trials_table(records: list[TrialRecord], varied: list[str]) -> str:
    rows = []
    for record in records:
        accuracy = "–" if record.last is None else f"{record.last:.3f}"
        values = [_number(record.settings[key]) for key in varied]
        status = f"failed: {record.reason}" if record.status == "failed" else record.status
        rows.append([record.name, status, str(record.iterations), accuracy, *values])
    return _markdown(["trial", "status", "iterations", "validation accuracy", *varied], rows)


def _mean_std(summary: dict[str, Any]) -> str:
    spread = f" ± {summary['std']:.3f}" if summary["n"] > 1 else ""  # one value has none
    return f"{summary['mean']:.3f}{spread}"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
