"""What a comparison found: records, tables, differences by regime, the scalability figure. METHOD §6."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from rich.table import Table

from orchestrator.accuracy import SKIPPED
from orchestrator.comparisons import compare_methods
from orchestrator.finals import Measured
from orchestrator.html import write_report_pages
from orchestrator.regimes import MEANINGS, TEACHERS, meanings_text
from orchestrator.settings import SweepSettings
from orchestrator.statistics import summarize
from orchestrator.tables import chance_text, difference_parts, markdown_table, mean_std, method_name, size_text
from search_spaces.listed import CORESETS, DISTILLED, METHODS
from trainables.regimes import full_data_epochs

__all__ = ["comparison_records", "describe_comparison", "records_table", "report_comparison", "spreads"]

OURS = "m_datm"

Record = dict[str, Any]
"""A line of the table: method, regime, ipc, mean, std, n, values, full_data_epochs."""


def comparison_records(settings: SweepSettings, measured: Measured, images: int, classes: int) -> list[Record]:
    """Return a record for each method, regime and size, in that order.

    Args:
        settings: The comparison's.
        measured: What the networks reached, by regime and by method and size.
        images: Real training images, |D|.
        classes: C.
    """
    records = []
    for regime, sets in measured.items():
        for name, networks in sets.items():
            method, _, ipc = name.rpartition("-")
            summary = summarize([each.accuracy for each in networks])
            budget = full_data_epochs(settings.fixed["regime_epochs"], int(ipc) * classes, images)
            facts = {key: summary[key] for key in ("mean", "std", "n", "values")}
            records.append({"method": method, "regime": regime, "ipc": int(ipc), **facts, "full_data_epochs": budget})
    regimes = list(MEANINGS)
    return sorted(records, key=lambda each: (METHODS.index(each["method"]), regimes.index(each["regime"]), each["ipc"]))


def records_table(records: Sequence[Record]) -> list[Table]:
    """Return a table a regime for the terminal: methods by images per class, mean ± std over sets."""
    tables = []
    for regime in _in_order(records, "regime"):
        table = Table(title=f"{regime}: test accuracy, mean ± std over sets", title_justify="left")
        headings, rows = _cells(records, regime)
        for heading in headings:
            table.add_column(heading, justify="left" if heading == headings[0] else "right")
        for cells in rows:
            table.add_row(*cells)
        tables.append(table)
    return tables


def _cells(records: Sequence[Record], regime: str) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a regime's table; what was not measured has a dash."""
    found = {(each["method"], each["ipc"]): each for each in records if each["regime"] == regime}
    ipcs = _in_order(records, "ipc")
    budgets = {each["ipc"]: each["full_data_epochs"] for each in found.values()}
    headings = ["method", *(f"ipc {ipc} (K = {budgets[ipc]:.3g})" for ipc in ipcs), "n"]
    rows = []
    for method in _in_order(records, "method"):
        cells = [mean_std(found[method, ipc]) if (method, ipc) in found else "–" for ipc in ipcs]
        rows.append([method_name(method), *cells, str(max(each["n"] for each in found.values()))])
    return headings, rows


def spreads(records: Sequence[Record]) -> dict[int, dict[str, float]]:
    """Return by size and regime how much methods differ: the standard deviation of their means."""
    found: dict[int, dict[str, float]] = {}
    for ipc in _in_order(records, "ipc"):
        for regime in _in_order(records, "regime"):
            means = [each["mean"] for each in records if (each["ipc"], each["regime"]) == (ipc, regime)]
            found.setdefault(ipc, {})[regime] = summarize(means)["std"]
    return found


def report_comparison(settings: SweepSettings, result: Mapping[str, Any]) -> None:
    """Write report.md, report.html and the figure of what result.json holds."""
    records, title = result["records"], settings.space.title
    draw_scalability(settings.folder / "figures" / "scalability.png", records)
    fixed, regimes = settings.fixed, _in_order(records, "regime")
    parts = [
        f"# {settings.name}: {title}",
        *_sentences(records),
        *_skipped(result["skip_rates"]),
        "## The question",
        f"How accurate are networks ({fixed['net_depth']} blocks, {fixed['net_width']} wide) that have seen a small "
        f"set of `{settings.space.dataset}` alone, by how it was made, its size, and where its labels come from? "
        "Coresets and what is built on them (RDED, CA2D, SRe2L) stand beside distilled sets (DM, DC, M-DATM). "
        f"Each of n repeats has a set and a network of its own, trained for {fixed['regime_epochs']} epochs; K is "
        "that compute in epochs on all real images. Test split, read once.",
        f"{meanings_text(regimes)}." + (f" {_teacher(fixed)}" if set(regimes) - {"hard"} else ""),
        "![Accuracy by images per class](figures/scalability.png)",
    ]
    for regime in regimes:
        parts += [f"## `{regime}`", markdown_table(*_cells(records, regime))]
        for ipc in _in_order(records, "ipc"):
            compared = compare_methods(_values(records, regime, ipc), OURS)
            if compared:
                parts += [f"### {size_text(ipc)}", *difference_parts(compared)]
    parts += [
        *_spread_parts(records),
        "## Files",
        "- `result.json`: every record with its values, settings' seed, seconds",
    ]
    write_report_pages(settings.folder / "report.html", parts, title=f"{settings.name}: {title}")


