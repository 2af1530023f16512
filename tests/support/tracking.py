"""A sweep as the tests of tracking tell it to MLflow: its run, trials that report as Tune's do, its result."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestrator.results.experts import ExpertSummary
from orchestrator.stages.inputs import Inputs
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.opening import open_sweep_run
from orchestrator.tracking.sweep_run import SweepRun
from orchestrator.tracking.trial_callback import TrackingCallback
from trainables.data.synthetic import SyntheticSet, write_synthetic
from trainables.workers.rung import RungPictures, RungResult

ITERATIONS = 40
EXPERTS = ExpertSummary(count=2, trained=1, reused=1, epochs=2, bytes=4096, seconds=3.5, losses=[2.0, 1.0])
PARAMS = {"ipc": 1, "seed": 0}
PICTURES = RungPictures(png=b"a picture", webp=b"a small one")


def opened(workdir: Workdir, sweep: str, uri: str | None = None) -> SweepRun:
    """Open the run of a sweep, as its driver does."""
    return open_sweep_run(uri, workdir, "space", sweep, PARAMS)


def callback(run: SweepRun, **stage: str) -> TrackingCallback:
    """Make the callback that Tune calls."""
    return TrackingCallback(run, ITERATIONS, **stage)


def trial(number: int) -> SimpleNamespace:
    """Make what the callback reads of a trial of Tune."""
    return SimpleNamespace(
        trial_id=f"id-{number}", config={"trial_number": number, "lr_pixel": 0.1}, last_result=None, error_file=None,
        pickled_error_file=None,
    )  # fmt: skip


def result(number: int, iteration: int, **more: Any) -> dict[str, Any]:
    """Make the result that a trial reports after an iteration."""
    values = {"validation_accuracy": (number + 1) / (iteration + 1), "alpha": 0.01, **more}
    return {**RungResult(iteration=iteration, **values).to_report(), "unknown": 1.0}


def report(
    tracking: TrackingCallback,
    one: SimpleNamespace,
    iteration: int,
    pictures: RungPictures | None = None,
    **more: Any,
) -> None:
    """Do what Tune does with a trial's result."""
    one.last_result = result(one.config["trial_number"], iteration, **more)
    if pictures is not None:
        pictures.add_to(one.last_result)
    tracking.on_trial_result(0, [], one, one.last_result)


def children(client: MlflowClient, run: SweepRun) -> dict[str, Run]:
    """Return the child runs by name; none is there twice."""
    query = f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    found = client.search_runs([run.experiment_id], query, max_results=1000)
    by_name = {each.info.run_name: each for each in found}
    assert len(by_name) == len(found)
    return by_name


def parents(client: MlflowClient, run: SweepRun) -> list[Run]:
    """Return all runs that carry the name of the sweep."""
    name = client.get_run(run.run_id).data.tags["mdatm.sweep"]
    return client.search_runs([run.experiment_id], f"tags.`mdatm.sweep` = '{name}'")


def steps(client: MlflowClient, run_id: str, metric: str = "validation_accuracy") -> list[int]:
    """The steps of a metric in the order of their timestamps, one for every row that MLflow has."""
    return [row.step for row in sorted(client.get_metric_history(run_id, metric), key=lambda row: row.timestamp)]


def write_finished(settings: SweepSettings, inputs: Inputs, model: Path) -> None:
    """Write the files that a finished sweep leaves, as `finished_result` names them."""
    write_settings(settings)
    for file in ("result.json", "report.md", "report.html", "trials.parquet", "figures/trials.png"):
        (settings.places.folder / file).write_text(f"content of {file}")
    dataset = inputs.dataset
    synthetic = SyntheticSet(
        images=torch.randn(10, 1, 8, 8), labels=torch.arange(10), alpha=0.02, dataset=dataset.name,
        class_names=dataset.class_names, mean=dataset.mean, std=dataset.std, ipc=1, method="M-DATM", config={},
        provenance={"sweep": settings.name},
    )  # fmt: skip
    write_synthetic(settings.places.folder / "synthetic.safetensors", synthetic)
    shutil.copytree(model, settings.places.folder / "model")
