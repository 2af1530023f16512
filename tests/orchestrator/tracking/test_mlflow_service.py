"""What MLflow has of a sweep's journal: in its embedded store, at a server, in PostgreSQL."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import mlflow.data
import pytest
import torch
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestrator.reporting.summary import describe
from orchestrator.results.finals import CHALLENGE
from orchestrator.results.statistics import summarize
from orchestrator.stages.inputs import Inputs
from orchestrator.state.settings import SweepSettings
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.journal import METRICS
from orchestrator.tracking.result import result_entries
from tests.support.builders import sweep_settings
from tests.support.results import MEASURED, finished_result
from tests.support.servers import postgresql
from tests.support.tracking import (
    EXPERTS,
    ITERATIONS,
    callback,
    children,
    opened,
    report,
    steps,
    trial,
    write_finished,
)
from trainables.evaluation.metrics import TESTED

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_a_refused_entry_blocks_nothing(workdir: Workdir, caplog: pytest.LogCaptureFixture) -> None:
    run, one = opened(workdir, "refused"), trial(0)
    tracking = callback(run)
    report(tracking, one, 10)
    run.journal.add("trial-000", (METRICS, [["no name? §", 1.0, 1_700_000_000_000, 1]]))
    run.journal.add("trial-000", ("file", {"path": "gone.txt", "folder": None}))
    report(tracking, one, 20)
    tracking.on_trial_complete(0, [], one)
    assert run.end("FINISHED") == 0
    client = MlflowClient(workdir.mlflow_uri)
    child = children(client, run)["trial-000"]
    assert steps(client, child.info.run_id) == [10, 20] and child.info.status == "KILLED"
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "metrics: Invalid value" in said[0] and "MLflow refused 2 entries" in said[1]


def test_many_params_go_in_parts(workdir: Workdir, inputs: Inputs) -> None:
    run, one = opened(workdir, "many"), trial(0)
    one.config |= {f"parameter_{number}": number for number in range(250)}
    callback(run).on_trial_start(0, [], one)
    run.log_experts(
        replace(EXPERTS, losses=[float(epoch) for epoch in range(1500)]),
        inputs.experts_params,
        inputs.experts_place,
    )
    assert run.end("KILLED") == 0
    client = MlflowClient(workdir.mlflow_uri)
    runs = children(client, run)
    assert len(runs["trial-000"].data.params) == 252
    assert steps(client, runs["experts"].info.run_id, "expert_training_loss") == list(range(1, 1501))


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("server", marks=pytest.mark.slow),
        pytest.param("postgresql", marks=pytest.mark.slow),
    ]
)
def tracking_uri(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Each kind of place that MLflow may be at; None: the workdir."""
    if request.param == "postgresql":
        with postgresql("mlflow") as server:
            yield f"{server}mlflow"
    else:
        yield request.getfixturevalue("mlflow_server").address if request.param == "server" else None


