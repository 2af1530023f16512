"""Measurements of the finals: by protocol and set, summarised, and as a file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from orchestrator.results.entries import FULL_DATA, PAPER_SETTING, RANDOM_REAL, WINNER
from orchestrator.results.statistics import summarize
from orchestrator.state.progress import Progress
from search_spaces.entry import REAL_SETS
from search_spaces.registry import compared
from trainables.evaluation.metrics import TESTED, Metrics
from trainables.storage.atomic import write_atomically

__all__ = [
    "CHALLENGE",
    "Measured",
    "measured_by_protocol",
    "name_finals",
    "read_confusions",
    "write_finals",
]

CHALLENGE = "challenge"
"""The finals' own protocol, beside the label regimes'."""
Measured = dict[str, dict[str, list[Metrics]]]
"""Test metrics of a set's networks: by protocol, and by the name of a trial or baseline."""


def read_confusions(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the classes' names, and by set the networks' confusion matrices, int64 [networks, C, C].

    Matrices of the label regimes are left out.
    """
    table = pq.read_table(path)
    names: list[str] = json.loads(table.schema.metadata[b"class_names"])
    confusions: dict[str, list[np.ndarray]] = {}
    for row in table.filter(compute.field("protocol") == CHALLENGE).to_pylist():
        counts = np.array(row["confusion"]).reshape(len(names), len(names))
        confusions.setdefault(row["set"], []).append(counts)
    return names, {name: np.stack(matrices) for name, matrices in confusions.items()}


class Job(NamedTuple):
    """A network to train and test."""

    protocol: str
    """`CHALLENGE`, or the label regime."""
    name: str
    """Name of the set."""
    number: int
    """Number of the network."""


def measured_by_protocol(progress: Progress, jobs: Iterable[tuple[str, str, int]]) -> Measured:
    """Return the metrics of jobs (protocol, set and network), with sets and networks in the jobs' order."""
    measured: Measured = {}
    for protocol, name, number in jobs:
        measured.setdefault(protocol, {}).setdefault(name, []).append(progress.finals[protocol, name, number])
    return measured


def name_finals(
    measured: Mapping[str, Sequence[Metrics]], best: str, reference: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `finals` of result.json: summaries over networks of the best and the reference trial and the baselines."""
    others = [name for name in (RANDOM_REAL, *compared(*REAL_SETS), FULL_DATA) if name in measured]
    places = {WINNER: best, PAPER_SETTING: reference, **{name: name for name in others}}
    return {
        name: {metric: summarize([getattr(network, metric) for network in measured[place]]) for metric in TESTED}
        for name, place in places.items()
        if place in measured
    }


def write_finals(path: Path, measured: Measured, class_names: Sequence[str]) -> None:
    """Write a row a protocol, set and network: metrics and confusion matrix, int64 [C·C], actual class by predicted.

    The classes' names are JSON in the file's metadata.
    """
    rows = [
        {
            "protocol": protocol,
            "set": name,
            "network": number,
            **{metric: getattr(metrics, metric) for metric in TESTED},
            "confusion": [count for row in metrics.confusion for count in row],
        }
        for protocol, sets in measured.items()
        for name, networks in sets.items()
        for number, metrics in enumerate(networks)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"class_names": json.dumps(list(class_names))})
    write_atomically(path, lambda aside: pq.write_table(table, aside))
