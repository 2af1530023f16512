"""result.json: its content, and its readers and writer."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from orchestrator.errors import UserError
from orchestrator.results.differences import compare_finals
from orchestrator.results.experts import ExpertSummary
from orchestrator.results.movement import hardly_moved
from orchestrator.results.trials import REFERENCE_TRIAL, STATUSES, TrialRecord, best_trial
from orchestrator.results.under_way import UnderWay
from orchestrator.state.settings import SweepSettings
from search_spaces import Comparison, Study
from trainables.data.source import AS_PUBLISHED, Findings
from trainables.storage.atomic import write_json

__all__ = [
    "Execution",
    "Found",
    "PlannedTrial",
    "arithmetic_entry",
    "collect_result",
    "dataset_entry",
    "dataset_lines",
    "dataset_warnings",
    "finished_result",
    "require_finished",
    "stored_result",
    "trials_left",
    "write_result",
]

FILES = {
    "synthetic": "synthetic.safetensors",
    "challenge": "synthetic.pt",
    "report": "report.md",
    "page": "report.html",
    "trials": "trials.parquet",
    "finals": "finals.parquet",
    "diagnostics": "diagnostics.json",
    "model": "model",
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """Results of a sweep; of one that has not finished those so far."""

    trials: list[TrialRecord] = field(default_factory=list)
    """Trials that have ended or are paused, and of a sweep that has not finished also the unfinished ones."""
    finals: dict[str, Any] = field(default_factory=dict)
    """As `name_finals` returns them."""
    study: dict[str, Any] | None = None
    """As `summarize_study` returns it, for a study or for the repeated distillations of a search's finals."""
    regimes: dict[str, Any] = field(default_factory=dict)
    """As `summarize_regimes` returns them."""


class PlannedTrial(NamedTuple):
    """What the plan said of trial 0."""

    device: str
    """A CPU core, or the name of the GPU."""
    low_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Resources and time of a sweep."""

    experts: ExpertSummary | None
    """None if the sweep ended before the expert stage did."""
    workers: dict[str, float]
    """Number of workers at once, and the GPUs of one worker."""
    device: str
    """The workers' device: cpu or cuda."""
    seconds: dict[str, float]
    """Time by stage, s."""
    mlflow: dict[str, str]
    """Addresses of the sweep's runs in MLflow."""
    dataset: Findings = AS_PUBLISHED
    """What was seen beside the dataset's images."""
    planned_trial: PlannedTrial | None = None
    """None: the plan does not know the device."""


def collect_result(
    settings: SweepSettings, status: str, found: Found, execution: Execution, under_way: UnderWay | None = None
) -> dict[str, Any]:
    """Return the content of result.json; its form is a contract. Parts that a sweep did not reach are null or empty.

    Differences are tested only in a finished sweep: before that, sets may lack networks.

    Args:
        settings: The sweep's.
        status: running, finished, stopped or failed.
        found: Its results; `found.study` becomes `study` of a study, or `repeats` of a search with `final_seeds`.
        execution: Its resources and time.
        under_way: What a sweep that has not finished does; None if it has finished.
    """
    finished = status == "finished"
    trials = found.trials
    part = "study" if isinstance(settings.space, Study) else "repeats" if settings.fixed["final_seeds"] else None
    statuses = [record.status for record in trials]
    best = best_trial(trials)
    reference = next((record for record in trials if record.number == REFERENCE_TRIAL), None)
    return {
        "version": 1,
        "sweep": settings.name,
        "space": settings.space.name,
        "status": status,
        "seed": settings.seed,
        "dataset": dataset_entry(execution.dataset),
        "trials": {status: statuses.count(status) for status in STATUSES},
        "best": _trial_entry(best) if best else None,
        "paper": _trial_entry(reference) if reference else None,
        "movement": _movement(trials),
        "finals": found.finals,
        "comparisons": compare_finals(found.finals) if finished else [],
        **({part: found.study} if part else {}),
        **({"regimes": found.regimes} if found.regimes else {}),
        "experts": execution.experts.facts() if execution.experts else None,
        "workers": execution.workers,
        "arithmetic": arithmetic_entry(settings, execution.device),
        "seconds": execution.seconds,
        "planned_trial": execution.planned_trial and execution.planned_trial._asdict(),
        "mlflow": execution.mlflow,
        "files": FILES | ({part: f"{part}.parquet"} if part else {}) if finished else {"trials": FILES["trials"]},
        **({"under_way": under_way.to_json()} if under_way else {}),
    }


