"""Sweeps that have not finished, as their drivers leave them, without running anything."""

from pathlib import Path

from orchestrator.results.result_json import Execution, collect_result
from orchestrator.results.so_far import found_so_far
from orchestrator.results.trials import TrialRecord
from orchestrator.results.under_way import StageAtWork, UnderWay
from orchestrator.stages.bulletin import Bulletin
from orchestrator.stages.outputs import write_partial_outputs
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings, trial_record

EXECUTION = Execution(
    experts=None,
    workers={"count": 2, "gpus_each": 0.0},
    device="cpu",
    seconds={"search": 7.0, "total": 7.0},
    mlflow={
        "tracking_uri": "sqlite:////runs/mlflow.db", "experiment_id": "3", "parent_run_id": "8f", "compare_url": "…",
    },
)  # fmt: skip


def some_trials(settings: SweepSettings) -> list[TrialRecord]:
    """Return the reference, a better trial that is unfinished, one that was pruned and one that failed."""
    point = settings.space.resolve(settings.space.first())
    return [
        trial_record(0, settings=point, rungs={25: 0.5, 50: 0.6, 150: 0.7}),
        trial_record(1, settings=point, rungs={25: 0.3}, status="pruned", reason="stopped by ASHA at iteration 25"),
        trial_record(2, settings=point, status="failed", reason="diverged: α is [nan]"),
        trial_record(3, settings=point, rungs={25: 0.6, 50: 0.75, 150: 0.8}, status="unfinished", seconds=0.0),
    ]


def search_under_way(folder: Path, name: str, *, trials: bool = True) -> tuple[SweepSettings, Bulletin]:
    """Return the settings of a sweep that is in its search, and its bulletin, which has written nothing yet."""
    settings = sweep_settings(name=name, workdir=Workdir(folder))
    write_settings(settings)
    records = some_trials(settings) if trials else []

    def write(status: str, under_way: UnderWay) -> None:
        found = found_so_far(settings, records, {}, 100, None)
        write_partial_outputs(settings, collect_result(settings, status, found, EXECUTION, under_way), records)

    return settings, Bulletin(write, settings)


def at_work(stage: StageAtWork) -> StageAtWork:
    """Return a stage as the view of a search completes it."""
    return StageAtWork(
        name=stage.name, since=stage.since, unit=stage.unit, total=stage.total, done=3, running={"trial-003": 150},
        iterations=150, rate=12.5, seconds_left=90.0, seconds_left_in_all=600.0,
    )  # fmt: skip
