"""Processes of workers in a real Ray with two GPUs that are declared, not there: Ray hands out their numbers alike."""

import os
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil
import pytest
import ray

from orchestrator.cluster.resources import Resources
from orchestrator.cluster.worker_code import remote_actor, remote_task

pytestmark = pytest.mark.slow

ON_CPUS = Resources(cpus=4, gpus=2, gpus_per_trial=0)
ON_GPUS = Resources(cpus=4, gpus=2, gpus_per_trial=1)
ON_HALVES = Resources(cpus=4, gpus=2, gpus_per_trial=0.5)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield
    ray.shutdown()


class Seen(NamedTuple):
    """What a piece of work saw."""

    process: int
    created: float
    """When the process began: with its number this is unique."""
    began_with: str | None
    """GPUs for which CUDA was set up: those at the first work of the process, as CUDA reads the variable once."""
    gpus: str | None
    """GPUs that Ray gave this work."""


def look(seconds: float) -> Seen:
    """Work for so long, and return what was seen."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    began_with = os.environ.setdefault("BEGAN_WITH", str(gpus))
    time.sleep(seconds)
    return Seen(os.getpid(), psutil.Process().create_time(), began_with, str(gpus))


class Looking:
    """An actor that looks."""

    def look(self, seconds: float) -> Seen:
        return look(seconds)


def lives(seen: Seen) -> bool:
    try:
        process = psutil.Process(seen.process)
        return process.create_time() == seen.created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_their_ends(seen: Sequence[Seen]) -> None:
    """Wait until no process of these lives; the test's own timeout bounds it."""
    while any(map(lives, seen)):
        time.sleep(0.05)


def check_own_processes(seen: Sequence[Seen]) -> None:
    """Each had its own process, which saw one GPU and ends."""
    assert all(one.began_with == one.gpus for one in seen), "CUDA stays on the GPU on which its process began"
    assert len({(one.process, one.created) for one in seen}) == len(seen)
    wait_for_their_ends(seen)


def queue(resources: Resources, length: int) -> list[Seen]:
    """Run a queue of tasks of different lengths, so that they come to the GPUs in another order."""
    task = remote_task(look, resources)
    return list(ray.get([task.remote(0.05 + 0.1 * (number % 3)) for number in range(length)]))


@pytest.mark.parametrize(("resources", "length"), [(ON_GPUS, 3), (ON_HALVES, 5)], ids=["a GPU each", "half a GPU each"])
def test_a_task_on_a_gpu_has_a_process_of_its_own_that_ends_with_it(resources: Resources, length: int) -> None:
    seen = queue(resources, length)
    assert {one.gpus for one in seen} == {"0", "1"}, "both GPUs were in use"
    check_own_processes(seen)


def test_tasks_on_cpus_share_processes() -> None:
    seen = [*queue(ON_CPUS, 2), *queue(ON_CPUS, 4)]
    assert len({one.process for one in seen}) < len(seen)
    assert all(map(lives, seen))


def test_an_actor_on_a_gpu_has_a_process_of_its_own_that_ends_with_it() -> None:
    on_cpus = queue(ON_CPUS, 2)  # their processes wait for more, and CUDA showed them no GPU
    seen = queue(ON_GPUS, 1)
    actors = [remote_actor(Looking, ON_GPUS).remote() for _ in range(2)]
    theirs = ray.get([actor.look.remote(0.05) for actor in actors])
    assert {one.gpus for one in theirs} == {"0", "1"}
    for actor in actors:
        ray.kill(actor)
    seen += [*theirs, *queue(ON_GPUS, 1)]
    check_own_processes(seen)
    assert not {one.process for one in seen} & {one.process for one in on_cpus}
