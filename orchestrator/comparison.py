"""A comparison: every method's sets at several sizes, each measured in the label regimes. METHOD §6.

Repeat k of a method is a set of its own, with scoring runs or a distillation named by k, and one network trained on it
in each regime, which starts alike for every set: so n counts sets, and the values of one repeat pair.
"""

from statistics import fmean
from typing import Any

import ray
from rich.console import Console

from orchestrator.baseline_sets import Baselines
from orchestrator.cluster import Resources
from orchestrator.comparison_report import comparison_records, records_table, report_comparison
from orchestrator.console import make_console
from orchestrator.driver import drive, status_after, tracked
from orchestrator.experts import check_experts, ensure_experts
from orchestrator.finals import Measured, measure_jobs, measured_by_protocol, start_network
from orchestrator.inputs import Inputs, prepare_inputs
from orchestrator.mirror import Mirror
from orchestrator.outcome import write_result
from orchestrator.progress import Progress
from orchestrator.settings import SweepSettings
from orchestrator.tracking import SweepRun
from search_spaces.listed import BASELINES, DISTILLED, METHODS, REGIMES, listed
from trainables.checkpoints import read_checkpoint
from trainables.distilled_set import distil_set
from trainables.initialization import check_ipc

__all__ = ["run_comparison"]

_DISTIL_SET = ray.remote(distil_set)  # once: Ray exports each such object as a function of its own


def run_comparison(settings: SweepSettings) -> dict[str, Any]:
    """Run a comparison, or what is left of it, and return what result.json holds."""
    result = drive(settings, _run)
    console = make_console()  # --quiet leaves out all but this
    console.print(*records_table(result["records"]))
    console.print(f"report: {settings.place}/report.html")
    return result


def _run(settings: SweepSettings, resources: Resources, mirror: Mirror, console: Console) -> dict[str, Any]:
    inputs, progress = prepare_inputs(settings, console), Progress(settings.folder)
    check_ipc(inputs.dataset, max(settings.space.ipcs))  # now, and not after the experts
    check_experts(inputs)
    with tracked(settings, mirror) as run:
        try:
            console.print(f"Comparison {settings.name} in {settings.place}")
            run.log_dataset(inputs)
            if set(_methods(settings)) & set(DISTILLED):  # all begin with images that the experts classify right
                run.log_experts(ensure_experts(inputs, resources, console), inputs)
            progress.spend("experts")
            jobs = _start(inputs, resources, progress)
            measure_jobs(jobs, progress, mirror, console, title="Comparison, networks")
        except BaseException as error:
            write_result(settings, _result(inputs, progress, run, status_after(error)))
            raise
        result = {**_result(inputs, progress, run, "finished"), "skip_rates": _skip_rates(settings)}
        sets = {f"{method}-{ipc}": {"method": method, "ipc": ipc} for method, ipc in _sets(settings)}
        run.log_finals(_measured(progress), sets)
        report_comparison(settings, result)
        write_result(settings, result)
        run.log_result(result, settings)
        return result


def _methods(settings: SweepSettings) -> tuple[str, ...]:
    return listed(settings.fixed["methods"], METHODS)


def _sets(settings: SweepSettings) -> list[tuple[str, int]]:
    """Return every method and number of images per class."""
    return [(method, ipc) for method in _methods(settings) for ipc in settings.space.ipcs]


def _start(inputs: Inputs, resources: Resources, progress: Progress) -> dict[Any, tuple[str, str, int]]:
    """Have workers make what is missing and train on it; returns regime, set and repeat by Ray's references."""
    settings = inputs.settings
    fixed = settings.fixed
    regimes, repeats = listed(fixed["regimes"], REGIMES), fixed["repeats"]
    started: dict[Any, tuple[str, str, int]] = {}
    for repeat in range(repeats):
        missing = {
            (method, ipc): [regime for regime in regimes if (regime, f"{method}-{ipc}", repeat) not in progress.finals]
            for method, ipc in _sets(settings)
        }
        if not any(missing.values()):
            continue
        maker = Baselines(inputs, resources, repeat)
        teacher = maker.teacher() if set(regimes) - {"hard"} else None
        for (method, ipc), left in missing.items():
            if not left:
                continue
            images = maker.make(method, ipc) if method in BASELINES else _distil(inputs, resources, method, ipc, repeat)
            for regime in left:
                protocol = settings.regime_protocol(regime)
                reference = start_network(inputs, resources, images, protocol, repeat, regime=regime, teacher=teacher)
                started[reference] = (regime, f"{method}-{ipc}", repeat)
    return started


def _distil(inputs: Inputs, resources: Resources, method: str, ipc: int, repeat: int) -> Any:
    """Return a reference to where a distilled set is kept once it is there."""
    settings = inputs.settings
    config = {**settings.space.resolve({"variant": method, "repeat": repeat}), "ipc": ipc}
    run = _DISTIL_SET.options(**resources.actor_options)
    return run.remote(inputs.trial_work(resources, compiled=False), config, _place(settings, method, ipc, repeat))


def _place(settings: SweepSettings, method: str, ipc: int, repeat: int) -> str:
    """Return where a distilled set is kept."""
    return f"{settings.checkpoints}/distilled/{method}-{ipc}-{repeat}.safetensors"


def _skip_rates(settings: SweepSettings) -> dict[str, float]:
    """Return the mean share of skipped iterations of every distilled method and size, which are all there."""
    rates = {}
    for method, ipc in _sets(settings):
        if method in DISTILLED:
            iterations = settings.space.resolve({"variant": method, "repeat": 0})["iterations"]
            places = [_place(settings, method, ipc, repeat) for repeat in range(settings.fixed["repeats"])]
            skipped = [int((read_checkpoint(place) or {})["skipped"]) for place in places]
            rates[f"{method}-{ipc}"] = fmean(skipped) / iterations
    return rates


def _measured(progress: Progress) -> Measured:
    return measured_by_protocol(progress, sorted(progress.finals))


def _result(inputs: Inputs, progress: Progress, run: SweepRun, status: str) -> dict[str, Any]:
    """Return what result.json holds; of a comparison that ended early, the records of what was measured by then."""
    settings, dataset = inputs.settings, inputs.dataset
    return {
        "version": 1,
        "sweep": settings.name,
        "space": settings.space.name,
        "status": status,
        "seed": settings.seed,
        "records": comparison_records(settings, _measured(progress), len(dataset.split("train")), dataset.classes),
        "seconds": progress.seconds(),
        "mlflow": {
            "tracking_uri": run.tracking_uri,
            "experiment_id": run.experiment_id,
            "parent_run_id": run.run_id,
        },
    }
