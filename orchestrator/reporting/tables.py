"""Tables of results: for the terminal through Rich, for the report as Markdown."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from orchestrator.reporting.templating import escape_markdown, markdown_table, render
from orchestrator.reporting.words import STUDY_HEADINGS, mean_std, method_name, number_text
from orchestrator.results.comparison import Record, in_order
from orchestrator.results.study import variant_range
from orchestrator.results.trials import TrialRecord
from search_spaces import Study
from trainables.evaluation.metrics import TESTED

__all__ = [
    "differences_markdown",
    "finals_table",
    "records_table",
    "repeats_markdown",
    "repeats_table",
    "result_table",
    "study_figure_table",
    "study_markdown",
    "study_table",
    "trials_table",
]

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
        table.add_row(method_name(name), *cells)
    return table


def repeats_table(repeats: dict[str, Any], networks: int) -> Table:
    """Return the repeated distillations of a search's settings as a table for the terminal."""
    title = f"Distilled again with fresh seeds, mean ± std over distillations of {networks} networks each"
    table = Table(title=title, title_justify="left")
    for heading in _REPEATS:
        table.add_column(heading, justify="left" if heading == _REPEATS[0] else "right")
    for cells in _repeats_cells(repeats):
        table.add_row(*cells)
    return table


def repeats_markdown(repeats: dict[str, Any]) -> str:
    """Return the repeated distillations of a search's settings as a table in Markdown."""
    return markdown_table(_REPEATS, _repeats_cells(repeats))


def _repeats_cells(repeats: dict[str, Any]) -> list[list[str]]:
    return [[method_name(name), *_summary_cells(variant)] for name, variant in repeats["variants"].items()]


def _summary_cells(variant: dict[str, Any]) -> list[str]:
    """Return a variant's summaries and n."""
    summaries = [variant[metric] for metric in STUDY_HEADINGS]
    figures = ["–" if summary is None else mean_std(summary) for summary in summaries]
    return [*figures, str(summaries[0]["n"] if summaries[0] else 0)]


def study_table(study: dict[str, Any], space: Study) -> Table:
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
    """Return the data of figures/study.png as a table for the terminal: the repeats, their mean and std."""
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


def study_markdown(study: dict[str, Any], space: Study) -> str:
    """Return a study's variants in Markdown."""
    return markdown_table(_VARIANTS, _study_cells(study, space))


def _study_cells(study: dict[str, Any], space: Study) -> list[list[str]]:
    return [[name, variant_range(space, name), *_summary_cells(variant)] for name, variant in study["variants"].items()]


def differences_markdown(differences: list[dict[str, Any]]) -> str:
    """Return a family of differences in Markdown: their table, which test was used and why; "" for none."""
    if not differences:
        return ""
    notes = list(dict.fromkeys(difference["note"] for difference in differences))
    return render(
        "sections/differences.md.j2", rows=[_difference_cells(difference) for difference in differences], notes=notes
    )


def _difference_cells(difference: dict[str, Any]) -> list[str]:
    between = f"{method_name(difference['a'])} − {method_name(difference['b'])}"
    interval = "–" if difference["interval_95"] is None else "{:+.3f} … {:+.3f}".format(*difference["interval_95"])
    effect, p, p_holm = (
        "–" if difference[name] is None else number_text(difference[name]) for name in ("effect_size", "p", "p_holm")
    )
    verdict = "–" if difference["p"] is None else "yes" if difference["significant"] else "no"
    gain, test = f"{difference['difference']:+.3f}", difference["test"] or "–"
    return [between, gain, interval, effect, test, p, p_holm, verdict]


def finals_table(finals: dict[str, Any]) -> str:
    """Return the finals in Markdown: mean ± std over networks, and accuracy's 95 % interval."""
    rows = []
    for name, metrics in finals.items():
        cells = [mean_std(metrics[metric]) for metric in TESTED]
        interval = metrics["accuracy"]["interval_95"]
        span = "{:.3f} … {:.3f}".format(*interval) if interval else "–"
        rows.append([method_name(name), cells[0], span, *cells[1:], str(metrics["accuracy"]["n"])])
    return markdown_table(["trained on", "accuracy", "95 % interval", "macro-F1", "macro-recall", "n"], rows)


def trials_table(records: list[TrialRecord], varied: list[str]) -> str:
    """Return trials as a table in Markdown, in the given order, with the settings in which they differ."""
    rows = []
    for record in records:
        accuracy = "–" if record.last is None else f"{record.last:.3f}"
        values = [number_text(record.settings[key]) for key in varied]
        status = f"failed: {escape_markdown(str(record.reason))}" if record.status == "failed" else record.status
        rows.append([record.name, status, str(record.iterations), accuracy, *values])
    return markdown_table(["trial", "status", "iterations", "validation accuracy", *varied], rows)


def records_table(records: Sequence[Record]) -> list[Table]:
    """Return one table per regime for the terminal: methods by images per class, mean ± std over sets."""
    tables = []
    for regime in in_order(records, "regime"):
        table = Table(title=f"{regime}: test accuracy, mean ± std over sets", title_justify="left")
        headings, rows = comparison_cells(records, regime)
        for heading in headings:
            table.add_column(heading, justify="left" if heading == headings[0] else "right")
        for cells in rows:
            table.add_row(*cells)
        tables.append(table)
    return tables


def comparison_cells(records: Sequence[Record], regime: str) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a regime's table, with a dash where nothing was measured."""
    measured = {(record["method"], record["ipc"]): record for record in records if record["regime"] == regime}
    ipcs = in_order(records, "ipc")
    budgets = {record["ipc"]: record["full_data_epochs"] for record in records}
    headings = ["method", *(f"ipc {ipc} (K = {budgets[ipc]:.3g})" for ipc in ipcs), "n"]
    rows = []
    for method in in_order(records, "method"):
        cells = [mean_std(measured[method, ipc]) if (method, ipc) in measured else "–" for ipc in ipcs]
        rows.append([method_name(method), *cells, str(max(record["n"] for record in measured.values()))])
    return headings, rows
