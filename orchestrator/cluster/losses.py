"""Lost processes: which errors mean one, the reason in plain words, and how long a stage goes on in spite of them.

A process is lost if Ray or the system ends it, if its node goes, or if its node has no memory left. That is nobody's
setting: the work is done again, from its checkpoint if it has one. docs/ray.md, "Lost processes".
"""

import os
import re
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from rich.console import Console
from rich.text import Text

from orchestrator.errors import ClusterError, GpuMemoryError
from trainables.memory_errors import first_line, is_gpu_memory_error, is_host_memory_error

__all__ = ["Patience", "check_gpu_memory", "is_lost", "reason_of"]

LONGEST_PAUSE_S = 60.0
"""The pauses are 1, 2, 4 … seconds, and at most this long."""
LEAST_PAUSES = 3
"""Pauses without progress before a stage is given up, however little its patience."""
_COMMAND_LENGTH = 60
"""Characters that are shown of a command which takes memory."""

_FULL_MEMORY = re.compile(r"Memory on the node \(IP: ([^,)\s]+).*?was ([\d.]+) ?GB\b.*?/ ([\d.]+) ?GB", re.DOTALL)
"""In the message of Ray's memory monitor: the node, and its used and total memory."""
_MEMORY_USER = re.compile(r"^(\d+)\s+([\d.]+)\s+(\S.*)$", re.MULTILINE)
"""A row of that message: PID, GB, command; the largest first."""
_OF_RAY = re.compile(r"ray::|\S*/ray/(core|_private|dashboard)/|.*/ray/_private/")


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that a process was lost, not that its own code raised an error."""
    cause = _cause(error)
    if isinstance(cause, RayActorError):
        return not cause.actor_init_failed
    if isinstance(cause, OutOfMemoryError | WorkerCrashedError | NodeDiedError | ObjectLostError):
        return True
    return is_host_memory_error(cause)


def reason_of(error: BaseException) -> str:
    """Return in one line why a process was lost; Ray's own message has advice before and after the reason."""
    cause = _cause(error)
    text = str(cause)
    if full := _full_memory(text):
        return full
    if is_host_memory_error(cause):
        return f"its node has no memory left ({_first_line(text)})"
    if isinstance(cause, ObjectLostError):
        return "what it needs was lost with another node"
    if isinstance(cause, ActorUnavailableError):
        return "its node does not answer"
    if isinstance(cause, NodeDiedError) or re.search(r"node (has |was )?(died|dead|terminated)", text):
        return "its node was lost"
    if isinstance(cause, WorkerCrashedError) or "worker process has died" in text:
        return "it was killed, or it crashed"
    return _first_line(text)


def check_gpu_memory(name: str, error: BaseException, remedy: str) -> None:
    """Explain an error of a worker whose GPU had too little memory; other errors are the caller's.

    Args:
        name: What the worker did.
        error: Its error, as `ray.get` or `result_of` raised it.
        remedy: How to continue: "resume with: COMMAND".

    Raises:
        GpuMemoryError: The GPU had too little memory.
    """
    if is_gpu_memory_error(cause := _cause(error)):
        raise GpuMemoryError(
            f"the GPU's memory does not suffice for {name} ({first_line(cause)}); let fewer workers share a GPU "
            f"(--gpus-per-trial 1), or use GPUs with more memory, then {remedy}"
        ) from error


