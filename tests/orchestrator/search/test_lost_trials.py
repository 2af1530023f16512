"""Searches in a real Ray whose trials' processes are lost: none of them fails, and the results stay the same."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.search.outcome import SearchOutcome
from tests.support.searches import TRIALS, Search

pytestmark = [pytest.mark.slow, pytest.mark.rare]


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    with connected("local", None) as resources:
        yield resources


@pytest.fixture(scope="module")
def undisturbed(resources: Resources, tmp_path_factory: pytest.TempPathFactory) -> Search:
    search = Search(tmp_path_factory.mktemp("undisturbed"), resources)
    outcome = search.run()
    assert [record.status for record in outcome.trials] == ["finished"] * TRIALS and search.lines == []
    return search


def test_trials_that_are_lost_again_and_again_pause_and_go_on(
    undisturbed: Search, resources: Resources, tmp_path: Path
) -> None:
    def dies(number: int, rung: int, attempt: int) -> None:
        if (number, rung) == (0, 0) and attempt < 3:
            os._exit(1)
        if (number, rung) == (1, 1) and attempt < 2:
            raise MemoryError("Unable to allocate 8 GiB")

    search = Search(tmp_path, resources)
    outcome = search.run(dies)
    assert outcome == SearchOutcome(outcome.trials, halted=None, hopeless=None, interrupted=False)
    assert search.results == undisturbed.results
    assert [line.removeprefix("The process of ") for line in search.lines] == [
        "trial-000 was lost: it was killed, or it crashed; it is started again at once",
        "trial-000 was lost: it was killed, or it crashed; it is started again in 1 s",
        "trial-000 was lost: it was killed, or it crashed; it is started again in 2 s",
        "trial-001 was lost: its node has no memory left (Unable to allocate 8 GiB); it is started again at once",
        "trial-001 was lost: its node has no memory left (Unable to allocate 8 GiB); it is started again in 1 s",
    ]


def test_after_the_patience_it_halts_and_the_same_search_goes_on_later(
    undisturbed: Search, resources: Resources, tmp_path: Path
) -> None:
    def always_dies(number: int, rung: int, attempt: int) -> None:
        if number == 1:
            os._exit(1)

    search = Search(tmp_path, resources)
    outcome = search.run(always_dies, patience_s=1.0)
    assert outcome.halted is not None and outcome.hopeless is None and not outcome.interrupted
    assert outcome.halted.startswith("no progress for ") and outcome.halted.endswith("; remove the cause")
    assert [record.number for record in outcome.trials] == [0]
    assert [trial.state for trial in search.trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    search.run()
    assert search.results == undisturbed.results


@pytest.mark.rare
def test_with_two_at_once_no_trial_is_lost_or_run_twice(resources: Resources, tmp_path: Path) -> None:
    def dies(number: int, rung: int, attempt: int) -> None:
        if number < 2 and attempt < 2:
            os._exit(1)

    search = Search(tmp_path, resources, concurrent=2)
    outcome = search.run(dies)
    assert [(record.number, record.status) for record in outcome.trials] == [
        (number, "finished") for number in range(TRIALS)
    ]
    assert all(list(record.rungs) == [1, 2] for record in outcome.trials)


@pytest.mark.rare
def test_an_error_of_its_own_fails_the_trial_alone(resources: Resources, tmp_path: Path) -> None:
    def raises(number: int, rung: int, attempt: int) -> None:
        if number == 1:
            raise ValueError("nothing of this size")

    search = Search(tmp_path, resources)
    outcome = search.run(raises)
    assert [record.status for record in outcome.trials] == ["finished", "failed", "finished"]
    assert outcome.trials[1].reason == "ValueError: nothing of this size" and search.lines == []
