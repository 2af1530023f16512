"""The finals: the one place where the test split is read, once.

Synthetic sets, random real images, the baselines and the full training set each train several fresh networks under the
final protocol; network k starts from the same initial parameters for every set. Labels are hard and in default order
for every set, also for one that was distilled with soft labels: the challenge's evaluator knows no others. In the label
regimes that a space asks for, the best set and the baselines are measured once more.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from rich.console import Console
from torch import Tensor

from orchestrator.baseline_sets import Baselines, chosen_baselines
from orchestrator.cluster import Resources, result_of
from orchestrator.inputs import Inputs
from orchestrator.live import progress_bar
from orchestrator.mirror import Mirror
from orchestrator.progress import Progress
from orchestrator.statistics import summarize
from search_spaces.listed import BASELINES, REGIMES, listed
from trainables.config import Protocol
from trainables.files import write_atomically
from trainables.final import train_and_test
from trainables.initialization import real_images
from trainables.metrics import TESTED, Metrics
from trainables.seeding import seed_of

__all__ = [
    "CHALLENGE",
    "FULL_DATA",
    "RANDOM_REAL",
    "Measured",
    "measure_jobs",
    "measured_by_protocol",
    "name_finals",
    "run_finals",
    "start_network",
    "write_finals",
]

FULL_DATA, RANDOM_REAL = "full_data", "random_real"
CHALLENGE = "challenge"
"""The finals' own protocol, beside the label regimes'."""

_TRAIN_AND_TEST = ray.remote(train_and_test)  # once: Ray exports each such object as a function of its own

Measured = dict[str, dict[str, list[Metrics]]]
"""What the networks of each set reached: by protocol, and by the name of a trial or baseline."""


class _Job(NamedTuple):
    """A network to train and test."""

    protocol: str
    """`CHALLENGE`, or the label regime."""
    name: str
    """Of the set."""
    number: int
    """Of the network."""


def run_finals(
    inputs: Inputs,
    resources: Resources,
    sets: Mapping[str, Tensor],
    progress: Progress,
    mirror: Mirror,
    console: Console,
    *,
    kept: str,
    keep: Callable[[Tensor], None],
) -> Measured:
    """Train and test on each set, once, and return what its networks reached.

    What was measured before, by a driver that then was stopped, is not measured again.

    Args:
        inputs: The sweep's inputs.
        resources: What one training takes.
        sets: Synthetic sets by trial's name, normalised float32 [ipc·C, ch, H, W] in default order.
        progress: Keeps what is measured.
        mirror: Keeps that at the workdir's URI.
        console: Where it is shown.
        kept: The set whose first network is kept, and which the label regimes measure.
        keep: Is given its parameters, float32 [P], before it counts as measured.
    """
    fixed = inputs.settings.fixed
    regimes, networks = listed(fixed["regimes"], REGIMES), range(fixed["final_networks"])
    baselines = chosen_baselines(fixed)
    names = [FULL_DATA, RANDOM_REAL, *sets, *baselines]  # the longest first, and last what has yet to be made
    wanted = [_Job(CHALLENGE, name, number) for name in names for number in networks]
    in_regimes = [RANDOM_REAL, kept, *baselines]
    wanted += [_Job(regime, name, number) for regime in regimes for name in in_regimes for number in networks]
    jobs = _start([job for job in wanted if job not in progress.finals], inputs, resources, sets)

    def keep_first(job: tuple[str, str, int], theta: Any) -> None:
        if job == (CHALLENGE, kept, 0):
            keep(torch.tensor(theta))

    measure_jobs(jobs, progress, mirror, console, title="Finals, networks", each=keep_first)
    return measured_by_protocol(progress, wanted)


def measure_jobs(
    jobs: Mapping[Any, tuple[str, str, int]],
    progress: Progress,
    mirror: Mirror,
    console: Console,
    *,
    title: str,
    each: Callable[[tuple[str, str, int], Any], None] = lambda job, theta: None,
) -> None:
    """Wait for networks that workers train and test, and write down what each reaches as soon as it is there.

    Args:
        jobs: Protocol, set and network, by Ray's references.
        progress: Keeps what is measured.
        mirror: Keeps that at the workdir's URI.
        console: Where it is shown.
        title: What is shown.
        each: Is given a job and the network's parameters, float32 [P], before it counts as measured.

    Raises:
        InputError: What a worker refused.
    """
    with progress_bar(console, title, max(1, len(jobs))) as show:
        waiting = list(jobs)
        while waiting:
            ready, waiting = ray.wait(waiting)
            for reference in ready:
                metrics, theta = result_of(reference)
                each(jobs[reference], theta)
                progress.finals[jobs[reference]] = metrics
            progress.spend("finals")
            mirror.push(everything=False)
            show(len(jobs) - len(waiting))


def measured_by_protocol(progress: Progress, jobs: Iterable[tuple[str, str, int]]) -> Measured:
    """Return what was measured of jobs (protocol, set and network), sets and networks in the jobs' order."""
    measured: Measured = {}
    for protocol, name, number in jobs:
        measured.setdefault(protocol, {}).setdefault(name, []).append(progress.finals[protocol, name, number])
    return measured


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
    """Have a worker train and test a network, and return Ray's reference to what it reaches.

    Args:
        inputs: The sweep's inputs.
        resources: What a training takes.
        images: As `train_and_test` takes them, or Ray's reference to that.
        protocol: How it is trained.
        number: Network k starts alike for every set.
        regime: Where the labels come from.
        teacher: Reference to who labels; of the hard regime it is not read.
    """
    run = _TRAIN_AND_TEST.options(**resources.actor_options)
    seed = seed_of(inputs.settings.seed, "finals", number)
    return run.remote(
        inputs.file, images, inputs.network, protocol, inputs.evaluation_augmentation, seed, resources.device, regime,
        None if regime == "hard" else teacher,
    )  # fmt: skip


