"""A comparison: the sets of every method at several sizes, measured in the label regimes.

Source: docs/method.md, "Label regimes".

Repeat k of a method is a separate set, whose scoring runs or distillation are seeded by k. One network is trained on it
in each regime; its initial parameters are the same for every set of repeat k. So n counts sets, and values of the same
repeat are paired.
"""

from collections.abc import Hashable
from functools import partial
from statistics import fmean
from typing import Any

from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task
from orchestrator.cluster.worker_code import remote_task
from orchestrator.planning.compilation import is_compiled_always
from orchestrator.reporting.comparison import report_comparison
from orchestrator.reporting.tables import records_table
from orchestrator.results.comparison import comparison_records
from orchestrator.results.entries import ComparedSet
from orchestrator.results.finals import Job, Measured, measured_by_protocol
from orchestrator.results.result_json import arithmetic_entry, dataset_entry, write_result
from orchestrator.results.under_way import UnderWay
from orchestrator.stages.baselines import Baselines, Made
from orchestrator.stages.bulletin import Bulletin
from orchestrator.stages.driver import drive, status_after, tracked
from orchestrator.stages.experts import check_experts, ensure_experts
from orchestrator.stages.finals import measure_networks, network_task
from orchestrator.stages.inputs import Inputs, check_same_dataset, prepare_inputs
from orchestrator.state.mirror import Mirror
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.console import make_console
from orchestrator.tracking.result import result_entries
from orchestrator.tracking.sweep_run import SweepRun
from search_spaces import Comparison
from search_spaces.name_lists import REGIMES, listed
from trainables.data.real_images import check_ipc
from trainables.storage.checkpoints import read_checkpoint
from trainables.workers.distilled_set import distil_set

__all__ = ["run_comparison"]


def run_comparison(settings: SweepSettings) -> dict[str, Any]:
    """Run a comparison, or the rest of an interrupted one, and return the content of result.json."""
    result = drive(settings, _run)
    console = make_console()  # printed also with --quiet
    console.print(*records_table(result["records"]))
    console.print(f"report: {settings.places.shared}/report.html", soft_wrap=True)
    return result


def _run(settings: SweepSettings, resources: Resources, mirror: Mirror, console: Console) -> dict[str, Any]:
    inputs, progress = prepare_inputs(settings, console), Progress(settings.places.folder)
    check_same_dataset(inputs, progress)
    check_ipc(inputs.dataset, max(_space(settings).ipcs))  # before the experts are trained
    check_experts(inputs)
    patience = Patience(settings.patience_s, console, f"resume with: {settings.resume_command}")
    with tracked(settings, mirror) as run:

        def write_so_far(status: str, under_way: UnderWay) -> None:
            write_result(
                settings, _result(inputs, progress, run, resources.device, status) | {"under_way": under_way.to_json()}
            )

        bulletin = Bulletin(write_so_far, settings)
        try:
            with bulletin:
                mirror.push()
                console.print(f"Comparison {settings.name} in {settings.places.shared}", soft_wrap=True)
                run.log_dataset(inputs.dataset, inputs.file)
                if _space(settings).distilled:  # they start from images that the experts classify correctly
                    bulletin.begin("experts", unit="epochs")
                    experts = ensure_experts(inputs, resources, console, patience, bulletin.count)
                    run.log_experts(experts, inputs.experts_params, inputs.experts_place)
                progress.spend("experts")
                bulletin.begin("networks", unit="networks")
                measure_networks(
                    _tasks(inputs, resources, progress), resources, patience, progress,
                    partial(mirror.push, everything=False), console, title="Comparison, networks",
                    follow=bulletin.count,
                )  # fmt: skip
                bulletin.begin("report")
            return _conclude(inputs, progress, run, resources.device)
        except BaseException as error:
            bulletin.end(status_after(error), error)
            raise


def _conclude(inputs: Inputs, progress: Progress, run: SweepRun, device: str) -> dict[str, Any]:
    """Write the files of a finished comparison, log them, and return the content of result.json."""
    settings = inputs.settings
    result = {**_result(inputs, progress, run, device, "finished"), "skip_rates": _skip_rates(settings)}
    sets = {compared.name: compared._asdict() for compared in _sets(settings)}
    run.log_finals(_measured(progress), sets)
    report_comparison(settings, result)
    write_result(settings, result)
    run.log_result(result_entries(result, settings, run.run_id))
    return result


