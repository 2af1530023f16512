"""The records of a comparison: a row a method, size and regime."""

from collections.abc import Sequence
from typing import Any

from orchestrator.results.entries import ComparedSet
from orchestrator.results.finals import Measured
from orchestrator.results.statistics import summarize
from orchestrator.state.settings import SweepSettings
from search_spaces.entry import MAKE_SETS
from search_spaces.name_lists import REGIMES
from search_spaces.registry import compared
from trainables.evaluation.regimes import full_data_epochs

__all__ = ["comparison_records", "spreads"]

OURS = "m_datm"
Record = dict[str, Any]
"""A line of the table: method, regime, ipc, mean, std, n, values, full_data_epochs."""


def comparison_records(settings: SweepSettings, measured: Measured, images: int, classes: int) -> list[Record]:
    """Return a record for every method, regime and size, in that order.

    Args:
        settings: The comparison's.
        measured: The networks' test metrics, by regime and by set (method and size).
        images: Real training images, |D|.
        classes: C.
    """
    methods, records = compared(*MAKE_SETS), []
    for regime, sets in measured.items():
        for name, networks in sets.items():
            method, ipc = ComparedSet.parse(name)
            summary = summarize([network.accuracy for network in networks])
            budget = full_data_epochs(settings.fixed["regime_epochs"], ipc * classes, images)
            facts = {key: summary[key] for key in ("mean", "std", "n", "values")}
            records.append({"method": method, "regime": regime, "ipc": ipc, **facts, "full_data_epochs": budget})
    return sorted(
        records, key=lambda record: (methods.index(record["method"]), REGIMES.index(record["regime"]), record["ipc"])
    )


def spreads(records: Sequence[Record]) -> dict[int, dict[str, float]]:
    """Return the standard deviation of the methods' means, by size and regime."""
    deviations: dict[int, dict[str, float]] = {}
    for ipc in in_order(records, "ipc"):
        for regime in in_order(records, "regime"):
            means = [record["mean"] for record in records if (record["ipc"], record["regime"]) == (ipc, regime)]
            deviations.setdefault(ipc, {})[regime] = summarize(means)["std"]
    return deviations


def values_by_repeat(records: Sequence[Record], regime: str, ipc: int) -> dict[str, dict[int, float]]:
    """Return the accuracies of a regime and size, by method and repeat."""
    return {
        record["method"]: dict(enumerate(record["values"]))
        for record in records
        if (record["regime"], record["ipc"]) == (regime, ipc)
    }


def in_order(records: Sequence[Record], key: str) -> list[Any]:
    """Return the distinct values of a key, in order of appearance."""
    return list(dict.fromkeys(record[key] for record in records))
