"""Tables of what a sweep found: for the terminal through Rich, for the report as Markdown."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from orchestrator.study import variant_range
from orchestrator.trials import TrialRecord
from search_spaces import Space
from trainables.metrics import TESTED

__all__ = [
    "FINAL_NAMES",
    "STUDY_HEADINGS",
    "chance_text",
    "difference_parts",
    "finals_table",
    "markdown_table",
    "mean_std",
    "method_name",
    "number_text",
    "repeats_markdown",
    "repeats_table",
    "result_table",
    "size_text",
    "study_figure_table",
    "study_markdown",
    "study_table",
    "trials_table",
]

FINAL_NAMES = {
    "winner": "best trial",
    "paper_setting": "reference setting (trial 0)",
    "random_real": "random real images",
    "el2n_easy": "EL2N, easiest",
    "el2n_hard": "EL2N, hardest",
    "el2n_best": "EL2N, best window",
    "grand": "GraNd",
    "forgetting": "forgetting",
    "k_center": "k-centre greedy",
    "herding": "herding",
    "moderate": "moderate",
    "uncertainty": "uncertainty",
    "dynamic_uncertainty": "dynamic uncertainty",
    "cad_prune": "CAD-Prune",
    "rded": "RDED",
    "ca2d": "CA2D",
    "sre2l": "SRe2L",
    "full_data": "full training set",
}
STUDY_HEADINGS = {
    "validation_accuracy": "validation",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "macro_recall": "macro-recall",
}
_REPEATS = ["settings of", *STUDY_HEADINGS.values(), "n"]
_VARIANTS = ["variant", "range", *STUDY_HEADINGS.values(), "n"]


def result_table(result: dict[str, Any]) -> Table:
    """Return the finals as a table for the terminal."""
    networks = next(iter(result["finals"].values()))["accuracy"]["n"]
    table = Table(title=f"Test split: the search's sets, mean ± std over {networks} networks", title_justify="left")
    table.add_column("trained on")
    for heading in ("accuracy", "macro-F1", "macro-recall"):
        table.add_column(heading, justify="right")
    for name, metrics in result["finals"].items():
        cells = [mean_std(metrics[metric]) for metric in TESTED]
        table.add_row(FINAL_NAMES[name], *cells)
    return table


def repeats_table(repeats: dict[str, Any], networks: int) -> Table:
    """Return a search's settings distilled again as a table for the terminal."""
    title = f"Distilled again with fresh seeds, mean ± std over distillations of {networks} networks each"
    table = Table(title=title, title_justify="left")
    for heading in _REPEATS:
        table.add_column(heading, justify="left" if heading == _REPEATS[0] else "right")
    for cells in _repeats_cells(repeats):
        table.add_row(*cells)
    return table


def repeats_markdown(repeats: dict[str, Any]) -> str:
    """Return a search's settings distilled again in Markdown."""
    return markdown_table(_REPEATS, _repeats_cells(repeats))


def _repeats_cells(repeats: dict[str, Any]) -> list[list[str]]:
    return [[FINAL_NAMES[name], *_summary_cells(variant)] for name, variant in repeats["variants"].items()]


def _summary_cells(variant: dict[str, Any]) -> list[str]:
    """Return a variant's summaries and n."""
    summaries = [variant[metric] for metric in STUDY_HEADINGS]
    figures = ["–" if summary is None else mean_std(summary) for summary in summaries]
    return [*figures, str(summaries[0]["n"] if summaries[0] else 0)]


def study_table(study: dict[str, Any], space: Space) -> Table:
    """Return a study's variants as a table for the terminal."""
    table = Table(title="Variants, mean ± std over repeats; test split but for validation", title_justify="left")
    for heading in ("variant", "range"):
        table.add_column(heading)
    for heading in (*STUDY_HEADINGS.values(), "n"):
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


