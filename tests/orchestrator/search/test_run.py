"""A search in a real Ray whose trials compute nothing: what its time budget cuts off goes on later."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from rich.console import Console

from orchestrator.cluster.connection import connected
from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.search.outcome import SearchOutcome
from orchestrator.search.run import run_search
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings
from trainables.workers.rung import RungResult

pytestmark = [pytest.mark.slow, pytest.mark.rare]

ITERATIONS, TRIALS = 4, 5


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    with connected("local", None, 1) as resources:
        yield resources


def trial_class(folder: Path) -> type[tune.Trainable]:
    """Return a trial with checkpoints in a folder; trial 1 waits there at its second rung until it is let go."""

    class Trial(tune.Trainable):  # local, so that it is pickled by value
        def setup(self, config: dict[str, Any], work: None) -> None:  # type: ignore[override]
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.number = new_config["trial_number"]
            self.checkpoint = folder / f"checkpoint-{self.number}"
            self.rung = int(self.checkpoint.read_text()) if self.checkpoint.exists() else 0
            self.unconfirmed = self.rung > 0  # like a distillation, it reports its last rung again
            return True

        def step(self) -> dict[str, Any]:
            import time

            while not self.unconfirmed and self.number == 1 and self.rung == 1 and not (folder / "go").exists():
                time.sleep(0.05)
            self.rung += not self.unconfirmed
            self.unconfirmed = False
            self.checkpoint.write_text(str(self.rung))
            level = (self.number * 0.6180339887) % 1.0
            return RungResult(
                iteration=self.rung, validation_accuracy=level, matching_loss=1 / self.rung, trial_seconds=self.rung,
                done=self.rung >= ITERATIONS,
            ).to_report()  # fmt: skip

    return Trial


class StatisticsAtTheEnd(tune.Callback):
    """Looks at what Tune keeps of the trials that have ended."""

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        ended = [trial for trial in trials if trial.last_result.get("done")]
        assert not any(trial.metric_analysis or trial.metric_n_steps for trial in ended)


def search(folder: Path, resources: Resources, budget_s: float | None = None) -> SearchOutcome:
    settings = settings_in(folder, budget_s)
    no_work: Any = None
    return run_search(
        settings, resources, no_work, Progress(settings.places.folder), [StatisticsAtTheEnd()],
        Patience(settings.patience_s, Console(quiet=True), "run it again"), trainable=trial_class(folder)
    )  # fmt: skip


def settings_in(folder: Path, budget_s: float | None) -> SweepSettings:
    space = load("digits").override(
        {"trials": TRIALS, "iterations": ITERATIONS, "validation_every_iterations": 1, "first_rung_iterations": 1}
    )
    settings = sweep_settings(space=space, workdir=Workdir(folder), concurrent=1, time_budget_s=budget_s)
    write_settings(settings)
    return settings


def test_what_a_time_budget_cuts_off_is_paused_and_goes_on_to_the_values_of_an_undisturbed_search(
    resources: Resources, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    (whole / "go").touch()
    undisturbed = search(whole, resources)
    assert [record.number for record in undisturbed.trials] == list(range(TRIALS))

    budget_s = 10.0
    outcome = search(cut, resources, budget_s)
    while not (len(outcome.trials) == 2 and outcome.trials[1].rungs):  # on a slow machine no rung is reported in time
        assert not outcome.interrupted and outcome.halted is None
        budget_s *= 2
        outcome = search(cut, resources, budget_s)
    reference, paused = outcome.trials
    assert reference == undisturbed.trials[0]
    assert (paused.number, paused.status, paused.rungs) == (1, "paused", {1: undisturbed.trials[1].rungs[1]})
    assert (paused.seconds, paused.measures) == (1, {"matching_loss": 1.0})
    assert paused.settings == undisturbed.trials[1].settings

    again = search(cut, resources, budget_s)  # the budget is that of all drivers together: nothing is run
    assert again == replace(outcome, trials=again.trials) and again.trials == outcome.trials
    (cut / "go").touch()
    assert search(cut, resources, 1e6) == undisturbed
