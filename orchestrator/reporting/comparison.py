"""The report of a comparison: tables and differences by label regime, and the scalability figure.

Source: docs/method.md, "Label regimes".
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.reporting.figure_text import figure_text
from orchestrator.reporting.page import write_report_pages
from orchestrator.reporting.sections.pages import pages_section
from orchestrator.reporting.tables import comparison_cells, differences_markdown
from orchestrator.reporting.templating import render
from orchestrator.reporting.words import TEACHERS, chance_text, meanings_text, method_name
from orchestrator.results.comparison import OURS, Record, in_order, spreads, values_by_repeat
from orchestrator.results.differences import compare_methods
from orchestrator.results.movement import SKIPPED
from orchestrator.results.result_json import dataset_lines, dataset_warnings
from orchestrator.state.settings import SweepSettings
from search_spaces.entry import Kind
from search_spaces.registry import compared
from search_spaces.set_size import size_text

__all__ = ["report_comparison"]


def report_comparison(settings: SweepSettings, result: Mapping[str, Any], notice: str = "") -> None:
    """Write report.md, report.html and the scalability figure of a comparison.

    Args:
        settings: Settings of the comparison.
        result: The content of its result.json.
        notice: What is said first, in Markdown, of a comparison that has not finished, whose records are incomplete.
    """
    records, title = result["records"], settings.space.title
    if records:
        draw_scalability(settings.places.folder / "figures" / "scalability.png", records)
    regimes, skip_rates = in_order(records, "regime"), result.get("skip_rates", {})
    skipped = {name: rate for name, rate in sorted(skip_rates.items()) if rate > SKIPPED}
    text = render(
        "comparison.md.j2",
        title=f"{settings.name}: {title}",
        dataset=settings.space.dataset,
        fixed=settings.fixed,
        verdicts=verdicts(records),
        limit=f"{SKIPPED:.0%}",
        skipped=[f"{name} ({rate:.0%})" for name, rate in skipped.items()],
        meanings=meanings_text(regimes),
        teacher=TEACHERS[settings.fixed["teacher"]] if set(regimes) - {"hard"} else "",
        regimes=[_regime(records, regime) for regime in regimes],
        spread=None if notice else spread(records),
        notice=notice,
        pages=pages_section(settings, result["mlflow"]),
        data_lines=dataset_lines(result),
        warnings=dataset_warnings(result),
    )
    write_report_pages(settings.places.folder / "report.html", text, title=f"{settings.name}: {title}")


class _Size(NamedTuple):
    """The differences between methods at one number of images per class."""

    text: str
    differences: str
    """In Markdown."""


class _Regime(NamedTuple):
    """One label regime: its table of methods, and the differences at every size where they were tested."""

    name: str
    headings: list[str]
    rows: list[list[str]]
    sizes: list[_Size]


class _Rival(NamedTuple):
    """A method that our set is compared with in a verdict."""

    role: str
    name: str
    accuracy: float
    gain: float
    """Our mean accuracy less its mean accuracy."""
    chance: str
    """Whether the difference is significant, in words."""


class _Verdict(NamedTuple):
    """Whether our set beats the best coreset and the best other set, in one regime at one size."""

    regime: str
    size: str
    ours: str
    accuracy: float
    rivals: list[_Rival]


class _Spread(NamedTuple):
    """The standard deviation of the methods' mean accuracies, by size and regime."""

    headings: list[str]
    rows: list[list[str]]
    order: str
    """The regimes, as they are listed."""
    agreeing: int
    """Sizes at which the standard deviation falls in that order."""


def _regime(records: Sequence[Record], regime: str) -> _Regime:
    headings, rows = comparison_cells(records, regime)
    tested = {ipc: compare_methods(values_by_repeat(records, regime, ipc), OURS) for ipc in in_order(records, "ipc")}
    sizes = [
        _Size(size_text(ipc), differences_markdown(differences)) for ipc, differences in tested.items() if differences
    ]
    return _Regime(regime, headings, rows, sizes)


def verdicts(records: Sequence[Record]) -> list[_Verdict]:
    """Return for every regime and size whether our set beats the best coreset and the best other set.

    Tests are corrected for all comparisons of our set at that size and in that regime.
    """
    reached = []
    for regime in in_order(records, "regime"):
        for ipc in in_order(records, "ipc"):
            values = values_by_repeat(records, regime, ipc)
            if OURS not in values or len(values) == 1:
                continue
            means = {name: fmean(repeats.values()) for name, repeats in values.items()}
            tests = {difference["b"]: difference for difference in compare_methods(values, OURS)}
            others = sorted(set(means) - {OURS}, key=means.__getitem__, reverse=True)
            roles = dict.fromkeys([name for name in others if name in compared(Kind.CORESET)][:1], "the best coreset")
            roles.setdefault(others[0], "the best other method")
            rivals = [
                _Rival(role, method_name(name), means[name], means[OURS] - means[name], chance_text(tests[name]))
                for name, role in roles.items()
            ]
            reached.append(_Verdict(regime, size_text(ipc), method_name(OURS), means[OURS], rivals))
    return reached


def spread(records: Sequence[Record]) -> _Spread | None:
    """Return how much methods differ by size and regime; None with fewer than two regimes or methods."""
    deviations = spreads(records)
    regimes = in_order(records, "regime")
    if len(regimes) < 2 or len(in_order(records, "method")) < 2:
        return None
    rows = [[str(ipc), *(f"{by_regime[regime]:.3f}" for regime in regimes)] for ipc, by_regime in deviations.items()]
    falls = [all(by_regime[a] > by_regime[b] for a, b in pairwise(regimes)) for by_regime in deviations.values()]
    names = [f"`{regime}`" for regime in regimes]
    return _Spread(["images per class", *names], rows, " > ".join(names), sum(falls))


def draw_scalability(path: Path, records: Sequence[Record]) -> None:
    """Draw accuracy against images per class, one panel per regime, one line per method, with the compute K below.

    Args:
        path: PNG to write.
        records: See `comparison_records`.
    """
    regimes, methods, ipcs = (in_order(records, key) for key in ("regime", "method", "ipc"))
    figure, axes = plt.subplots(
        1, len(regimes), figsize=(4.2 * len(regimes), 5.2), dpi=120, layout="constrained", sharey=True, squeeze=False
    )
    colours = plt.get_cmap("tab20")
    budgets = {record["ipc"]: record["full_data_epochs"] for record in records}
    for axis, regime in zip(axes[0], regimes, strict=True):
        for number, method in enumerate(methods):
            line = [record for record in records if (record["method"], record["regime"]) == (method, regime)]
            ours = method == OURS
            axis.errorbar(
                *([record[key] for record in line] for key in ("ipc", "mean", "std")),
                color="black" if ours else colours(number % 20), linewidth=2.5 if ours else 1.2, capsize=2,
                linestyle="--" if method in compared(Kind.METHOD) and not ours else "-",
                marker="o" if ours else "." , label=figure_text(method_name(method)), zorder=3 if ours else 2,
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