def study_markdown(study: dict[str, Any], space: Space) -> str:
    """Return a study's variants in Markdown."""
    return markdown_table(_VARIANTS, _study_cells(study, space))


def _study_cells(study: dict[str, Any], space: Space) -> list[list[str]]:
    return [[name, variant_range(space, name), *_summary_cells(variant)] for name, variant in study["variants"].items()]


_METHOD_NAMES = {"random": "random real images", "dm": "DM", "dc": "DC", "m_datm": "M-DATM"}


def method_name(name: str) -> str:
    """Return what a report calls a set of the finals, or a method of a comparison."""
    return FINAL_NAMES.get(name) or _METHOD_NAMES.get(name) or name


def chance_text(comparison: Mapping[str, Any] | None) -> str:
    """Say whether chance explains a difference; None: it was not tested."""
    if comparison is None or comparison["p"] is None:
        return "too few values to test"
    how = "chance does not explain it" if comparison["significant"] else "which may be chance"
    return f"{how}: {comparison['test']}, Holm-corrected p = {comparison['p_holm']:.2g}"


def difference_parts(comparisons: list[dict[str, Any]]) -> list[str]:
    """Return what a report says of a family of differences: their table, and which test was used and why."""
    if not comparisons:
        return []
    headings = ["difference in accuracy", "", "95 % interval", "effect size", "test", "p", "p, Holm", "significant"]
    rows = []
    for each in comparisons:
        between = f"{method_name(each['a'])} − {method_name(each['b'])}"
        interval = "–" if each["interval_95"] is None else "{:+.3f} … {:+.3f}".format(*each["interval_95"])
        figures = [
            number_text(each[name]) if each[name] is not None else "–" for name in ("effect_size", "p", "p_holm")
        ]
        verdict = "–" if each["p"] is None else "yes" if each["significant"] else "no"
        rows.append(
            [between, f"{each['difference']:+.3f}", interval, figures[0], each["test"] or "–", *figures[1:], verdict]
        )
    notes = "; ".join(dict.fromkeys(each["note"] for each in comparisons))
    return [
        markdown_table(headings, rows),
        f"Which test: {notes}. Corrected for {len(comparisons)} by Holm's procedure.",
    ]


def finals_table(finals: dict[str, Any]) -> str:
    """Return the finals in Markdown: mean ± std over networks, and accuracy's 95 % interval."""
    rows = []
    for name, metrics in finals.items():
        cells = [mean_std(metrics[metric]) for metric in TESTED]
        interval = metrics["accuracy"]["interval_95"]
        span = "{:.3f} … {:.3f}".format(*interval) if interval else "–"
        rows.append([FINAL_NAMES[name], cells[0], span, *cells[1:], str(metrics["accuracy"]["n"])])
    return markdown_table(["trained on", "accuracy", "95 % interval", "macro-F1", "macro-recall", "n"], rows)


def trials_table(records: list[TrialRecord], varied: list[str]) -> str:
    """Return trials in Markdown, in the order given, with the settings in which they differ."""
    rows = []
    for record in records:
        accuracy = "–" if record.last is None else f"{record.last:.3f}"
        values = [number_text(record.settings[key]) for key in varied]
        status = f"failed: {record.reason}" if record.status == "failed" else record.status
        rows.append([record.name, status, str(record.iterations), accuracy, *values])
    return markdown_table(["trial", "status", "iterations", "validation accuracy", *varied], rows)


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """Return rows of cells as a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def mean_std(summary: dict[str, Any]) -> str:
    """Return mean ± std of a summary as people read it."""
    spread = f" ± {summary['std']:.3f}" if summary["n"] > 1 else ""  # one value has none
    return f"{summary['mean']:.3f}{spread}"


def size_text(ipc: int) -> str:
    """Return the size of a set in words."""
    return f"{ipc} image{'' if ipc == 1 else 's'} per class"


def number_text(value: Any) -> str:
    """Return a value to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
