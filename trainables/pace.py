"""How often unfinished work is written down, so that little is lost with a process and little time is spent on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["WRITING_SHARE", "WritingPace"]

WRITING_SHARE = 1 / 20
"""Of the time that the work takes, what writing it before it is finished may add."""


class WritingPace:
    """Says when what is under way is worth writing: at once, to learn what it costs, then as seldom as that asks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start.

        Args:
            clock: Seconds since any moment, never going back.
        """
        self._clock = clock
        self._ended, self._cost = clock(), 0.0

    def due(self) -> bool:
        """Tell whether the last writing's time is at most the share allowed of the time since."""
        return self._cost <= WRITING_SHARE * (self._clock() - self._ended)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure a writing."""
        began = self._clock()
        yield
        self._ended = self._clock()
        self._cost = self._ended - began
