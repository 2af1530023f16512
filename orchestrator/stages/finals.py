"""The finals: the only stage that reads the test split, once.

Several fresh networks are trained under the final protocol on every synthetic set, on random real images, on every
baseline and on the full training set; network k starts from the same initial parameters for every set. Labels are hard
and in default order for every set, also for one that was distilled with soft labels: the challenge's evaluator supports
no others. In the label regimes that a space names, the best set and the baselines are measured again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
import torch
from rich.console import Console
from torch import Tensor

from orchestrator.cluster.connection import result_of
from orchestrator.cluster.resources import Resources
from orchestrator.results.entries import FULL_DATA, RANDOM_REAL, ComparedSet
from orchestrator.results.finals import CHALLENGE, Job, Measured, measured_by_protocol
from orchestrator.stages.baselines import Baselines, chosen_baselines
from orchestrator.stages.inputs import Inputs
from orchestrator.state.progress import Progress
from orchestrator.terminal.progress_bar import progress_bar
from orchestrator.terminal.steps import Steps
from search_spaces.name_lists import REGIMES, listed
from trainables.config.protocol import Protocol
from trainables.data.real_images import real_images
from trainables.seeding import seed_of
from trainables.workers.final import train_and_test

__all__ = ["measure_jobs", "run_finals", "start_network"]


_TRAIN_AND_TEST = ray.remote(train_and_test)  # at module level: Ray exports every such object as another function


def run_finals(
    inputs: Inputs,
    resources: Resources,
    sets: Mapping[str, Tensor],
    progress: Progress,
    written: Callable[[], None],
    console: Console,
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
        best: The set whose first network is saved, and which the label regimes measure.
        save_model: Called with that network's parameters, float32 [P], before its metrics are recorded.
        follow: Called with the networks as steps when their training begins.

    Raises:
        InputError: A worker refused its input.
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
    jobs = _start([job for job in wanted if job not in progress.finals], inputs, resources, sets)

    def save_first(job: tuple[str, str, int], theta: Any) -> None:
        if job == (CHALLENGE, best, 0):
            save_model(torch.tensor(theta))

    measure_jobs(
        jobs, progress, written, console, title="Finals, networks", on_measured=save_first, follow=follow,
        cost=lambda job: _cost(inputs, job),
    )  # fmt: skip
    return measured_by_protocol(progress, wanted)


def measure_jobs(
    jobs: Mapping[Any, tuple[str, str, int]],
    progress: Progress,
    written: Callable[[], None],
    console: Console,
    *,
    title: str,
    on_measured: Callable[[tuple[str, str, int], Any], None] = lambda job, theta: None,
    follow: Callable[[Steps], None] = lambda steps: None,
    cost: Callable[[tuple[str, str, int]], float] = lambda job: 1.0,
) -> None:
    """Wait for networks that workers train and test, and record the metrics of a network as soon as it is tested.

    Args:
        jobs: Protocol, set and network, by Ray reference.
        progress: Records the metrics.
        written: Called after every write to `progress`.
        console: Shows the progress.
        title: Title of the progress bar.
        on_measured: Called with a job and the network's parameters, float32 [P], before its metrics are recorded.
        follow: Called with the networks as steps when the waiting begins.
        cost: Work of a job, in any unit, for the estimate of the time left.

    Raises:
        InputError: A worker refused its input.
    """
    work, done = sum(map(cost, jobs.values())), 0.0
    with progress_bar(console, title, max(1, len(jobs)), follow) as show:
        waiting = list(jobs)
        while waiting:
            ready, waiting = ray.wait(waiting)
            for reference in ready:
                metrics, theta = result_of(reference)
                on_measured(jobs[reference], theta)
                progress.add_final(jobs[reference], metrics)
                done += cost(jobs[reference])
            progress.spend("finals")
            written()
            show(len(jobs) - len(waiting), done / work)


def start_network(
    inputs: Inputs,
    resources: Resources,
    images: Any,
    protocol: Protocol,
    number: int,
    *,
    regime: str = "hard",
    teacher: Any = None,
) -> Any:
    """Start the training and test of a network on a worker, and return a Ray reference to its metrics and parameters.

    Args:
        inputs: The sweep's inputs.
        resources: Resources of one training.
        images: The `images` of `train_and_test`, or a Ray reference to them.
        protocol: How the network is trained.
        number: The network's number k, which seeds its initial parameters.
        regime: The label regime.
        teacher: Ray reference to the teacher's parameters, float32 [P]; ignored in the hard regime.
    """
    run = _TRAIN_AND_TEST.options(**resources.actor_options)
    seed = seed_of(inputs.settings.seed, "finals", number)
    return run.remote(
        inputs.file, images, inputs.network, protocol, inputs.evaluation_augmentation, seed, resources.device, regime,
        None if regime == "hard" else teacher,
    )  # fmt: skip


def _cost(inputs: Inputs, job: tuple[str, str, int]) -> float:
    """Return the images that the training of a network passes through."""
    protocol, name, _ = job
    settings = inputs.settings
    if name == FULL_DATA:
        return float(len(inputs.dataset.split("train")) * settings.full_data_protocol.epochs)
    how = settings.final_protocol if protocol == CHALLENGE else settings.regime_protocol(protocol)
    return float(settings.fixed["ipc"] * inputs.dataset.classes * how.epochs)


def _start(jobs: Sequence[Job], inputs: Inputs, resources: Resources, sets: Mapping[str, Tensor]) -> dict[Any, Job]:
    """Start the training and test of all networks on workers, and return the jobs by Ray reference."""
    settings, ipc = inputs.settings, inputs.settings.fixed["ipc"]
    needed, maker = {job.name for job in jobs}, Baselines(inputs, resources)
    made: dict[str, Any] = {name: ray.put(images.numpy()) for name, images in sets.items() if name in needed}
    teacher = maker.teacher() if any(job.protocol not in (CHALLENGE, "hard") for job in jobs) else None
    made |= {name: maker.make(ComparedSet(name, ipc)) for name in chosen_baselines(settings.space) if name in needed}
    started = {}
    for job in jobs:
        if job.name == RANDOM_REAL:
            draw = seed_of(settings.seed, "random real", job.number)
            images: Any = ray.put(real_images(inputs.dataset, ipc, draw).numpy())
        else:
            images = made.get(job.name)  # the full training set needs none
        if job.protocol == CHALLENGE:
            protocol = settings.full_data_protocol if job.name == FULL_DATA else settings.final_protocol
            reference = start_network(inputs, resources, images, protocol, job.number)
        else:
            protocol = settings.regime_protocol(job.protocol)
            reference = start_network(
                inputs, resources, images, protocol, job.number, regime=job.protocol, teacher=teacher
            )
        started[reference] = job
    return started
