"""A comparison: every method's sets at several sizes, each measured in the label regimes. METHOD §6.

Repeat k of a method is a set of its own, with scoring runs or a distillation named by k, and one network trained on it
in each regime, which starts alike for every set: so n counts sets, and the values of one repeat pair.
"""

from typing import Any

import ray
from rich.console import Console

from orchestrator.baseline_sets import Baselines
from orchestrator.cluster import Resources, connected
from orchestrator.comparison_report import comparison_records, leave_comparison, records_table
from orchestrator.console import make_console
from orchestrator.errors import Stopped
from orchestrator.experts import check_experts, ensure_experts
from orchestrator.finals import Measured, measure_jobs, measured_by_protocol, start_network
from orchestrator.inputs import Inputs, prepare_inputs
from orchestrator.mirror import Mirror
from orchestrator.outcome import finished_result
from orchestrator.progress import Progress
from orchestrator.settings import SweepSettings
from orchestrator.tracking import SweepRun, open_sweep_run
from search_spaces.listed import BASELINES, METHODS, REGIMES, listed
from trainables.distilled_set import distil_set

__all__ = ["run_comparison"]


def run_comparison(settings: SweepSettings) -> dict[str, Any]:
    """Run a comparison, or what is left of it, and return what result.json holds."""
    console = make_console(quiet=settings.quiet)
    settings.check_dataset()
    with settings.held():
        mirror = Mirror(settings.workdir, settings.name)
        mirror.pull()
        settings.check_same()  # again: another driver may have been at it meanwhile
        result = finished_result(settings)
        if result is None:
            with connected(settings.address, settings.gpus_per_trial, settings.concurrent) as resources:
                result = _run(settings, resources, mirror, console)
    console.print(*records_table(result["records"]))
    console.print(f"report: {settings.place}/report.html")
    return result


def _run(settings: SweepSettings, resources: Resources, mirror: Mirror, console: Console) -> dict[str, Any]:
    progress, inputs = Progress(settings.folder), prepare_inputs(settings, console)
    check_experts(inputs)
    run = open_sweep_run(
        settings.tracking_uri, settings.workdir, settings.space.name, settings.name,
        {**settings.fixed, "seed": settings.seed, "preset": settings.preset or "none"},
    )  # fmt: skip
    settings.write()
    status = "FAILED"
    try:
        mirror.push()  # from here on it is this driver's
        console.print(f"Comparison {settings.name} in {settings.place}")
        run.log_dataset(inputs)
        if "m_datm" in _methods(settings):
            experts = ensure_experts(inputs, resources, console)
            run.log_experts(experts, inputs)
        progress.spend("experts")
        jobs = _start(inputs, resources, progress)
        measure_jobs(jobs, progress, mirror, console, title="Comparison, networks")
        result = _leave(inputs, measured_by_protocol(progress, sorted(progress.finals)), progress, run)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise Stopped(f"stopped by hand; go on with: {settings.resume_command}") from None
    finally:
        run.end(status)
    mirror.push()
    return result


def _methods(settings: SweepSettings) -> tuple[str, ...]:
    return listed(settings.fixed["methods"], METHODS)


def _start(inputs: Inputs, resources: Resources, progress: Progress) -> dict[Any, tuple[str, str, int]]:
    """Have workers make what is missing and train on it; returns regime, set and repeat by Ray's references."""
    settings = inputs.settings
    fixed, ipcs = settings.fixed, settings.space.ipcs
    regimes, repeats = listed(fixed["regimes"], REGIMES), fixed["repeats"]
    started: dict[Any, tuple[str, str, int]] = {}
    for repeat in range(repeats):
        missing = {
            (method, ipc): [regime for regime in regimes if (regime, f"{method}-{ipc}", repeat) not in progress.finals]
            for method in _methods(settings)
            for ipc in ipcs
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
    place = f"{settings.checkpoints}/distilled/{method}-{ipc}-{repeat}.safetensors"
    run = ray.remote(distil_set).options(**resources.actor_options)
    return run.remote(inputs.trial_work(resources, compiled=False), config, place)


def _leave(inputs: Inputs, measured: Measured, progress: Progress, run: SweepRun) -> dict[str, Any]:
    """Write every file, tell MLflow, and return result.json's content."""
    settings = inputs.settings
    run.log_finals(measured)
    run.flush()
    records = comparison_records(settings, measured, len(inputs.dataset.split("train")), inputs.dataset.classes)
    result = {
        "version": 1,
        "sweep": settings.name,
        "space": settings.space.name,
        "status": "finished",
        "seed": settings.seed,
        "records": records,
        "seconds": progress.seconds(),
        "mlflow": {
            "tracking_uri": run.tracking_uri,
            "experiment_id": run.experiment_id,
            "parent_run_id": run.run_id,
        },
    }
    leave_comparison(settings, result)
    run.log_comparison(result, settings)
    return result
