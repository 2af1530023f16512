"""Steps: rate and time left, from even steps, from steps of unequal work, and beside steps of an earlier process."""

import pytest

from orchestrator.terminal.steps import Steps, time_text


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_is_known_before_the_first_step() -> None:
    steps = Steps(10, Clock())
    assert steps.rate is None and steps.seconds_left is None and time_text(steps.seconds_left) == "?"


def test_even_steps_are_known_exactly_and_time_goes_on_between_them() -> None:
    clock = Clock()
    steps = Steps(10, clock)
    for done in range(1, 5):
        clock.now_s = 3.0 * done
        steps.advance(done)
    assert steps.rate == pytest.approx(1 / 3) and steps.seconds_left == pytest.approx(18.0)
    clock.now_s += 2.0
    assert steps.seconds_left == pytest.approx(16.0) and time_text(steps.seconds_left) == "0:00:16"
    clock.now_s += 100.0
    assert steps.seconds_left == 0.0


def test_steps_of_unequal_work_are_weighed() -> None:
    """Five long steps first, then thirty short ones, as the finals have them; counted, they would say 12 times more."""
    clock, costs = Clock(), [6.0] * 5 + [1.0] * 30
    steps, whole = Steps(len(costs), clock), sum(costs)
    for done, cost in enumerate(costs, start=1):
        clock.now_s += cost
        steps.advance(done, sum(costs[:done]) / whole)
        assert steps.seconds_left == pytest.approx(whole - clock.now_s)
        assert steps.whole_s == pytest.approx(whole)


def test_what_an_earlier_process_did_is_no_speed() -> None:
    clock = Clock()
    steps = Steps(100, clock)
    clock.now_s = 0.5
    steps.advance(40)
    for done in range(41, 61):
        clock.now_s += 1.0
        steps.advance(done)
    assert steps.rate == pytest.approx(1.0) and steps.seconds_left == pytest.approx(40.0)


def test_steps_that_are_lost_again_give_no_estimate() -> None:
    clock = Clock()
    steps = Steps(100, clock)
    for done in (10, 5):
        clock.now_s += 1.0
        steps.advance(done)
    assert steps.seconds_left is None