def _start(jobs: Sequence[_Job], inputs: Inputs, resources: Resources, sets: Mapping[str, Tensor]) -> dict[Any, _Job]:
    """Have workers train and test networks, and return the jobs by Ray's references to what they reach."""
    settings, ipc = inputs.settings, inputs.settings.fixed["ipc"]
    fresh, maker = {job.name for job in jobs}, Baselines(inputs, resources)
    made: dict[str, Any] = {name: ray.put(images.numpy()) for name, images in sets.items() if name in fresh}
    teacher = maker.teacher() if any(job.protocol not in (CHALLENGE, "hard") for job in jobs) else None
    made |= {name: maker.make(name, ipc) for name in chosen_baselines(settings.fixed) if name in fresh}
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


def name_finals(
    measured: Mapping[str, Sequence[Metrics]], best: str, reference: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `finals` of result.json: means over networks, of the best and the reference trial and the baselines."""
    others = [name for name in (RANDOM_REAL, *BASELINES, FULL_DATA) if name in measured]
    places = {"winner": best, "paper_setting": reference, **{name: name for name in others}}
    return {
        name: {metric: summarize([getattr(each, metric) for each in measured[place]]) for metric in TESTED}
        for name, place in places.items()
        if place in measured
    }


def write_finals(path: Path, measured: Measured, class_names: Sequence[str]) -> None:
    """Write a row a protocol, set and network: what it reached, its confusion, int64 [C·C], actual class by predicted.

    The classes' names are JSON in the file's metadata.
    """
    rows = [
        {
            "protocol": protocol,
            "set": name,
            "network": number,
            **{metric: getattr(each, metric) for metric in TESTED},
            "confusion": [count for row in each.confusion for count in row],
        }
        for protocol, sets in measured.items()
        for name, networks in sets.items()
        for number, each in enumerate(networks)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"class_names": json.dumps(list(class_names))})
    write_atomically(path, lambda aside: pq.write_table(table, aside))
