"""What a sweep recorded: its rows in trials.parquet, its trials in Optuna's study, its runs in MLflow."""

from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
from mlflow.tracking import MlflowClient

from tests.support.sweeps import Sweep

CLOCKS = {
    "seconds_per_iteration", "trial_seconds", "resident_memory_mib", "peak_memory_mib", "experts_trained",
    "experts_reused", "experts_seconds",
}  # fmt: skip
"""Metrics that differ from run to run, or say which driver trained what."""


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the rows of trials.parquet, less their seconds."""
    table: list[dict[str, Any]] = pq.read_table(sweep.folder / "trials.parquet").drop_columns(["seconds"]).to_pylist()
    return table


def study(workdir: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a sweep's study."""
    return optuna.load_study(study_name=name, storage=f"sqlite:///{workdir / 'optuna.db'}").trials


def tracked(sweep: Sweep) -> dict[str, Any]:
    """Return what MLflow has of a sweep, less its clocks: by the run's name params, metrics step by step, status."""
    place = sweep.result["mlflow"]
    client = MlflowClient(place["tracking_uri"])
    parents = client.search_runs([place["experiment_id"]], f"tags.`mdatm.sweep` = '{sweep.name}'")
    assert [parent.info.run_id for parent in parents] == [place["parent_run_id"]]
    assert parents[0].info.status == "FINISHED"
    runs = client.search_runs([place["experiment_id"]], f"tags.`mlflow.parentRunId` = '{place['parent_run_id']}'")
    assert len(runs) == len({child.info.run_name for child in runs})  # none twice
    return {
        child.info.run_name: (
            child.info.status,
            child.data.params,
            {
                metric: [(each.step, each.value) for each in client.get_metric_history(child.info.run_id, metric)]
                for metric in child.data.metrics.keys() - CLOCKS
            },
            sorted(
                file.path.partition("+timestamp+")[0] for file in client.list_artifacts(child.info.run_id, "images")
            ),
        )
        for child in runs
    }
