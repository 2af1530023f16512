"""A process that runs jobs one after the other, sends their results as they come, and can be ended at any time.

A job that crashes, hangs or breaks the GPU's context costs its process and nothing else.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from benchmarks.device.results import JobStopped, TooLittleTime
from benchmarks.measure import environment
from trainables.errors import InputError
from trainables.workers.process import ALLOCATOR

__all__ = ["Around", "Worker"]

Around = Callable[[], AbstractContextManager[Any]]
"""Returns the context in which a worker's process runs its jobs; importable by name."""


END_SECONDS = 5.0
"""How long a process that runs no job is waited for."""


class _End(NamedTuple):
    """The message that ends a job's results."""

    how: str
    """done, or as in `JobStopped`."""
    reason: str = ""


class Worker:
    """One process with the allocator's settings of a sweep's workers; it starts when it is constructed."""

    def __init__(self, around: Around = nullcontext) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, around))
        with environment(ALLOCATOR):
            self._process.start()
        theirs.close()
        self._busy = False

    def send(self, job: Callable[..., Iterable[Any]], *arguments: Any) -> None:
        """Start a job, importable by name; the results of the one before must have been received."""
        self._connection.send((job, arguments))
        self._busy = True

    def receive(self, deadline: float) -> Iterator[Any]:
        """Yield the results of the job that was sent, as they come.

        Args:
            deadline: When the job must have ended, on the clock of `time.monotonic`.

        Raises:
            JobStopped: It did not end well. The process is over if the job was late or lost with it.
        """
        while True:
            if not self._connection.poll(max(0.0, deadline - time.monotonic())):
                self.end()
                raise JobStopped("skipped", "it was stopped when its time was over")
            try:
                message = self._connection.recv()
            except EOFError:
                self.end()
                reason = f"its process ended with code {self._process.exitcode}"
                raise JobStopped("failed", reason) from None
            if not isinstance(message, _End):
                yield message
                continue
            self._busy = False
            if message.how == "done":
                return
            raise JobStopped(message.how, message.reason)

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self._process.is_alive()

    def end(self) -> None:
        """End the process: at once if it runs a job."""
        self._connection.close()
        if not self._busy:
            self._process.join(END_SECONDS)
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, around: Around) -> None:
    """Run the jobs that are sent until the other side is closed."""
    with around():
        while True:
            try:
                job, arguments = connection.recv()
            except EOFError:
                return
            connection.send(_run(job, arguments, connection))
            torch.cuda.empty_cache()  # the next job has the memory; no effect on a CPU


def _run(job: Callable[..., Iterable[Any]], arguments: tuple[Any, ...], connection: Connection) -> _End:
    """Run one job, send its results, and return how it ended."""
    try:
        for result in job(*arguments):
            connection.send(result)
    except TooLittleTime as error:
        return _End("skipped", str(error))
    except InputError as error:
        return _End("refused", str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded, and the next job goes on
        traceback.print_exc()
        return _End("failed", f"{type(error).__name__}: {error}".strip().splitlines()[0])
    return _End("done")
