"""Searches in a real Ray whose trials' processes are lost: none of them fails, and the results stay the same."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray import tune
from rich.console import Console

from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.search.run import SearchOutcome, run_search
from orchestrator.state.progress import Progress
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.losses import patience
from trainables.workers.rung import RungResult

pytestmark = [pytest.mark.slow, pytest.mark.rare]

TRIALS, RUNGS = 3, 2


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    with connected("local", None) as resources:
        yield resources


def trial_that(meets: Callable[[int, int, int], None], folder: Path) -> Any:
    """Return a trial without work, which calls `meets` with its number, its rung and the attempt at it."""

    class Trial(tune.Trainable):
        """Keeps its rung in a file, as a real one does; its process loads no torch."""

        def setup(self, config: dict[str, Any], work: None) -> None:  # type: ignore[override]
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.number = new_config["trial_number"]
            self.place = folder / f"rung-of-{self.number}"
            self.rung = int(self.place.read_text()) if self.place.exists() else 0
            return True

        def step(self) -> dict[str, Any]:
            name = f"{self.number}-{self.rung}-"
            attempt = len(list(folder.glob(f"{name}*")))
            (folder / f"{name}{attempt}").touch()
            meets(self.number, self.rung, attempt)
            self.rung += 1
            self.place.write_text(str(self.rung))
            return RungResult(
                iteration=self.rung, validation_accuracy=(self.number + self.rung) / 10, trial_seconds=1.0,
                done=self.rung >= RUNGS,
            ).to_report()  # fmt: skip

    return Trial


class Search:
    """A search in a workdir of its own."""

    def __init__(self, folder: Path, resources: Resources, concurrent: int = 1) -> None:
        space = load("digits").override(
            {"trials": TRIALS, "iterations": RUNGS, "validation_every_iterations": 1, "first_rung_iterations": RUNGS}
        )
        self._folder, self._resources, self._said = folder, resources, io.StringIO()
        self._settings = sweep_settings(space=space, workdir=Workdir(folder), concurrent=concurrent)
        write_settings(self._settings)

    def run(self, meets: Callable[[int, int, int], None] | None = None, patience_s: float = 60.0) -> SearchOutcome:
        no_work: Any = None
        meets = meets or (lambda number, rung, attempt: None)
        folder = Path(self._settings.places.checkpoints).parent
        return run_search(
            self._settings, self._resources, no_work, Progress(self._settings.places.folder), [],
            patience(Console(file=self._said), patience_s), trainable=trial_that(meets, folder),
        )  # fmt: skip

    @property
    def lines(self) -> list[str]:
        return self._said.getvalue().splitlines()

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        places = self._settings.places
        return optuna.load_study(study_name=places.study_name, storage=places.study_storage).trials

    @property
    def results(self) -> list[Any]:
        """What the study holds, less times."""
        return [(trial.number, trial.state, trial.params, trial.intermediate_values) for trial in self.trials]


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
