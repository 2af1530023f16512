"""The finals: the only stage that reads the test split, once.

Several fresh networks are trained under the final protocol on every synthetic set, on random real images, on every
baseline and on the full training set; network k starts from the same initial parameters for every set. Labels are hard
and in default order for every set, also for one that was distilled with soft labels: the challenge's evaluator supports
no others. In the label regimes that a space names, the best set and the baselines are measured again.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import ray
import torch
from rich.console import Console
from torch import Tensor

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.results.entries import FULL_DATA, RANDOM_REAL, ComparedSet
from orchestrator.results.finals import CHALLENGE, Job, Measured, measured_by_protocol
from orchestrator.stages.baselines import Baselines, Made, chosen_baselines
from orchestrator.stages.inputs import Inputs
from orchestrator.state.progress import Progress
from orchestrator.terminal.progress_bar import progress_bar
from orchestrator.terminal.steps import Steps
from search_spaces.name_lists import REGIMES, listed
from trainables.config.protocol import Protocol
from trainables.data.real_images import real_rows
from trainables.seeding import seed_of
from trainables.workers.final import train_and_test

__all__ = ["measure_networks", "network_task", "run_finals"]


def run_finals(
    inputs: Inputs,
    resources: Resources,
    sets: Mapping[str, Tensor],
    progress: Progress,
    written: Callable[[], None],
    console: Console,
    patience: Patience,
    *,
    best: str,
    save_model: Callable[[Tensor], None],
    follow: Callable[[Steps], None],
) -> Measured:
    """Train networks on every set, test them, and return their metrics.

    Networks that an earlier, interrupted driver has measured are not measured again.

    Args:
        inputs: The sweep's inputs.
        resources: Resources of one training.
        sets: Synthetic sets by trial's name, normalised float32 [ipc·C, ch, H, W] in default order.
        progress: Records the metrics.
        written: Called after every write to `progress`.
        console: Shows the progress.
        patience: Decides when a lost training is started again.
        best: The set whose first network is saved, and which the label regimes measure.
        save_model: Called with that network's parameters, float32 [P], before its metrics are recorded.
        follow: Called with the networks as steps when their training begins.

    Raises:
        InputError: A worker refused its input.
        ClusterError: Processes were lost for longer than the patience.
    """
    fixed = inputs.settings.fixed
    regimes, networks = listed(fixed["regimes"], REGIMES), range(fixed["final_networks"])
    baselines = chosen_baselines(inputs.settings.space)
    names = [
        FULL_DATA,
        RANDOM_REAL,
        *sets,
        *baselines,
    ]  # the longest trainings first; last the sets that are still being made
    wanted = [Job(CHALLENGE, name, number) for name in names for number in networks]
    in_regimes = [RANDOM_REAL, best, *baselines]
    wanted += [Job(regime, name, number) for regime in regimes for name in in_regimes for number in networks]
    tasks = _tasks([job for job in wanted if job not in progress.finals], inputs, resources, sets)

    def save_first(job: Job, theta: Any) -> None:
        if job == (CHALLENGE, best, 0):
            save_model(torch.tensor(theta))

    measure_networks(
        tasks, resources, patience, progress, written, console, title="Finals, networks", on_measured=save_first,
        follow=follow, cost=lambda job: _cost(inputs, job),
    )  # fmt: skip
    return measured_by_protocol(progress, wanted)


def measure_networks(
    tasks: Mapping[Hashable, Task],
    resources: Resources,
    patience: Patience,
    progress: Progress,
    written: Callable[[], None],
    console: Console,
    *,
    title: str,
    on_measured: Callable[[Job, Any], None] = lambda job, theta: None,
    follow: Callable[[Steps], None] = lambda steps: None,
    cost: Callable[[Job], float] = lambda job: 1.0,
) -> None:
    """Train and test networks on workers, and record the metrics of a network as soon as it is tested.

    Args:
        tasks: The tasks of `network_task` by job, and by other keys the tasks that make what they need.
        resources: Resources of one training.
        patience: Decides when a lost task is started again.
        progress: Records the metrics.
        written: Called after every write to `progress`.
        console: Shows the progress.
        title: Title of the progress bar.
        on_measured: Called with a job and the network's parameters, float32 [P], before its metrics are recorded.
        follow: Called with the networks as steps when the waiting begins.
        cost: Work of a job, in any unit, for the estimate of the time left.

    Raises:
        InputError: A worker refused its input.
        ClusterError: Processes were lost for longer than the patience.
    """
    jobs = [key for key in tasks if isinstance(key, Job)]
    work = sum(map(cost, jobs))
    with progress_bar(console, title, max(1, len(jobs)), follow) as show:
        measured, done = 0, 0.0

        def record(key: Hashable, result: Any) -> None:
            nonlocal measured, done
            if not isinstance(key, Job):
                return
            metrics, theta = result
            on_measured(key, theta)
            progress.add_final(key, metrics)
            progress.spend("finals")
            written()
            measured += 1
            done += cost(key)
            show(measured, done / work)

        run_tasks(tasks, resources, patience, record)


def network_task(
    inputs: Inputs, resources: Resources, job: Job, images: Any, protocol: Protocol, *, repeat: int = 0
) -> Task:
    """Return the training and test of a network on a worker; its result is the metrics and the parameters.

    Args:
        inputs: The sweep's inputs.
        resources: Resources of one training.
        job: Protocol, set and network: its number k seeds the initial parameters.
        images: The `images` of `train_and_test`, a Ray reference to them, or the key of the task that makes them.
        protocol: How the network is trained.
        repeat: The repeat whose teacher labels the images, if the job's protocol is a soft regime.
    """
    regime = "hard" if job.protocol == CHALLENGE else job.protocol
    teacher = None if regime == "hard" else Made(repeat, None)
    needs = tuple(part for part in (images, teacher) if isinstance(part, Made))
    seed = seed_of(inputs.settings.seed, "finals", job.number)

    def start(*results: Any) -> Any:
        made = dict(zip(needs, results, strict=True))
        return remote_task(train_and_test, resources).remote(
            inputs.file, made[images] if isinstance(images, Made) else images, inputs.network, protocol,
            inputs.evaluation_augmentation, seed, resources.device, inputs.settings.arithmetic, regime,
            made[teacher] if teacher else None,
        )  # fmt: skip

    return Task(f"network {job.number} on {job.name} ({job.protocol})", start, needs)


def _cost(inputs: Inputs, job: Job) -> float:
    """Return the images that the training of a network passes through."""
    settings = inputs.settings
    if job.name == FULL_DATA:
        return float(len(inputs.dataset.split("train")) * settings.full_data_protocol.epochs)
    how = settings.final_protocol if job.protocol == CHALLENGE else settings.regime_protocol(job.protocol)
    return float(settings.fixed["ipc"] * inputs.dataset.classes * how.epochs)


def _tasks(
    jobs: Sequence[Job], inputs: Inputs, resources: Resources, sets: Mapping[str, Tensor]
) -> dict[Hashable, Task]:
    """Return the tasks that train and test all networks, and those that make the baselines and the teacher."""
    settings, ipc = inputs.settings, inputs.settings.fixed["ipc"]
    needed = {job.name for job in jobs}
    baselines = {name: ComparedSet(name, ipc) for name in chosen_baselines(settings.space) if name in needed}
    labelled = any(job.protocol not in (CHALLENGE, "hard") for job in jobs)
    tasks = Baselines(inputs, resources, list(baselines.values()), teacher=labelled).tasks()
    made: dict[str, Any] = {name: ray.put(images.numpy()) for name, images in sets.items() if name in needed}
    made |= {name: Made(0, wanted) for name, wanted in baselines.items()}
    for job in jobs:
        if job.name == RANDOM_REAL:
            draw = seed_of(settings.seed, "random real", job.number)
            images: Any = real_rows(inputs.dataset, ipc, draw).numpy()
        else:
            images = made.get(job.name)  # the full training set needs none
        if job.protocol != CHALLENGE:
            protocol = settings.regime_protocol(job.protocol)
        else:
            protocol = settings.full_data_protocol if job.name == FULL_DATA else settings.final_protocol
        tasks[job] = network_task(inputs, resources, job, images, protocol)
    return tasks
