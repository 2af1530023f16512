"""What the trials of a search say of the next one."""

from typing import Any

import pytest

from orchestrator.advice import next_steps
from orchestrator.trials import TrialRecord
from search_spaces import load

SPACE = load("digits")


def trial(number: int = 0, status: str = "finished", rungs: tuple[float, ...] = (0.5, 0.4), **raw: Any) -> TrialRecord:
    settings = SPACE.resolve({**SPACE.first(), **raw})
    accuracies = {25 * (k + 1): value for k, value in enumerate(rungs)}
    return TrialRecord(number=number, status=status, settings=settings, rungs=accuracies, seconds=1.0, reason="")


def middle() -> dict[str, Any]:
    """A point far from every bound."""
    return {
        name: type(each.low)((each.low * each.high) ** 0.5 if each.log else (each.low + each.high) / 2)
        for name, each in SPACE.searched.items()
    }


def test_a_best_trial_inside_its_ranges_gives_no_advice() -> None:
    assert next_steps(SPACE, [trial(**middle())]) == []
    assert next_steps(SPACE, []) == []


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_every_range_at_whose_bound_the_best_trial_lies_is_named(side: str) -> None:
    for name, each in SPACE.searched.items():
        bound = each.low if side == "lower" else each.high
        if (name, bound) in (("T_minus", 0), ("T_width", 1), ("T_growth", 0), ("M", 1)):  # there is nothing beyond
            assert next_steps(SPACE, [trial(**middle() | {name: bound}), trial(1, rungs=(0.1, 0.1))]) == []
            continue
        (sentence,) = next_steps(SPACE, [trial(**middle() | {name: bound}), trial(1, rungs=(0.1, 0.1))])
        assert sentence.startswith(f"`{name}`: ") and f"{side} bound" in sentence and str(each) in sentence


def test_trials_that_fail_and_accuracy_that_still_rises_are_said() -> None:
    records = [trial(rungs=(0.3, 0.4), **middle()), trial(1, "failed", ())]
    failed, rising = next_steps(SPACE, records)
    assert failed.startswith("1 of 2 trials failed")
    assert "0.300 → 0.400" in rising and "iterations" in rising


def test_a_study_searches_nothing() -> None:
    assert next_steps(load("digits_range_study"), [trial()]) == []
