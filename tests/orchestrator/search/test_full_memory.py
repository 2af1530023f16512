"""A search in a real Ray whose memory monitor ends a trial in mid-step, because memory is taken."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from tests.support.memory import STEP_BYTES, MemoryThreshold
from tests.support.searches import RUNGS, TRIALS, Search

pytestmark = [pytest.mark.slow, pytest.mark.rare]


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resources]:
    """A Ray that has room for one GiB more than is used now."""
    for name, value in MemoryThreshold(2**30).environment.items():
        monkeypatch.setenv(name, value)
    with connected("local", None) as resources:
        yield resources


def test_a_trial_that_the_memory_monitor_ends_goes_on(resources: Resources, tmp_path: Path) -> None:
    def takes_memory(number: int, rung: int, attempt: int) -> None:
        held = []
        if (number, rung) == (1, 1) and attempt == 0:
            for _ in range(2**31 // STEP_BYTES):
                held.append(b"x" * STEP_BYTES)
            time.sleep(60)

    search = Search(tmp_path, resources)
    outcome = search.run(takes_memory)
    assert outcome.halted is None and not outcome.interrupted
    assert [(trial.state, list(trial.intermediate_values)) for trial in search.trials] == [
        (TrialState.COMPLETE, list(range(1, RUNGS + 1)))
    ] * TRIALS
    (lost,) = [line for line in search.lines if line.startswith("The process of trial-001 was lost: Ray ended it when")]
    assert lost.endswith("it is started again at once")
