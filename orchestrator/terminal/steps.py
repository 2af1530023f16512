"""Steps of some work: how many are done, how fast, and the time that is left."""

import time
from bisect import bisect_left
from collections.abc import Callable
from datetime import timedelta

__all__ = ["Steps", "time_text"]


class Steps:
    """Counts steps, and estimates rate and time left from the second half of the time so far.

    The first half is left out because it may hold steps of an earlier process, which are counted at once.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now, with no step done.

        Args:
            total: All steps.
            clock: A monotonic clock, in seconds.
        """
        self.total, self.done = total, 0
        self._clock = clock
        self._times_s, self._shares, self._counts = [clock()], [0.0], [0]

    def advance(self, done: int, share: float | None = None) -> None:
        """Record how many steps are done now.

        Args:
            done: Steps done.
            share: Share of the work that they are, in [0, 1]; None: all steps are alike.
        """
        self.done = done
        self._shares.append(done / self.total if share is None else share)
        self._counts.append(done)
        self._times_s.append(self._clock())  # last: another thread may read

    @property
    def rate(self) -> float | None:
        """Steps a second; None: not known yet."""
        first = self._middle()
        seconds = self._times_s[-1] - self._times_s[first]
        steps = self._counts[len(self._times_s) - 1] - self._counts[first]
        return steps / seconds if steps > 0 and seconds > 0 else None

    @property
    def whole_s(self) -> float | None:
        """Time of all steps at the speed of now, s; None: not known yet."""
        first, last = self._middle(), len(self._times_s) - 1
        seconds, share = self._times_s[last] - self._times_s[first], self._shares[last] - self._shares[first]
        return seconds / share if share > 0 and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Time left, s; None: not known yet."""
        whole_s, last = self.whole_s, len(self._times_s) - 1
        if whole_s is None:
            return None
        left = whole_s * (1 - self._shares[last])
        return max(0.0, left - (self._clock() - self._times_s[last]))

    def _middle(self) -> int:
        """Return the index of the record with which the second half of the time begins."""
        middle = (self._times_s[0] + self._times_s[-1]) / 2
        return min(bisect_left(self._times_s, middle), max(0, len(self._times_s) - 2))


def time_text(seconds: float | None) -> str:
    """Return a time in h:mm:ss; a question mark for None."""
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))