def arithmetic_entry(settings: SweepSettings, device: str) -> dict[str, Any]:
    """Return what result.json says about how every worker computed."""
    return {"device": device, **asdict(settings.arithmetic)}


def dataset_entry(findings: Findings) -> dict[str, Any]:
    """Return what result.json says about the dataset's files."""
    return asdict(findings)


def dataset_lines(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences about the dataset's files in result.json; none in one of an earlier version."""
    return Findings(**result["dataset"]).lines if "dataset" in result else ()


def dataset_warnings(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences of result.json on what is wrong with the dataset; none in one of an earlier version."""
    return tuple(Findings(**result["dataset"]).warnings) if "dataset" in result else ()


def _trial_entry(record: TrialRecord) -> dict[str, Any]:
    movement = {name: record.measures.get(name) for name in ("skip_rate", "image_displacement")}
    return {
        "trial": record.name,
        "config": record.settings,
        "validation_accuracy": record.last,
        "movement": movement,
    }


def _movement(trials: list[TrialRecord]) -> dict[str, int]:
    """Return how many trials reached a rung whose measures are known, and how many of them hardly moved their images.

    The measures of a running trial are known when it ends.
    """
    measured = [record for record in trials if "image_displacement" in record.measures]
    return {"trials": len(measured), "hardly_moved": sum(hardly_moved(record.measures) for record in measured)}


def stored_result(settings: SweepSettings) -> dict[str, Any] | None:
    """Return the content of result.json with any status; None if the file is missing."""
    file = settings.places.result_file
    result: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    return result


def finished_result(settings: SweepSettings) -> dict[str, Any] | None:
    """Return the content of result.json if the sweep is finished and has no time left for further trials; else None."""
    result = stored_result(settings)
    if result is None or result["status"] != "finished":
        return None
    return None if _search_continues(settings, result) else result


def _search_continues(settings: SweepSettings, result: dict[str, Any]) -> bool:
    """Return whether a finished sweep has trials that its time budget left out, and a larger budget now."""
    if isinstance(settings.space, Comparison):
        return False
    budget, spent = settings.time_budget_s, result["seconds"].get("search", 0.0)
    return trials_left(settings, result) > 0 and (budget is None or budget > spent)


def trials_left(settings: SweepSettings, result: dict[str, Any]) -> int:
    """Return the number of a sweep's trials that have not ended: paused ones, and those that have not begun."""
    ended = sum(number for status, number in result["trials"].items() if status != "paused")
    trials: int = settings.fixed["trials"]
    return trials - int(ended)


def require_finished(settings: SweepSettings) -> dict[str, Any]:
    """Return the content of result.json of a finished sweep or comparison.

    Raises:
        UserError: It is not finished, or its result.json is of an earlier version.
    """
    result = stored_result(settings) or {"status": "not begun"}
    if result["status"] != "finished":
        raise UserError(
            f"only a finished sweep has a result, and {settings.name!r} is {result['status']}; resume it: "
            f"{settings.resume_command}"
        )
    if "workers" not in result and not isinstance(settings.space, Comparison):
        raise UserError(
            f"{settings.places.folder}/result.json is of an earlier version of this program; run the sweep anew"
        )
    return result


def write_result(settings: SweepSettings, result: dict[str, Any]) -> None:
    """Write result.json. It marks the result as complete, so it is written after all other files."""
    write_json(settings.places.result_file, result)
