"""A search whose trials do no work, and meet what a test wants them to meet."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from rich.console import Console

from orchestrator.cluster.resources import Resources
from orchestrator.search.outcome import SearchOutcome
from orchestrator.search.run import run_search
from orchestrator.state.progress import Progress
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.losses import patience
from trainables.workers.rung import RungResult

__all__ = ["RUNGS", "TRIALS", "Search"]

TRIALS, RUNGS = 3, 2


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
