"""Entries of a sweep's journal: params, metrics and files of a run, cut to MLflow's request limits."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.results.experts import ExpertSummary
from orchestrator.results.statistics import summarize
from orchestrator.tracking.journal import METRICS
from orchestrator.tracking.mlflow_service import FILE, PARAMS, Part, in_parts
from trainables.evaluation.metrics import TESTED, Metrics

__all__ = ["expert_figures", "file_entries", "final_figures", "metric_entries", "now_ms", "param_entries"]


def now_ms() -> int:
    """Return the time in milliseconds since 1970, as MLflow has it."""
    return int(time.time() * 1000)


def param_entries(values: Mapping[str, Any]) -> Iterable[Part]:
    """Return the entries of parameters."""
    return in_parts(PARAMS, {key: str(value) for key, value in values.items()})


def metric_entries(figures: Iterable[tuple[str, float, int]]) -> Iterable[Part]:
    """Return the entries of metrics (key, value, step) with the present time. Non-finite values are left out."""
    now = now_ms()
    return in_parts(METRICS, [(key, float(value), now, step) for key, value, step in figures if math.isfinite(value)])


def file_entries(folder: Path, place: str) -> Iterator[Part]:
    """Yield the entries of a file in `folder`, or of all files below a subfolder, under the same names in MLflow."""
    path = folder / place
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_dir():
            name = file.relative_to(folder)
            yield FILE, {"path": name.as_posix(), "folder": name.parent.as_posix() if len(name.parts) > 1 else None}


def expert_figures(experts: ExpertSummary) -> list[tuple[str, float, int]]:
    """Return the result of the expert stage as metrics; a step is an epoch."""
    losses = [("expert_training_loss", loss, epoch + 1) for epoch, loss in enumerate(experts.losses)]
    facts = {name: getattr(experts, name) for name in ("trained", "reused", "bytes", "seconds")}
    return [*losses, *((f"experts_{name}", value, 0) for name, value in facts.items())]


def final_figures(networks: Sequence[Metrics]) -> list[tuple[str, float, int]]:
    """Return the networks' test metrics, a step a network, and their mean and standard deviation."""
    figures = []
    for metric in TESTED:
        values = [getattr(network, metric) for network in networks]
        summary = summarize(values)
        figures += [(f"test_{metric}", value, step) for step, value in enumerate(values)]
        figures += [(f"test_{metric}_{part}", summary[part], 0) for part in ("mean", "std")]
    return figures
