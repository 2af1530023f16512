"""A worker's process: results as they come, and every way in which a job can end."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.device.results import JobStopped, TooLittleTime
from benchmarks.device.worker import Worker
from trainables.errors import ConfigError

LONG = 120.0
"""Seconds that no job here needs."""


def counts(number: int) -> Iterator[int]:
    yield from range(number)


def late() -> Iterator[str]:
    yield "before"
    time.sleep(LONG)
    yield "after"


def lost() -> Iterator[str]:
    yield "before"
    os._exit(3)


def broken() -> Iterator[str]:
    yield "before"
    raise RuntimeError("no such engine\nand a second line")


def refused() -> Iterator[str]:
    yield from ()
    raise ConfigError("precision is one of fp32")


def too_long() -> Iterator[str]:
    yield from ()
    raise TooLittleTime("a sample would take 9 s")


@contextmanager
def marked() -> Iterator[None]:
    os.environ["MARKED"] = "yes"
    yield


def mark() -> Iterator[str | None]:
    yield os.environ.get("MARKED")


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.end()
    assert not worker.alive


def deadline(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def end_of(worker: Worker, before: float) -> tuple[list[str], JobStopped]:
    """The results of the job that was sent, and how it ended."""
    results = []
    with pytest.raises(JobStopped) as stopped:
        for result in worker.receive(before):
            results.append(result)
    return results, stopped.value


def test_a_process_runs_jobs_one_after_the_other_and_outlives_those_that_fail(worker: Worker) -> None:
    worker.send(counts, 3)
    assert list(worker.receive(deadline())) == [0, 1, 2]
    for job, how, reason in (
        (broken, "failed", "RuntimeError: no such engine"),
        (refused, "refused", "precision is one of fp32"),
        (too_long, "skipped", "a sample would take 9 s"),
    ):
        worker.send(job)
        results, stopped = end_of(worker, deadline())
        assert (stopped.how, stopped.reason) == (how, reason)
        assert results == (["before"] if job is broken else [])
    assert worker.alive
    worker.send(counts, 1)
    assert list(worker.receive(deadline())) == [0]


def test_a_job_that_is_late_is_ended_with_its_process_and_keeps_its_results(worker: Worker) -> None:
    worker.send(late)
    results = worker.receive(deadline())
    assert next(results) == "before"
    _, stopped = end_of(worker, deadline(0))
    assert stopped.how == "skipped" and not worker.alive


def test_a_process_that_is_lost_says_its_code(worker: Worker) -> None:
    worker.send(lost)
    results, stopped = end_of(worker, deadline())
    assert results == ["before"] and stopped.how == "failed" and "ended with code 3" in stopped.reason


def test_jobs_run_in_the_context_that_is_given() -> None:
    worker = Worker(marked)
    try:
        worker.send(mark)
        assert list(worker.receive(deadline())) == ["yes"]
    finally:
        worker.end()
    assert "MARKED" not in os.environ
