"""Signals during a run: who takes them, and that the handlers are afterwards what they were."""

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from orchestrator.cluster.signals import restored_handlers, stop_in_order

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_is_replaced_inside_is_restored_even_by_an_error() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ValueError, match="inside"), restored_handlers():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_sigterm_is_taken_like_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), restored_handlers():
        stop_in_order()
        signal.raise_signal(signal.SIGTERM)


def test_sigterm_becomes_tunes_signal_while_tune_takes_it() -> None:
    taken: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        taken.append(number)

    with restored_handlers():
        stop_in_order()
        signal.signal(signal.SIGUSR1, take)
        os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGUSR1]


def test_in_another_thread_handlers_stay_as_they_are() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    inside: list[object] = []

    def call() -> None:
        with restored_handlers():
            stop_in_order()
            inside.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert inside == before
