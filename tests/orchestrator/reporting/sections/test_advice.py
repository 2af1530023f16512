"""The section on what to try next."""

from typing import Any

import pytest

from orchestrator.reporting.sections.advice import advice_section
from orchestrator.results.trials import TrialRecord
from search_spaces import Choice, Space, load
from tests.support.builders import trial_record

SPACE = load("digits")


def trial(number: int = 0, status: str = "finished", rungs: tuple[float, ...] = (0.5, 0.4), **raw: Any) -> TrialRecord:
    settings = SPACE.resolve({**SPACE.first(), **raw})
    accuracies = {25 * (k + 1): value for k, value in enumerate(rungs)}
    return trial_record(number, status=status, settings=settings, rungs=accuracies)


def advice(space: Space, records: list[TrialRecord]) -> list[str]:
    """The items of the section's list."""
    return [line[2:] for line in advice_section(space, records).splitlines() if line.startswith("- ")]


def middle() -> dict[str, Any]:
    """A point far from every bound."""
    return {
        name: type(each.low)((each.low * each.high) ** 0.5 if each.log else (each.low + each.high) / 2)
        for name, each in SPACE.searched.items()
        if not isinstance(each, Choice)
    }


def test_a_best_trial_inside_its_ranges_gives_no_advice() -> None:
    assert "The best trial is at no bound of a range." in advice_section(SPACE, [trial(**middle())])
    assert advice(SPACE, [trial(**middle())]) == []
    assert advice_section(SPACE, []) == ""


@pytest.mark.parametrize("side", ["lower", "upper"])
def test_every_range_at_whose_bound_the_best_trial_lies_is_named(side: str) -> None:
    for name, each in SPACE.searched.items():
        assert not isinstance(each, Choice)
        bound = each.low if side == "lower" else each.high
        if (name, bound) in (("T_minus", 0), ("T_width", 1), ("T_growth", 0), ("M", 1)):  # there is nothing beyond
            assert advice(SPACE, [trial(**middle() | {name: bound}), trial(1, rungs=(0.1, 0.1))]) == []
            continue
        (sentence,) = advice(SPACE, [trial(**middle() | {name: bound}), trial(1, rungs=(0.1, 0.1))])
        assert sentence.startswith(f"`{name}`: ") and f"{side} bound" in sentence and str(each) in sentence


def test_trials_that_fail_and_accuracy_that_still_rises_are_said() -> None:
    records = [trial(rungs=(0.3, 0.4), **middle()), trial(1, "failed", ())]
    failed, rising = advice(SPACE, records)
    assert failed.startswith("1 of 2 trials failed")
    assert "0.300 → 0.400" in rising and "iterations" in rising


def test_a_study_searches_nothing() -> None:
    assert advice_section(load("digits_range_study"), [trial()]) == ""
