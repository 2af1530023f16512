"""The time that is left of a search: an estimate from the trials so far, by ASHA's rule and the workers at once.

ASHA stops weak trials early, and those end first: their average would be far too short. So the share of trials that
pass a rung is estimated rung by rung, from all trials that came to it, those that still run among them. The rest of the
search is then played through: the running trials and those that have not begun, on as many workers, each with a length
drawn by these shares. A trial that runs keeps its own pace, others have the mean. The mean length is the time left.
"""

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from search_spaces import Space

__all__ = ["Course", "Later", "StoppingRule", "seconds_left"]

PLAYED = 400
"""About how many trials are played through for an estimate; few trials are played through more often."""
LEAST_PLAYS = 4
PRIOR = 6.0
"""Trials that ASHA's own share counts for at every rung, besides those that came to it."""


class Course(NamedTuple):
    """How far a trial is."""

    iterations: int
    """Distillation iterations done."""
    ended: bool
    stoppable: bool
    """False for the reference, which ASHA never stops."""
    pace_s: float | None = None
    """Seconds an iteration; None: not known."""


@dataclass(frozen=True, kw_only=True)
class Later:
    """The work of a sweep after the distillations of a stage."""

    distillations: int = 0
    """Whole distillations: those of a search's finals."""
    iterations: float = 0.0
    """All other work, as the distillation iterations of one worker that take as long: an estimate from operations."""
    seconds: float = 0.0
    """Time that the later stages take beside their work."""

    def busiest(self, iterations: int, workers: int) -> float:
        """Return the iterations that the busiest of the workers has, for distillations of so many iterations."""
        return _busiest([iterations] * self.distillations, workers) + self.iterations / workers


@dataclass(frozen=True)
class StoppingRule:
    """Where trials may be stopped, and the share of trials that are expected to pass there."""

    iterations: int
    """Distillation iterations of a trial that is not stopped."""
    passing: Mapping[int, float]
    """Expected share of trials that pass, by iteration, in increasing order; at 0 those that can begin at all."""

    @classmethod
    def of(cls, space: Space, fixed: Mapping[str, Any]) -> "StoppingRule":
        """Return the rule of a space's trials: ASHA's rungs; a grid has none.

        ASHA decides at the first report at or after a rung, and trials report every `validation_every_iterations`.
        """
        every, whole, factor = fixed["validation_every_iterations"], fixed["iterations"], fixed["reduction_factor"]
        passing, rung = {0: 1.0}, fixed["first_rung_iterations"]
        while not space.is_grid and rung < whole:
            decided = -(-rung // every) * every
            if decided < whole:
                passing[decided] = passing.get(decided, 1.0) / factor
            rung *= factor
        return cls(whole, passing)


def seconds_left(rule: StoppingRule, courses: Sequence[Course], begins: int, workers: int, mean_pace_s: float) -> float:
    """Return the seconds until the last of the workers has ended its trials, on average.

    The same arguments give the same answer.

    Args:
        rule: Where trials may be stopped.
        courses: The trials that have begun.
        begins: Trials that have not begun.
        workers: Trials at once.
        mean_pace_s: Seconds an iteration of a trial whose pace is not known.
    """
    passing = _shares(rule, courses, begins)
    running = [course for course in courses if not course.ended]
    draws = random.Random(0)
    plays = max(LEAST_PLAYS, PLAYED // max(1, len(running) + begins))
    total = 0.0
    for _ in range(plays):
        lengths = [
            (_length(rule, passing, course, draws) - course.iterations) * (course.pace_s or mean_pace_s)
            for course in running
        ]
        lengths += [
            _length(rule, passing, Course(0, ended=False, stoppable=True), draws) * mean_pace_s for _ in range(begins)
        ]
        total += _busiest(lengths, workers)
    return total / plays


def _shares(rule: StoppingRule, courses: Sequence[Course], begins: int) -> dict[int, float]:
    """Return the share of trials that will pass each point, from those that did and the rule's own expectation."""
    points = list(rule.passing)
    stopped, passed = dict.fromkeys(points, 0), dict.fromkeys(points, 0)
    for course in courses:
        if not course.stoppable:
            continue
        for point in points:
            # A running trial at a point has passed it, or ASHA would have stopped it.
            passed[point] += course.iterations > point or (not course.ended and course.iterations == point > 0)
        if course.ended and course.iterations < rule.iterations:
            at = max(point for point in points if point <= course.iterations)
            stopped[at] += 1
            passed[at] -= course.iterations > at  # it ended between two points: a failure
    shares = {}
    for point, asked in rule.passing.items():
        came = passed[point] + stopped[point]
        # In a random order the trial that comes as number n is among the best share s with probability s + (1 - s) / n.
        yet = begins + sum(not course.ended and course.iterations < point for course in courses)
        expected = asked + (1 - asked) * fmean(1 / number for number in range(came + 1, came + 2 + yet))
        shares[point] = (PRIOR * expected + passed[point]) / (PRIOR + came)
    return shares


def _length(rule: StoppingRule, passing: Mapping[int, float], course: Course, draws: random.Random) -> int:
    """Draw the iterations at which a trial will have ended."""
    if course.stoppable:
        for point, share in passing.items():
            if (point > course.iterations or course.iterations == point == 0) and draws.random() >= share:
                return max(point, course.iterations)
    return rule.iterations


def _busiest(lengths: Sequence[float], workers: int) -> float:
    """Return when the last of these ends if each is begun by the first worker that is free."""
    free = [0.0] * max(1, workers)
    for length in lengths:
        heapq.heapreplace(free, free[0] + length)
    return max(free)
