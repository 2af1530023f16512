"""A process that outlives the driver. docs/ray.md, "A lost raylet or GCS".

When the raylet or the GCS is gone, Ray ends the driver's process without giving Python a turn, and prints pages of its
own log. So a command continues in a child process. The first process waits, passes signals on, and says in one line
what happened if the child did not end by itself.
"""

import atexit
import os
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, NoReturn

__all__ = ["continue_in_child"]

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SAME_SIGNAL_S = 0.3
"""A terminal and a process manager signal both processes: the child is sent only what it has not received itself."""
_ENDED = b"\0"
"""What the child writes at its orderly end; the other bytes in the pipe are signal numbers."""


def continue_in_child(lost: Callable[[str], Exception]) -> None:
    """Return in a child process; in this process wait for the child, and end as it ends.

    The child's Python writes to the same terminal or files as before. What other code writes to the file descriptor of
    stderr is kept, and printed when the child has ended, unless Ray ended it. If this process is killed, the child is
    killed too. To be called by a process with one thread.

    Args:
        lost: Called in this process if the child ended without Python's end, with what its last words or its exit
            status say; returns the error to raise.

    Raises:
        Exception: The error that `lost` returns.
        SystemExit: The child has ended by itself; with its exit code.
    """
    if not hasattr(os, "fork"):  # Windows
        return
    sys.stdout.flush()
    sys.stderr.flush()
    words = tempfile.TemporaryFile()  # noqa: SIM115 # both processes use it to their end
    from_child, to_parent = os.pipe()
    parent_lives, parent_alive = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(from_child)
        os.close(parent_alive)
        _begin_child(words, to_parent, parent_lives)
        return
    os.close(to_parent)
    os.close(parent_lives)
    ended, status = _Guard(child, from_child).wait()
    words.seek(0)
    last_words = words.read().decode(errors="replace")
    if ended or status == 0:
        sys.stderr.write(last_words)
        raise SystemExit(status)
    if -status in _PASSED_ON:
        _end_by(-status)
    raise lost(_reason(last_words, status))


def _begin_child(words: IO[bytes], to_parent: int, parent_lives: int) -> None:
    """Set up the child: where stderr goes, its messages to the parent, and its end when the parent is killed."""
    terminal = os.dup(2)
    os.dup2(words.fileno(), 2)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    os.set_blocking(to_parent, False)
    signal.set_wakeup_fd(to_parent)
    atexit.register(os.write, to_parent, _ENDED)  # the first to be registered is the last to run

    def follow() -> None:
        os.read(parent_lives, 1)  # nothing is ever written: it returns when the parent has ended
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


class _Guard:
    """Waits for the child, and passes on the signals that only this process receives."""

    def __init__(self, child: int, from_child: int) -> None:
        self._child = child
        self._from_child = from_child
        self._received, own = os.pipe()
        for end in (from_child, self._received, own):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(own)
        for number in (*_PASSED_ON, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the number arrives through the pipe
        self._childs_last: dict[int, float] = {}
        """When the child last received a signal itself, by signal."""
        self._due: dict[int, float] = {}
        """When to pass a signal on, by signal."""

    def wait(self) -> tuple[bool, int]:
        """Return whether the child ended by Python's end, and its exit code, negative for a signal."""
        ended, status = False, None
        while status is None:
            timeout = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
            select.select([self._from_child, self._received], [], [], timeout)
            finished, status_word = os.waitpid(self._child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(status_word) if finished else None
            ended |= self._read_child()
            self._read_own()
            self._pass_on()
        return ended, status

    def _read_child(self) -> bool:
        """Read which signals the child has received, and return whether it has ended in order."""
        words = _read(self._from_child)
        for number in words:
            self._childs_last[number] = time.monotonic()
            self._due.pop(number, None)
        return _ENDED in words

    def _read_own(self) -> None:
        now = time.monotonic()
        for number in _read(self._received):
            if number in _PASSED_ON and now - self._childs_last.get(number, -1e9) > _SAME_SIGNAL_S:
                self._due[number] = now + _SAME_SIGNAL_S

    def _pass_on(self) -> None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            os.kill(self._child, number)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 1024)
    except BlockingIOError:
        return b""


def _end_by(number: int) -> NoReturn:
    """End this process by a signal, so that its own parent sees it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)


def _reason(last_words: str, status: int) -> str:
    """Return what ended the child, from what Ray wrote last, or from the exit status."""
    if status == -signal.SIGKILL:
        return "the driver was killed (signal 9); if nobody did it by hand, the machine's memory was full"
    lost = "GCS" if "gcs" in last_words.lower() else "raylet"
    return f"Ray ended the driver (exit status {status}), as it does when its {lost} is gone"