def _space(settings: SweepSettings) -> Comparison:
    assert isinstance(settings.space, Comparison), "launch.run() starts only comparisons here"
    return settings.space


def _sets(settings: SweepSettings) -> list[ComparedSet]:
    space = _space(settings)
    return [ComparedSet(method, ipc) for method in space.methods for ipc in space.ipcs]


def _tasks(inputs: Inputs, resources: Resources, progress: Progress) -> dict[Hashable, Task]:
    """Return the tasks that make all missing sets and train on them."""
    settings = inputs.settings
    fixed = settings.fixed
    regimes, repeats = listed(fixed["regimes"], REGIMES), fixed["repeats"]
    distilled, tasks = _space(settings).distilled, dict[Hashable, Task]()
    for repeat in range(repeats):
        jobs = {
            compared: [job for regime in regimes if (job := Job(regime, compared.name, repeat)) not in progress.finals]
            for compared in _sets(settings)
        }
        missing = [compared for compared in jobs if jobs[compared]]
        if not missing:
            continue
        made = [compared for compared in missing if compared.method not in distilled]
        tasks |= Baselines(inputs, resources, made, teacher=bool(set(regimes) - {"hard"}), repeat=repeat).tasks()
        for compared in missing:
            if compared.method in distilled:
                tasks[Made(repeat, compared)] = _distillation(inputs, resources, compared, repeat)
            for job in jobs[compared]:
                protocol = settings.regime_protocol(job.protocol)
                tasks[job] = network_task(inputs, resources, job, Made(repeat, compared), protocol, repeat=repeat)
    return tasks


def _distillation(inputs: Inputs, resources: Resources, wanted: ComparedSet, repeat: int) -> Task:
    """Return the distillation of a set; its result is the path or URI of the set."""
    settings = inputs.settings
    _, own = settings.space.split(settings.space.resolve({"variant": wanted.method, "repeat": repeat}))
    run = remote_task(distil_set, resources)
    work, place = inputs.trial_work(resources, compiled=is_compiled_always(settings)), _place(settings, wanted, repeat)
    return Task(
        f"the distillation of {wanted.name}, repeat {repeat}",
        partial(run.remote, work, {**own, "ipc": wanted.ipc}, place),
    )


def _place(settings: SweepSettings, distilled: ComparedSet, repeat: int) -> str:
    """Return the path or URI of a distilled set."""
    return f"{settings.places.checkpoints}/distilled/{distilled.name}-{repeat}.safetensors"


def _skip_rates(settings: SweepSettings) -> dict[str, float]:
    """Return the mean share of skipped iterations for every distilled method and size; all sets must exist."""
    rates = {}
    for compared in _sets(settings):
        if compared.method in _space(settings).distilled:
            iterations = settings.space.resolve({"variant": compared.method, "repeat": 0})["iterations"]
            places = [_place(settings, compared, repeat) for repeat in range(settings.fixed["repeats"])]
            skipped = [int((read_checkpoint(place) or {})["skipped"]) for place in places]
            rates[compared.name] = fmean(skipped) / iterations
    return rates


def _measured(progress: Progress) -> Measured:
    return measured_by_protocol(progress, sorted(progress.finals))


def _result(inputs: Inputs, progress: Progress, run: SweepRun, device: str, status: str) -> dict[str, Any]:
    """Return the content of result.json; its records cover what is measured so far."""
    settings, dataset = inputs.settings, inputs.dataset
    return {
        "version": 1,
        "sweep": settings.name,
        "space": settings.space.name,
        "status": status,
        "seed": settings.seed,
        "dataset": dataset_entry(inputs.findings),
        "records": comparison_records(settings, _measured(progress), len(dataset.split("train")), dataset.classes),
        "arithmetic": arithmetic_entry(settings, device),
        "seconds": progress.seconds(),
        "mlflow": run.facts(),
    }
