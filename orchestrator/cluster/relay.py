"""The output of a command that runs on a cluster, brought to the terminal where the command was given.

Ray's own way is not used: log monitors read the workers' log files and forward every line, some of them twice, with the
process in front of each. docs/ray.md, "Clusters".
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

import ray

__all__ = ["Mailbox", "forwarded", "print_new"]


class Mailbox:
    """Keeps written text until it is taken; a plain class, of which `client` makes a Ray actor."""

    def __init__(self) -> None:
        """Begin empty."""
        self._parts: list[tuple[bool, str]] = []

    def put(self, is_error: bool, text: str) -> None:
        """Add a text that was written to stderr, or to stdout."""
        self._parts.append((is_error, text))

    def take(self) -> list[tuple[bool, str]]:
        """Return all texts in the order in which they were put, and forget them."""
        parts, self._parts = self._parts, []
        return parts


class _Stream(io.TextIOBase):
    """Sends what is written to a mailbox, in whole lines."""

    encoding = "utf-8"

    def __init__(self, mailbox: Any, *, is_error: bool) -> None:
        self._mailbox, self._is_error = mailbox, is_error
        self._line = ""
        self._last: Any = None

    def write(self, text: str) -> int:
        """Send the lines that are whole with this text."""
        lines, end, self._line = (self._line + text).rpartition("\n")
        if end:
            self._last = self._mailbox.put.remote(self._is_error, lines + end)
        return len(text)

    def arrive(self) -> None:
        """Send an incomplete last line, and wait until the mailbox has everything."""
        if self._line:
            self.write("\n")
        if self._last is not None:
            ray.get(self._last)


@contextlib.contextmanager
def forwarded(mailbox: Any) -> Iterator[None]:
    """Send what this process writes to stdout and stderr to a mailbox, while the context is open.

    Args:
        mailbox: Handle of a `Mailbox` actor.
    """
    streams = [_Stream(mailbox, is_error=is_error) for is_error in (False, True)]
    try:
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            yield
    finally:
        for stream in streams:
            stream.arrive()


def print_new(mailbox: Any) -> None:
    """Write what a mailbox has to this process's stdout and stderr."""
    for is_error, text in ray.get(mailbox.take.remote()):
        stream = sys.stderr if is_error else sys.stdout
        stream.write(text)
        stream.flush()
