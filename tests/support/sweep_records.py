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


WITH_CLOCKS = {"result.json", "report.md", "report.html", "settings.json", "trials.parquet", "progress.jsonl"}
"""Files of a sweep that hold times or the workdir, which are not those of another run."""
OF_ONE_RUN = ("journal", "tune", "checkpoints", "model")
"""Its folders that hold times and ids."""


def different_files(one: Sweep, other: Sweep) -> list[str]:
    """Return the names of files whose bytes differ between two equal sweeps in two workdirs, or that one lacks.

    Of datasets and experts, which other sweeps of a workdir may use too, those that both workdirs have.
    """
    mine, theirs = (_files(sweep.folder) for sweep in (one, other))
    assert {"synthetic.safetensors", "synthetic.pt", "finals.parquet", "figures/trials.png"} <= mine.keys()
    different = [name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)]
    for folder in ("datasets", "experts"):
        mine, theirs = (_files(sweep.workdir / folder, "*.arrow") for sweep in (one, other))
        both = mine.keys() & theirs.keys()
        assert both, folder
        different += [f"{folder}/{name}" for name in both if mine[name] != theirs[name]]
    return sorted(different)


def _files(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Return the content of the files below a folder that hold no clock and no id of their run."""
    names = (path.relative_to(folder) for path in folder.rglob(pattern) if path.is_file())
    return {
        name.as_posix(): (folder / name).read_bytes()
        for name in names
        if name.parts[0] not in (*WITH_CLOCKS, *OF_ONE_RUN) and not name.name.startswith(".")
    }


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