class Patience:
    """How long a stage waits for machines that lose its processes.

    What was lost once is started again at once, and what was lost again without progress after a pause. The pauses
    grow, and at each of them the number of processes that run at once is halved. That number doubles again after as
    long a time without a loss as the patience lasts.
    """

    def __init__(
        self,
        seconds: float,
        console: Console,
        remedy: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Begin with all patience.

        Args:
            seconds: Time without progress after which the stage is given up, s.
            console: Shows a line for every loss.
            remedy: How to continue after the stage was given up: "resume with: COMMAND".
            clock: Returns the time, s.
            sleep: Waits for so many seconds.
        """
        self._seconds, self._console, self.remedy, self._clock, self._sleep = seconds, console, remedy, clock, sleep
        self._losses = Counter[str]()
        """Losses since the last progress of the one that was lost, by its name."""
        self._since: float | None = None
        """Time of the first loss after the last progress."""
        self._pauses = 0
        """Pauses since the last progress."""
        self._pause_end = self._last_loss = clock()
        self._most = 1
        """How many could run at once when it was asked last."""
        self._limit: int | None = None
        """How many may run at once; None: as many as can."""
        self.over: str | None = None
        """Why the stage is given up, and what is to be done; None as long as it goes on."""

    @property
    def pause_left(self) -> float:
        """Seconds for which nothing may be started; 0: no pause."""
        return max(0.0, self._pause_end - self._clock())

    def workers(self, most: int) -> int:
        """Return how many processes may run at once, of `most` that can."""
        self._most = most
        return most if self._limit is None else min(most, self._limit)

    def lost(self, name: str, error: BaseException) -> None:
        """Record that a process was lost, print why and when its work is done again.

        Args:
            name: What the process did, such as trial-003.
            error: The error, for which `is_lost` is true.
        """
        now, reason = self._clock(), reason_of(error)
        self._since = now if self._since is None else self._since
        self._losses[name] += 1
        self._last_loss = now
        if self._losses[name] > 1 and not self.pause_left:
            if self._pauses >= LEAST_PAUSES and now - self._since >= self._seconds:
                self.over = (
                    f"no progress for {_duration(now - self._since)}, longer than --patience "
                    f"{_duration(self._seconds)}: the process of {name} was lost again ({reason}); "
                    "remove the cause"
                )
            else:
                self._pause(now)
        pause = f"in {_duration(self.pause_left)}" if self.pause_left else "at once"
        limit = f", at most {self._limit} at a time" if self._limit is not None and self._limit < self._most else ""
        again = "" if self.over else f"; it is started again {pause}{limit}"
        self._console.print(Text(f"The process of {name} was lost: {reason}{again}"), soft_wrap=True)

    def progress(self, name: str) -> None:
        """Record that the work of a process has progressed: patience begins anew."""
        del self._losses[name]
        self._since, self._pauses = None, 0
        if self._limit is not None and self._clock() - self._last_loss >= self._seconds:
            self._limit = None if 2 * self._limit >= self._most else 2 * self._limit
            self._last_loss = self._clock()

    def wait(self) -> None:
        """Wait for the end of the pause."""
        self._sleep(self.pause_left)

    def check(self) -> None:
        """Go on if there is patience left.

        Raises:
            ClusterError: There was no progress for longer than the patience; says what to do.
        """
        if self.over:
            raise ClusterError(f"{self.over}, then {self.remedy}")

    def _pause(self, now: float) -> None:
        assert self._since is not None
        longest = max(1.0, self._since + self._seconds - now)  # the last attempt is at the end of the patience
        self._pause_end = now + min(2.0**self._pauses, LONGEST_PAUSE_S, longest)
        self._pauses += 1
        self._limit = max(1, self.workers(self._most) // 2)


def _cause(error: BaseException) -> BaseException:
    """Return the error that a task raised, or that ended an actor's creation; else the error itself.

    A task whose argument was lost raises the error of that loss.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        return _cause(error.cause)
    if isinstance(error, RayActorError) and error.args and isinstance(error.args[0], RayTaskError):
        return _cause(error.args[0])
    return error


def _full_memory(message: str) -> str | None:
    """Return what Ray's memory monitor says, with the largest process that is not Ray's or this one.

    None if the monitor says nothing in this message.
    """
    if not (full := _FULL_MEMORY.search(message)):
        return None
    users = _MEMORY_USER.findall(message)
    others = [user for user in users if not _OF_RAY.match(user[2]) and user[0] != str(os.getpid())]
    taken = ""
    if users:
        pid, gigabytes, command = (others or users)[0]
        program, _, arguments = command.partition(" ")
        shown = f"{PurePath(program).name} {arguments}".strip()[:_COMMAND_LENGTH]
        taken = f": PID {pid} ({shown}) has {gigabytes} GB"
    node, used, total = full.groups()
    return f"Ray ended it when the memory of node {node} was full, {used} of {total} GB{taken}"


def _first_line(message: str) -> str:
    """Return the first line of a message that says something, shortened."""
    lines = [line for line in message.splitlines() if line.strip() and not line.startswith("\t")]
    telling = [line for line in lines if not line.startswith(("The actor died unexpectedly", "The actor never ran"))]
    return textwrap.shorten((telling or lines or ["no reason is known"])[0], 160, placeholder=" …")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
