"""Samples of a time, taken only if they fit into what is left."""

import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.device.results import TooLittleTime
from benchmarks.measure import peak_bytes, reset_peak, wait_for

__all__ = ["Samples", "require", "sample", "seconds_left"]

SAFETY = 1.3
"""Ratio of the time that is reserved for a sample to its estimate."""


class Samples(NamedTuple):
    """The samples of one time."""

    seconds: tuple[float, ...]
    first_seconds: float
    """The first call: it allocates, chooses algorithms and compiles."""
    peak_bytes: int


def sample(
    whole: Callable[[], object],
    part: Callable[[], object],
    parts: float,
    *,
    device: str,
    deadline: float,
    most: int,
) -> Samples:
    """Measure the seconds of `whole`, up to `most` times and as often as there is time for, at least once.

    Args:
        whole: What is measured.
        part: A small part of it, called once to warm up and once for the estimate.
        parts: How many times as long as the part the whole takes.
        device: Where they run.
        deadline: When all must be done, on the clock of `time.monotonic`.
        most: The largest number of samples.

    Raises:
        TooLittleTime: Not one sample fits.
    """
    first = _seconds(part, device)
    estimate = SAFETY * parts * _seconds(part, device)
    require(estimate, deadline, "a sample")
    reset_peak(device)
    seconds = [_seconds(whole, device)]
    while len(seconds) < most and SAFETY * seconds[-1] < seconds_left(deadline):
        seconds.append(_seconds(whole, device))
    return Samples(tuple(seconds), first, peak_bytes(device))


def require(seconds: float, deadline: float, what: str) -> None:
    """Refuse what does not fit into the time that is left.

    Raises:
        TooLittleTime: It does not.
    """
    if (left := seconds_left(deadline)) < seconds:
        raise TooLittleTime(f"{what} would take about {seconds:.1f} s, and {max(left, 0):.1f} s are left for it")


def seconds_left(deadline: float) -> float:
    """Return the seconds until a deadline on the clock of `time.monotonic`; negative after it."""
    return deadline - time.monotonic()


def _seconds(run: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - began
