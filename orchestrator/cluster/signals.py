"""Signals during a run: SIGTERM stops the run in order, and the handlers of Ray and Tune are removed after use."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ends_by_signal", "restored_handlers", "stop_in_order"]

_REPLACED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals whose handlers Ray or Tune replace."""


@contextmanager
def restored_handlers() -> Iterator[None]:
    """Restore at the end the signal handlers that Ray and Tune replace.

    Outside the main thread nothing is done: there Python cannot set handlers, and Ray and Tune replace none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _REPLACED}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set by Python, which therefore cannot restore it
                signal.signal(number, handler)


def ends_by_signal(run_tune: Callable[[], Any]) -> bool:
    """Run Tune, restore the signal handlers that it replaces, and return whether a signal has ended it.

    Tune returns after a signal as if all were well, and its handler would ignore a later Ctrl-C. The first signal puts
    the handler of SIGINT back that was there before Tune.
    """
    with restored_handlers():
        before = signal.getsignal(signal.SIGINT)
        run_tune()
        in_main_thread = threading.current_thread() is threading.main_thread()
        return in_main_thread and signal.getsignal(signal.SIGINT) is before


def stop_in_order() -> None:
    """Handle SIGTERM, with which Kubernetes stops a process, like Ctrl-C: at SIGTERM itself Tune aborts without saving.

    Outside the main thread no handler is set: the signal ends the process, and the same command resumes the sweep.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: Any) -> None:
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGUSR1)  # Tune is running, and stops in order at this signal
