"""The time left: a simulated search, ASHA's real decisions on it, and the estimates along its way."""

import heapq
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from orchestrator.search.remaining import Course, Later, StoppingRule, seconds_left
from orchestrator.search.scheduler import ReferenceSafeASHA
from orchestrator.search.status import SearchStatus
from search_spaces import load
from trainables.seeding import seed_of
from trainables.workers.rung import RungResult

FIXED = {
    "iterations": 900, "validation_every_iterations": 50, "first_rung_iterations": 100, "reduction_factor": 3,
}  # fmt: skip
NOTHING = Later()


def reported(number: int, iteration: int, accuracy: float) -> Any:
    return RungResult(iteration=iteration, validation_accuracy=accuracy).to_report()


class Simulation:
    """A search on workers whose time is simulated: trials differ in speed and accuracy, ASHA stops them."""

    def __init__(self, name: str, *, trials: int, workers: int, speeds: float, grid: bool = False) -> None:
        """`speeds` is the standard deviation of the logarithm of a trial's seconds an iteration."""
        random = np.random.default_rng(seed_of(0, "simulated search", name))
        space = load("digits_ablation" if grid else "digits")
        self.status = SearchStatus(
            trials=trials, rung_iterations=50, rule=StoppingRule.of(space, FIXED), workers=workers, later=NOTHING
        )
        self._scheduler = None if grid else ReferenceSafeASHA(FIXED, [])
        self._seconds = np.exp(speeds * random.standard_normal(trials)) / 10
        self._quality, self._noise = random.random(trials), random
        self._trials, self._workers = trials, workers
        self.estimates: list[tuple[float, float | None]] = []
        """Time, s, and the time left as it was estimated then, s."""
        self.end_s = self._run()

    def _run(self) -> float:
        """Run to the end; an estimate is made after every report."""
        begun, now_s = 0, 0.0
        events: list[tuple[float, int, int]] = []  # time of a report, trial, iteration
        tune: dict[int, Any] = {}
        self.status.begin(0.0)
        while begun < self._trials or events:
            while begun < self._trials and len(events) < self._workers:
                tune[begun] = SimpleNamespace(trial_id=str(begun), config={"trial_number": begun})
                if self._scheduler is not None:
                    self._scheduler.on_trial_add(None, tune[begun])
                self.status.start(begun, str(begun), now_s)
                heapq.heappush(events, (now_s + 50 * self._seconds[begun], begun, 50))
                begun += 1
            now_s, number, iteration = heapq.heappop(events)
            accuracy = self._quality[number] * (1 - 2.0 ** (-iteration / 200)) + 0.02 * self._noise.random()
            self.status.add_report(number, str(number), RungResult(iteration=iteration, validation_accuracy=accuracy))
            result = reported(number, iteration, accuracy)
            decision = TrialScheduler.CONTINUE
            if self._scheduler is not None:
                decision = self._scheduler.on_trial_result(None, tune[number], result)
            if iteration >= FIXED["iterations"] or decision == TrialScheduler.STOP:
                self.status.end(number, now_s)
            else:
                heapq.heappush(events, (now_s + 50 * self._seconds[number], number, iteration + 50))
            left = self.status.left(now_s)
            self.estimates.append((now_s, None if left is None else left.stage_s))
        return now_s


def ratios(trials: int, workers: int, repeats: int) -> tuple[list[float], list[float]]:
    """Return estimate over truth at all moments from a third on: of the whole time, and of the time left.

    Of the time left the last tenth is not counted: there the luck of one trial decides.
    """
    of_whole, of_rest = [], []
    for repeat in range(repeats):
        simulation = Simulation(f"{trials}-{workers}-{repeat}", trials=trials, workers=workers, speeds=0.4)
        whole_s = simulation.end_s
        for now_s, left_s in simulation.estimates:
            if now_s >= whole_s / 3:
                assert left_s is not None
                of_whole.append((now_s + left_s) / whole_s)
                if whole_s - now_s > whole_s / 10:
                    of_rest.append(left_s / (whole_s - now_s))
    return of_whole, of_rest


def share_within_two(values: list[float]) -> float:
    return sum(0.5 <= value <= 2 for value in values) / len(values)


@pytest.mark.parametrize(("trials", "workers"), [(30, 4), (60, 4), (100, 8), (100, 32)])
def test_from_a_third_on_the_estimate_is_right_within_a_factor_of_two(trials: int, workers: int) -> None:
    of_whole, of_rest = ratios(trials, workers, 4)
    assert share_within_two(of_whole) == 1.0
    assert share_within_two(of_rest) >= 0.9


@pytest.mark.parametrize(("trials", "workers"), [(8, 1), (8, 2), (12, 2)])
def test_of_a_few_trials_the_end_is_right_within_a_factor_of_two_mostly(trials: int, workers: int) -> None:
    """One trial that ASHA lets pass is a quarter of such a search, which nobody can know before."""
    of_whole, _ = ratios(trials, workers, 8)
    assert share_within_two(of_whole) >= 0.9


@pytest.mark.parametrize(("trials", "workers"), [(6, 2), (9, 4)])
def test_a_study_stops_no_trial_and_is_known_if_its_trials_are_alike(trials: int, workers: int) -> None:
    simulation = Simulation("study", trials=trials, workers=workers, speeds=0.0, grid=True)
    for now_s, left_s in simulation.estimates:
        if now_s >= simulation.end_s / 3:
            assert left_s == pytest.approx(simulation.end_s - now_s, abs=simulation.end_s / 5)


def test_trials_that_run_count_and_those_that_asha_stopped_early_do_not_mislead() -> None:
    """Three of eight have ended early, five run: their average length would say that nothing is left."""
    rule = StoppingRule(900, {0: 1.0, 100: 1 / 3, 300: 1 / 3})
    courses = [Course(100, ended=True, stoppable=True)] * 3 + [Course(120, ended=False, stoppable=True)] * 5
    left = seconds_left(rule, courses, 0, workers=5, mean_pace_s=1.0)
    assert 180 < left < 780


def test_the_reference_is_never_stopped_and_a_finished_search_has_nothing_left() -> None:
    rule = StoppingRule(900, {0: 1.0, 100: 1 / 3})
    reference = Course(100, ended=False, stoppable=False)
    assert seconds_left(rule, [reference], 0, workers=4, mean_pace_s=1.0) == 800
    assert seconds_left(rule, [Course(900, ended=True, stoppable=False)] * 3, 0, workers=4, mean_pace_s=1.0) == 0


def test_trials_that_all_fail_at_once_leave_little() -> None:
    rule = StoppingRule(900, {0: 1.0, 100: 1 / 3})
    failing = [Course(0, ended=True, stoppable=True)] * 30
    healthy = seconds_left(rule, [], 30, workers=1, mean_pace_s=1.0)
    assert seconds_left(rule, failing, 30, workers=1, mean_pace_s=1.0) < healthy / 5


def test_what_follows_is_spread_over_the_workers() -> None:
    assert Later(distillations=6, iterations=400.0).busiest(100, workers=4) == 200 + 100


def test_asha_decides_at_the_first_report_at_or_after_a_rung() -> None:
    fixed = {**FIXED, "validation_every_iterations": 70}
    assert dict(StoppingRule.of(load("digits"), fixed).passing) == {0: 1.0, 140: 1 / 3, 350: 1 / 3}
    assert dict(StoppingRule.of(load("digits_ablation"), fixed).passing) == {0: 1.0}