class TestEveryBackend:
    def test_has_the_whole_sweep(
        self, tracking_uri: str | None, tmp_path: Path, inputs: Inputs, model: Path, theta: torch.Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        workdir = Workdir(tmp_path / "runs")
        run = opened(workdir, "everything", tracking_uri)
        settings, outcome = sweep_settings(name="everything", workdir=workdir), finished_result()
        write_finished(settings, inputs, model)
        tracking, one = callback(run), trial(0)
        run.log_dataset(inputs.dataset, inputs.file)
        run.log_experts(EXPERTS, inputs.experts_params, inputs.experts_place)
        tracking.on_trial_start(0, [], one)
        report(tracking, one, ITERATIONS, peak_memory_mib=1.5, trial_seconds=7.0)
        tracking.on_trial_complete(0, [], one)
        for _ in range(2):  # the second time by a driver that comes after a crash
            run.log_finals(MEASURED)
            run.log_result(result_entries(outcome, settings, run.run_id))
        assert run.flush() == 0 and run.journal.backlog().refused == 0
        assert run.end("FINISHED") == 0

        client = MlflowClient(run.tracking_uri)
        parent, runs = client.get_run(run.run_id), children(client, run)
        assert {name: (each.info.status, each.data.tags["mdatm.stage"]) for name, each in runs.items()} == {
            "experts": ("FINISHED", "experts"), "trial-000": ("FINISHED", "trial"),
            "final-random_real": ("FINISHED", "final"),
        }  # fmt: skip
        self.has_the_experts(client, runs["experts"], inputs)
        self.has_the_finals(client, runs)
        assert runs["trial-000"].data.metrics["peak_memory_mib"] == 1.5
        assert runs["trial-000"].data.metrics["trial_seconds"] == 7
        finals = outcome["finals"]
        assert parent.data.metrics == {
            **{f"{name}_{metric}": finals[name][metric]["mean"] for name in finals for metric in TESTED},
            "best_validation_accuracy": 0.8, "trials_finished": 3, "trials_pruned": 1, "trials_failed": 0,
            "trials_paused": 0,
            "seconds_search": 12.5,
        }  # fmt: skip
        assert parent.data.tags["mlflow.note.content"] == describe(outcome, settings)
        assert {file.path for file in client.list_artifacts(run.run_id)} == {
            "result.json", "settings.json", "report.md", "report.html", "trials.parquet", "synthetic.safetensors",
            "figures", "model",
        }  # fmt: skip
        assert [file.path for file in client.list_artifacts(run.run_id, "figures")] == ["figures/trials.png"]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", run.tracking_uri)
        self.has_the_datasets(parent, inputs, settings)
        self.has_the_model(parent, inputs, theta)

    def has_the_experts(self, client: MlflowClient, experts: Run, inputs: Inputs) -> None:
        params, metrics = experts.data.params, experts.data.metrics
        fixed = inputs.settings.fixed
        for key in ("expert_count", "expert_lr", "expert_optimizer", "sam_rho", "gsam_alpha", "horizon_epochs"):
            assert params[key] == str(fixed[key])
        assert params["store"] == inputs.store.address and params["dataset_digest"] == inputs.dataset.digest
        assert experts.data.tags["mdatm.store"] == str(inputs.store.folder)
        history = client.get_metric_history(experts.info.run_id, "expert_training_loss")
        assert [(row.step, row.value) for row in history] == [(1, 2.0), (2, 1.0)]
        facts = {"experts_trained": 1, "experts_reused": 1, "experts_bytes": 4096, "experts_seconds": 3.5}
        assert metrics == {**facts, "expert_training_loss": 1.0}
        assert experts.info.end_time - experts.info.start_time >= 3500

    def has_the_finals(self, client: MlflowClient, runs: dict[str, Run]) -> None:
        for name, place in (("trial-000", "trial-000"), ("final-random_real", "random_real")):
            child = runs[name]
            for metric in TESTED:
                values = [getattr(each, metric) for each in MEASURED[CHALLENGE][place]]
                history = client.get_metric_history(child.info.run_id, f"test_{metric}")
                assert sorted((row.step, row.value) for row in history) == list(enumerate(values))
                assert child.data.metrics[f"test_{metric}_mean"] == summarize(values)["mean"]
                assert child.data.metrics[f"test_{metric}_std"] == summarize(values)["std"]
                soft = summarize([getattr(each, metric) for each in MEASURED["soft"][place]])
                assert child.data.metrics[f"soft_test_{metric}_mean"] == soft["mean"]

    def has_the_datasets(self, parent: Run, inputs: Inputs, settings: SweepSettings) -> None:
        assert parent.inputs is not None
        assert len(parent.inputs.dataset_inputs) == 2
        logged = {each.dataset.name: each for each in parent.inputs.dataset_inputs}
        real, synthetic = logged["digits"], logged["digits-synthetic"]
        assert [tag.value for each in (real, synthetic) for tag in each.tags] == ["training", "distilled"]
        assert inputs.dataset.digest.startswith(real.dataset.digest)
        assert json.loads(real.dataset.profile or "")["images"] == {"train": 1078, "validation": 359}
        assert mlflow.data.get_source(real).load() == str(inputs.path)
        file = settings.places.folder / "synthetic.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(synthetic.dataset.digest)
        assert Path(mlflow.data.get_source(synthetic).load()).read_bytes() == file.read_bytes()
        schema = TensorDatasetSchema.from_dict(json.loads(synthetic.dataset.schema or ""))
        assert schema.features.inputs[0].shape == (-1, 1, 8, 8) and schema.targets.inputs[0].shape == (-1,)

    def has_the_model(self, parent: Run, inputs: Inputs, theta: torch.Tensor) -> None:
        loaded = mlflow.pyfunc.load_model(f"runs:/{parent.info.run_id}/model")
        intensities = inputs.dataset.pixels("validation").float() / inputs.dataset.levels
        expected = inputs.network.logits(theta, inputs.dataset.normalized("validation"))
        torch.testing.assert_close(torch.tensor(loaded.predict(intensities.numpy())), expected, rtol=0, atol=1e-5)
        (logged,) = json.loads(parent.data.tags["mlflow.log-model.history"])
        assert logged["artifact_path"] == "model" and set(logged["flavors"]) == {"python_function", "pytorch"}