def _teacher(fixed: Mapping[str, Any]) -> str:
    return f"T = {fixed['temperature']:g}; the one teacher is {TEACHERS[fixed['teacher']]}."


def _sentences(records: Sequence[Record]) -> list[str]:
    """Say of every regime and size whether our set beats the best coreset and the best other set, and by chance or not.

    Tests are corrected for all that our set is compared with at that size and in that regime.
    """
    said = []
    for regime in _in_order(records, "regime"):
        for ipc in _in_order(records, "ipc"):
            values = _values(records, regime, ipc)
            if OURS not in values or len(values) == 1:
                continue
            means = {name: fmean(each.values()) for name, each in values.items()}
            verdicts = {each["b"]: each for each in compare_methods(values, OURS)}
            others = sorted(set(means) - {OURS}, key=means.__getitem__, reverse=True)
            rivals = dict.fromkeys([each for each in others if each in CORESETS][:1], "the best coreset")
            rivals.setdefault(others[0], "the best other method")
            against = [
                f"{'beats' if means[OURS] > means[name] else 'does not beat'} {what}, {method_name(name)} "
                f"({means[name]:.3f}): {means[OURS] - means[name]:+.3f} ({chance_text(verdicts[name])})"
                for name, what in rivals.items()
            ]
            said.append(
                f"- `{regime}`, {size_text(ipc)}: {method_name(OURS)} ({means[OURS]:.3f}) {'; it '.join(against)}."
            )
    return ["\n".join(said)] if said else []


def describe_comparison(settings: SweepSettings, result: Mapping[str, Any]) -> str:
    """Return what MLflow's page of a comparison opens with, in Markdown: short, for MLflow cuts off what is long."""
    return "\n\n".join(
        [
            *_sentences(result["records"]),
            *_spread_parts(result["records"]),
            "Every method's accuracy is a metric, named by regime and method; a step is an image per class. The report "
            f"is `report.html`, here among the artifacts and in `{settings.place}`.",
        ]
    )


def _skipped(rates: Mapping[str, float]) -> list[str]:
    """Return a warning of distillations that hardly moved their images: they say little of their method."""
    still = {name: rate for name, rate in rates.items() if rate > SKIPPED}
    if not still:
        return []
    told = ", ".join(f"{name} ({rate:.0%})" for name, rate in sorted(still.items()))
    return [
        f"**Updates were skipped** in more than {SKIPPED:.0%} of the iterations of {told}: the loss was above "
        "`max_matching_loss`, or no number. Such images have hardly moved. Lower `lr_pixel` or `alpha_init`."
    ]


def _spread_parts(records: Sequence[Record]) -> list[str]:
    found = spreads(records)
    regimes = _in_order(records, "regime")
    if len(regimes) < 2 or len(_in_order(records, "method")) < 2:
        return []
    rows = [[str(ipc), *(f"{each[regime]:.3f}" for regime in regimes)] for ipc, each in found.items()]
    shrinks = [all(each[one] > each[other] for one, other in pairwise(regimes)) for each in found.values()]
    order = " > ".join(f"`{regime}`" for regime in regimes)
    return [
        "## What soft labels hide",
        "How much methods differ: the standard deviation of their mean accuracies.",
        markdown_table(["images per class", *(f"`{regime}`" for regime in regimes)], rows),
        f"Methods differ in the order {order} at {sum(shrinks)} of {len(shrinks)} sizes.",
    ]


def draw_scalability(path: Path, records: Sequence[Record]) -> None:
    """Draw accuracy against images per class, a panel a regime and a line a method, with the compute above.

    Args:
        path: PNG to write.
        records: See `comparison_records`.
    """
    regimes, methods, ipcs = (_in_order(records, key) for key in ("regime", "method", "ipc"))
    figure, axes = plt.subplots(
        1, len(regimes), figsize=(4.2 * len(regimes), 5.2), dpi=120, layout="constrained", sharey=True, squeeze=False
    )
    colours = plt.get_cmap("tab20")
    budgets = {each["ipc"]: each["full_data_epochs"] for each in records}
    for axis, regime in zip(axes[0], regimes, strict=True):
        for number, method in enumerate(methods):
            line = [each for each in records if (each["method"], each["regime"]) == (method, regime)]
            ours = method == OURS
            axis.errorbar(
                [each["ipc"] for each in line], [each["mean"] for each in line], [each["std"] for each in line],
                color="black" if ours else colours(number % 20), linewidth=2.5 if ours else 1.2, capsize=2,
                linestyle="--" if method in DISTILLED and not ours else "-",
                marker="o" if ours else "." , label=method_name(method), zorder=3 if ours else 2,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xticks(ipcs, [f"{ipc}\nK = {budgets[ipc]:.3g}" for ipc in ipcs])
        axis.minorticks_off()
        axis.margins(x=0.15)
        axis.set(title=regime, xlabel="images per class (K: epochs on all real images)")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("test accuracy")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _values(records: Sequence[Record], regime: str, ipc: int) -> dict[str, dict[int, float]]:
    """Return each method's values by repeat."""
    return {
        each["method"]: dict(enumerate(each["values"]))
        for each in records
        if (each["regime"], each["ipc"]) == (regime, ipc)
    }


def _in_order(records: Sequence[Record], key: str) -> list[Any]:
    return list(dict.fromkeys(each[key] for each in records))
