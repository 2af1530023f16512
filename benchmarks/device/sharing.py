"""The throughput of several processes that compute gradients on one device at the same time."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks.device.results import Measurement
from benchmarks.device.timing import require, seconds_left
from benchmarks.device.worker import Around, Worker
from benchmarks.matching import MatchingProblem
from benchmarks.measure import use_precision

__all__ = ["sharing"]

ROUNDS = 3
"""Samples of every number of processes."""
START_SECONDS = 8.0
"""What starting the processes is assumed to take."""


def sharing(
    problem: MatchingProblem,
    counts: Sequence[int],
    round_seconds: float,
    device: str,
    around: Around,
    deadline: float,
) -> Iterator[Measurement]:
    """Measure the gradients a second of 1, 2 … processes all together.

    Args:
        problem: The gradient of every process.
        counts: Numbers of processes.
        round_seconds: How long every sample runs.
        device: Where they run.
        around: The context of their jobs.
        deadline: When all must be done, on the clock of `time.monotonic`.

    Raises:
        TooLittleTime: The samples do not fit.
        JobStopped: A process failed.
    """
    require(START_SECONDS + ROUNDS * round_seconds * len(counts), deadline, "sharing")
    most = max(counts)
    workers = [Worker(around) for _ in range(most)]
    try:
        _together(workers, _warm_up, (problem, device, most), deadline)
        for count in counts:
            arguments = problem, device, most, round_seconds
            rounds = [_together(workers[:count], _rate, arguments, deadline) for _ in range(ROUNDS)]
            yield Measurement(
                name=f"{problem.images} images, {count} {'process' if count == 1 else 'processes'}",
                unit="gradients / s, all together",
                samples=tuple(sum(rates) for rates in rounds),
                note=f"N = {problem.steps}, eager, fp32, {problem.size} × {problem.size}, {problem.width} wide",
            )
    finally:
        for worker in workers:
            worker.end()


def _together(
    workers: Sequence[Worker],
    job: Callable[..., Iterator[float]],
    arguments: tuple[object, ...],
    deadline: float,
) -> list[float]:
    """Run a job in several workers at the same time, and return one result of each."""
    for worker in workers:
        worker.send(job, *arguments)
    return [result for worker in workers for result in worker.receive(deadline)]


@functools.cache
def _prepared(problem: MatchingProblem, device: str, share: int) -> Callable[[], object]:
    """Return a function that computes the gradient once, with memory for one of `share` processes."""
    where = torch.device(device)
    if where.type == "cpu":
        torch.set_num_threads(1)  # as a worker of a sweep
    use_precision("fp32", device)
    matcher = problem.matcher("exact", precision="fp32", compiled=False, device=where, share=1 / share)
    arguments = problem.arguments(where, torch.float32)
    return lambda: matcher(**arguments)


def _warm_up(problem: MatchingProblem, device: str, share: int) -> Iterator[float]:
    began = time.monotonic()
    _prepared(problem, device, share)()  # reads the loss, so the device is done
    yield time.monotonic() - began


def _rate(problem: MatchingProblem, device: str, share: int, seconds: float) -> Iterator[float]:
    """Yield the gradients a second, from as many as begin within `seconds`."""
    gradient = _prepared(problem, device, share)
    began, done = time.monotonic(), 0
    while seconds_left(began + seconds) > 0:
        gradient()
        done += 1
    yield done / (time.monotonic() - began)
