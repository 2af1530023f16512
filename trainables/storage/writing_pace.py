"""How often unfinished work is saved: a killed process loses little, and saving takes a small share of the time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["WRITING_SHARE", "WritingPace"]

WRITING_SHARE = 1 / 20
"""Time that intermediate writes may take, as a share of the time of the work."""


class WritingPace:
    """Decides when to save unfinished work: first at once, to measure the cost, then as `WRITING_SHARE` allows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with a measured cost of 0 s.

        Args:
            clock: A monotonic clock, in seconds.
        """
        self._clock = clock
        self._ended, self._cost = clock(), 0.0

    def due(self) -> bool:
        """Return whether the last write took at most `WRITING_SHARE` of the time since it ended."""
        return self._cost <= WRITING_SHARE * (self._clock() - self._ended)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure the time of a write; one that raises is not counted."""
        began = self._clock()
        yield
        self._ended = self._clock()
        self._cost = self._ended - began
