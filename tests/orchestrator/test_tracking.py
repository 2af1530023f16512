"""What MLflow has of a sweep, over its embedded store and over real servers that come and go."""

import hashlib
import http.server
import json
import logging
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import mlflow.data
import pytest
import torch
from mlflow.data.schema import TensorDatasetSchema
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from orchestrator import sender as sender_module
from orchestrator.comparisons import compare_finals
from orchestrator.console import make_console
from orchestrator.errors import ClusterError
from orchestrator.experts import ExpertSummary
from orchestrator.finals import CHALLENGE
from orchestrator.inputs import Inputs, prepare_inputs
from orchestrator.journal import METRICS, Journal
from orchestrator.mlflow_datasets import real_dataset
from orchestrator.mlflow_result import describe
from orchestrator.served_model import save_model
from orchestrator.settings import FINALS, SweepSettings, Workdir
from orchestrator.statistics import summarize
from orchestrator.study import study_rows, summarize_study
from orchestrator.sweep_report import repeat_command
from orchestrator.tracking import SweepRun, compare_url, open_sweep_run, reopen_sweep_run
from orchestrator.trial_tracking import TrackingCallback
from orchestrator.trials import TrialRecord
from search_spaces import load
from tests.orchestrator.conftest import ROOT
from tests.servers import postgresql
from trainables.checkpoints import checkpoint_place, write_checkpoint
from trainables.metrics import Metrics
from trainables.synthetic import SyntheticSet, write_synthetic

ITERATIONS = 40
EXPERTS = ExpertSummary(count=2, trained=1, reused=1, epochs=2, bytes=4096, seconds=3.5, losses=[2.0, 1.0])
PARAMS = {"ipc": 1, "seed": 0}
TESTED = ("accuracy", "macro_f1", "macro_recall")
MEASURED = {
    CHALLENGE: {
        "trial-000": [Metrics(((8, 2), (1, 9))), Metrics(((9, 1), (0, 10)))],
        "random_real": [Metrics(((5, 5), (5, 5))), Metrics(((6, 4), (5, 5)))],
    },
    "soft": {
        "trial-000": [Metrics(((7, 3), (0, 10))), Metrics(((8, 2), (1, 9)))],
        "random_real": [Metrics(((7, 3), (2, 8))), Metrics(((9, 1), (4, 6)))],
    },
}
DATASET: Any = SimpleNamespace(class_names=("zero", "one"), displayable=lambda images: images.clamp(0, 1))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    """One for all: MLflow takes seconds to make its database."""
    return Workdir(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What a sweep over the digits works on."""
    workdir = Workdir(tmp_path_factory.mktemp("inputs"))
    return prepare_inputs(
        SweepSettings(space=load("digits"), name="asked", seed=0, workdir=workdir), make_console(quiet=True)
    )


@pytest.fixture(scope="module")
def theta(inputs: Inputs) -> torch.Tensor:
    return inputs.network.initial(torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model(inputs: Inputs, theta: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder; it takes long to make."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(folder, inputs.network, inputs.dataset, theta)
    return folder


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sender_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE_S", 0.2)
    caplog.set_level(logging.WARNING, logger="orchestrator")


def opened(workdir: Workdir, sweep: str, uri: str | None = None) -> SweepRun:
    return open_sweep_run(uri, workdir, "space", sweep, PARAMS)


def callback(run: SweepRun, workdir: Workdir, **stage: str) -> TrackingCallback:
    return TrackingCallback(run, DATASET, ITERATIONS, str(workdir.root / "checkpoints"), **stage)


def trial(number: int) -> SimpleNamespace:
    return SimpleNamespace(
        trial_id=f"id-{number}", config={"trial_number": number, "lr_pixel": 0.1}, last_result=None, error_file=None
    )


def result(number: int, iteration: int, **more: Any) -> dict[str, Any]:
    values = {"validation_accuracy": (number + 1) / (iteration + 1), "alpha": 0.01, "unknown": 1.0}
    return {"iteration": iteration, **values, **more}


def report(tracking: TrackingCallback, one: SimpleNamespace, iteration: int, **more: Any) -> None:
    """Do what Tune does with a trial's result."""
    one.last_result = result(one.config["trial_number"], iteration, **more)
    tracking.on_trial_result(0, [], one, one.last_result)


def children(client: MlflowClient, run: SweepRun) -> dict[str, Run]:
    """The trials' runs by name; none twice."""
    query = f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    found = client.search_runs([run.experiment_id], query, max_results=1000)
    by_name = {each.info.run_name: each for each in found}
    assert len(by_name) == len(found)
    return by_name


def finished(workdir: Workdir, name: str, inputs: Inputs, model: Path) -> tuple[SweepSettings, dict[str, Any]]:
    """Write what a finished sweep leaves, and return its settings and what its result.json would hold."""
    settings = replace(inputs.settings, name=name, workdir=workdir)
    settings.write()
    for file in ("result.json", "report.md", "report.html", "trials.parquet", "figures/trials.png"):
        (settings.folder / file).write_text(f"content of {file}")
    dataset = inputs.dataset
    synthetic = SyntheticSet(
        images=torch.randn(10, 1, 8, 8), labels=torch.arange(10), alpha=0.02, dataset=dataset.name,
        class_names=dataset.class_names, mean=dataset.mean, std=dataset.std, ipc=1, method="M-DATM", config={},
        provenance={"sweep": name},
    )  # fmt: skip
    write_synthetic(settings.folder / "synthetic.safetensors", synthetic)
    shutil.copytree(model, settings.folder / "model")
    finals = {
        of: {metric: summarize([getattr(each, metric) for each in MEASURED[CHALLENGE][place]]) for metric in TESTED}
        for of, place in (("winner", "trial-000"), ("random_real", "random_real"))
    }
    return settings, {
        "finals": finals,
        "comparisons": compare_finals(finals),
        **{name: {"trial": "trial-000", "config": {}, "validation_accuracy": 0.8} for name in ("best", "paper")},
        "trials": {"finished": 3, "pruned": 1, "failed": 0},
        "seconds": {"search": 12.5},
        "files": {
            "synthetic": "synthetic.safetensors", "challenge": "synthetic.pt", "report": "report.md",
            "page": "report.html", "trials": "trials.parquet", "model": "model",
        },
    }  # fmt: skip


def steps(client: MlflowClient, run_id: str, metric: str = "validation_accuracy") -> list[int]:
    """The steps of a metric in the order of their timestamps, one for every row that MLflow has."""
    return [row.step for row in sorted(client.get_metric_history(run_id, metric), key=lambda row: row.timestamp)]


def parents(client: MlflowClient, run: SweepRun) -> list[Run]:
    name = client.get_run(run.run_id).data.tags["mdatm.sweep"]
    return client.search_runs([run.experiment_id], f"tags.`mdatm.sweep` = '{name}'")


class TestEmbedded:
    def test_a_trial_is_a_run_with_params_metrics_pictures_and_status(self, workdir: Workdir) -> None:
        run = opened(workdir, "whole")
        tracking, one = callback(run, workdir), trial(0)
        place = checkpoint_place(str(workdir.root / "checkpoints"), 0)
        tracking.on_trial_start(0, [], one)
        for iteration in (10, 20, 40):
            write_checkpoint(place, {"images": torch.rand(2, 3, 8, 8), "iteration": iteration})
            report(tracking, one, iteration)
        tracking.on_trial_complete(0, [], one)
        assert run.end("FINISHED") == 0
        client = MlflowClient(workdir.mlflow_uri)
        parent = client.get_run(run.run_id)
        assert parent.info.status == "FINISHED" and parent.data.params == {"ipc": "1", "seed": "0"}
        assert parent.data.tags["mdatm.sweep"] == "whole" and parent.data.tags["mdatm.space"] == "space"
        child = children(client, run)["trial-000"]
        assert child.info.status == "FINISHED" and child.data.tags["mdatm.outcome"] == "finished"
        assert "mdatm.reason" not in child.data.tags
        assert child.data.params == {"trial_number": "0", "lr_pixel": "0.1"}
        assert steps(client, child.info.run_id) == steps(client, child.info.run_id, "alpha") == [10, 20, 40]
        assert child.data.metrics == {"validation_accuracy": 1 / 41, "alpha": 0.01}
        assert child.data.tags["mlflow.loggedImages"] == "True"
        files = [file.path for file in client.list_artifacts(child.info.run_id, "images")]
        assert sorted(file.partition("+timestamp+")[0] for file in files) == [
            f"images/synthetic+step+{step}" for step in (10, 10, 20, 20, 40, 40)
        ]
        assert sum(file.endswith("+compressed.webp") for file in files) == 3
        folder = workdir.sweep("whole") / "journal"
        assert not list((folder / "pictures").iterdir()), "sent pictures are deleted"

    def test_how_trials_end(self, workdir: Workdir, tmp_path: Path) -> None:
        run = opened(workdir, "ends")
        tracking = callback(run, workdir)
        finished, pruned, hopeless, broken, cut_off = trials = [trial(number) for number in range(5)]
        for one in trials:
            tracking.on_trial_start(0, [], one)
            report(tracking, one, 10)
        report(tracking, finished, ITERATIONS)
        tracking.on_trial_complete(0, [], finished)
        tracking.on_trial_complete(0, [], pruned)
        report(tracking, hopeless, 20, validation_accuracy=math.nan, alpha=math.nan, failed="diverged: α = nan")
        tracking.on_trial_complete(0, [], hopeless)
        broken.error_file = tmp_path / "error.txt"
        broken.error_file.write_text("Traceback\n  somewhere\nValueError: broken\n")
        tracking.on_trial_error(0, [], broken)
        assert run.end("KILLED") == 0
        client = MlflowClient(workdir.mlflow_uri)
        runs = children(client, run)
        ended = {name: (each.info.status, each.data.tags.get("mdatm.outcome")) for name, each in runs.items()}
        assert ended == {
            "trial-000": ("FINISHED", "finished"),
            "trial-001": ("KILLED", "pruned"),
            "trial-002": ("FAILED", "failed"),
            "trial-003": ("FAILED", "failed"),
            "trial-004": ("KILLED", None),
        }
        assert runs["trial-002"].data.tags["mdatm.reason"] == "diverged: α = nan"
        assert steps(client, runs["trial-002"].info.run_id) == [10], "a failed result's NaN is no metric"
        assert "broken" in runs["trial-003"].data.tags["mdatm.reason"]
        assert client.get_run(run.run_id).info.status == "KILLED"
        assert cut_off.last_result["iteration"] == 10

    def test_a_second_driver_goes_on_in_the_same_runs_and_repeats_nothing(
        self, workdir: Workdir, inputs: Inputs
    ) -> None:
        run, client = opened(workdir, "resumed"), MlflowClient(workdir.mlflow_uri)
        tracking, done, going = callback(run, workdir), trial(0), trial(1)
        run.log_experts(EXPERTS, inputs)
        for one, last in ((done, ITERATIONS), (going, 20)):
            tracking.on_trial_start(0, [], one)
            for iteration in range(10, last + 1, 10):
                report(tracking, one, iteration)
        tracking.on_trial_complete(0, [], done)
        assert run.end("KILLED") == 0
        assert children(client, run)["trial-001"].info.status == "KILLED"

        again = opened(workdir, "resumed")
        assert (again.run_id, again.experiment_id) == (run.run_id, run.experiment_id)
        tracking, going = callback(again, workdir), trial(1)
        again.log_experts(replace(EXPERTS, trained=0, reused=2, losses=[3.0, 3.0]), inputs)
        tracking.on_trial_start(0, [], going)
        report(tracking, going, 20, alpha=0.5)
        assert again.flush() == 0
        assert client.get_run(again.run_id).info.status == "RUNNING"
        assert {name: each.info.status for name, each in children(client, again).items()} == {
            "experts": "FINISHED", "trial-000": "FINISHED", "trial-001": "RUNNING",
        }  # fmt: skip
        for iteration in (30, 40):
            report(tracking, going, iteration)
        tracking.on_trial_complete(0, [], going)
        tracking.on_trial_complete(0, [], done)
        assert again.end("FINISHED") == 0
        assert len(parents(client, again)) == 1 and client.get_run(again.run_id).info.status == "FINISHED"
        runs = children(client, again)
        experts = runs.pop("experts")
        assert [row.value for row in client.get_metric_history(experts.info.run_id, "expert_training_loss")] == [2, 1]
        assert experts.data.metrics["experts_trained"] == 1, "what the first driver did"
        for each in runs.values():
            assert steps(client, each.info.run_id) == steps(client, each.info.run_id, "alpha") == [10, 20, 30, 40]
            assert each.info.status == "FINISHED"

    def test_a_trial_whose_driver_died_before_it_was_closed_is_closed_by_the_next(self, workdir: Workdir) -> None:
        run, client = opened(workdir, "unclosed"), MlflowClient(workdir.mlflow_uri)
        tracking, trials = callback(run, workdir), [trial(number) for number in range(4)]
        for one in trials:
            report(tracking, one, 10)
        run.end("KILLED")
        run = opened(workdir, "unclosed")
        common = {"settings": {"N": 3}, "rungs": {10: 0.5}, "seconds": 1.0}
        run.close_trials(
            TrialRecord(number=number, status=status, reason=reason, **common)
            for number, status, reason in (
                (0, "finished", ""), (1, "pruned", "stopped by ASHA"), (2, "failed", "diverged"), (9, "finished", ""),
            )
        )  # fmt: skip
        run.end("FINISHED")
        ended = children(client, run)
        assert {name: (each.info.status, each.data.tags.get("mdatm.outcome")) for name, each in ended.items()} == {
            "trial-000": ("FINISHED", "finished"), "trial-001": ("KILLED", "pruned"),
            "trial-002": ("FAILED", "failed"), "trial-003": ("KILLED", None), "trial-009": ("FINISHED", "finished"),
        }  # fmt: skip
        for name in ("trial-000", "trial-009"):  # what the journal knew is not told twice, what it lacked is told
            history = client.get_metric_history(ended[name].info.run_id, "validation_accuracy")
            assert [each.step for each in history] == [10]
        assert ended["trial-009"].data.params == {"N": "3", "trial_number": "9"}
        assert {name: each.data.tags.get("mdatm.reason") for name, each in ended.items()} == {
            "trial-000": None, "trial-001": None, "trial-002": "diverged", "trial-003": None, "trial-009": None,
        }  # fmt: skip

    def test_a_trial_that_was_halted_repeats_its_last_rung(self, workdir: Workdir) -> None:
        run, one = opened(workdir, "halted"), trial(0)
        tracking = callback(run, workdir)
        report(tracking, one, 10)
        report(tracking, one, 20, validation_accuracy=math.nan, halted="no room for the checkpoint")
        tracking.on_trial_complete(0, [], one)
        run.end("FAILED")
        run, client = opened(workdir, "halted"), MlflowClient(workdir.mlflow_uri)
        report(callback(run, workdir), one, 20)
        run.end("KILLED")
        child = children(client, run)["trial-000"]
        assert steps(client, child.info.run_id) == [10, 20] and "mdatm.outcome" not in child.data.tags

    def test_a_trial_that_failed_and_goes_on_has_no_reason_any_more(self, workdir: Workdir) -> None:
        run, one = opened(workdir, "mended"), trial(0)
        tracking = callback(run, workdir)
        report(tracking, one, 10, failed="out of memory")
        tracking.on_trial_complete(0, [], one)
        tracking.on_trial_start(0, [], one)
        report(tracking, one, ITERATIONS)
        tracking.on_trial_complete(0, [], one)
        assert run.end("FINISHED") == 0
        child = children(MlflowClient(workdir.mlflow_uri), run)["trial-000"]
        assert child.info.status == "FINISHED" and child.data.tags["mdatm.reason"] == ""

    def test_a_result_is_told_once_also_by_a_driver_that_comes_later(
        self, workdir: Workdir, inputs: Inputs, model: Path
    ) -> None:
        run = opened(workdir, "result")
        settings, outcome = finished(workdir, "result", inputs, model)
        run.log_result(outcome, settings)
        assert run.end("FINISHED") == 0
        client = MlflowClient(workdir.mlflow_uri)
        ended = client.get_run(run.run_id).info.end_time
        again = reopen_sweep_run(None, workdir, "result")
        again.log_result({**outcome, "seconds": {"search": 99.0}}, settings)
        assert again.journal.waiting == 0
        assert again.end("FINISHED") == 0
        parent = client.get_run(run.run_id)
        assert parent.info.end_time == ended and parent.data.metrics["seconds_search"] == 12.5
        assert reopen_sweep_run(None, workdir, "never-was") is None
        assert (settings.folder / "report.md").exists(), "only pictures are deleted once sent"

    def test_the_search_and_the_finals_are_told_apart(self, workdir: Workdir) -> None:
        run = opened(workdir, "stages")
        for stage in ("trial", FINALS):
            tracking, one = callback(run, workdir, stage=stage), trial(0)
            report(tracking, one, ITERATIONS)
            tracking.on_trial_complete(0, [], one)
        common = {"status": "finished", "settings": {"N": 3}, "seconds": 1.0, "reason": ""}
        run.close_trials(
            TrialRecord(number=number, stage=FINALS, rungs={ITERATIONS: 0.5}, **common) for number in range(2)
        )
        assert run.flush() == 0
        assert run.trial_runs().keys() == {"trial-000"}, "the search's alone are compared"
        run.end("FINISHED")
        runs = children(MlflowClient(workdir.mlflow_uri), run)
        assert {name: each.data.tags["mdatm.stage"] for name, each in runs.items()} == {
            "trial-000": "trial", "final-000": "final", "final-001": "final",
        }  # fmt: skip
        assert runs["final-000"].data.metrics["validation_accuracy"] == 1 / 41, "it was known"
        assert runs["final-001"].data.metrics["validation_accuracy"] == 0.5

    def test_an_input_that_is_given_twice_is_there_once(self, workdir: Workdir, inputs: Inputs) -> None:
        run = opened(workdir, "inputs")
        for _ in range(2):
            run.journal.add("sweep", ("input", real_dataset(inputs.dataset, inputs.file)))
            run.log_dataset(inputs)
        assert run.end("FINISHED") == 0
        found = MlflowClient(workdir.mlflow_uri).get_run(run.run_id).inputs.dataset_inputs
        assert [each.dataset.name for each in found] == ["digits"]

    def test_two_sweeps_of_one_name_are_two_runs(self, workdir: Workdir) -> None:
        run = opened(workdir, "twice")
        run.end("FINISHED")
        shutil.rmtree(workdir.sweep("twice"))
        again = opened(workdir, "twice")
        again.end("FINISHED")
        assert again.run_id != run.run_id

    def test_a_parent_made_by_a_driver_that_died_before_it_noted_it_is_found(self, workdir: Workdir) -> None:
        run = opened(workdir, "died")
        run.end("KILLED")
        journal = Journal(workdir.sweep("died") / "journal")
        with journal._transaction():
            journal._database.execute("DELETE FROM runs")
            journal._database.execute("DELETE FROM facts WHERE name != 'id'")
        journal.close()
        again = opened(workdir, "died")
        again.end("FINISHED")
        assert again.run_id == run.run_id

    def test_a_run_that_is_not_where_it_was_is_said(self, workdir: Workdir, tmp_path: Path) -> None:
        run = opened(workdir, "moved")
        run.end("KILLED")
        elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
        with pytest.raises(ClusterError, match=f"{run.run_id} was made at {workdir.mlflow_uri} and is not there"):
            opened(workdir, "moved", elsewhere)

    def test_what_is_no_uri_is_refused_and_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match="check --tracking-uri"):
            opened(Workdir(tmp_path), "nowhere", "http://127.0.0.1:1")
        assert list(tmp_path.iterdir()) == []

    def test_the_compare_address_names_the_trials_that_mlflow_has(self, workdir: Workdir) -> None:
        run = opened(workdir, "compared")
        tracking = callback(run, workdir)
        for number in range(2):
            tracking.on_trial_start(0, [], trial(number))
        assert run.flush() == 0
        runs = run.trial_runs()
        assert runs.keys() == {"trial-000", "trial-001"}
        assert compare_url(run, list(runs.values())).count("%22%2C%20%22") == 1
        run.end("KILLED")

    def test_a_checkpoint_that_cannot_be_read_costs_a_picture(
        self, workdir: Workdir, caplog: pytest.LogCaptureFixture
    ) -> None:
        run, one = opened(workdir, "unreadable"), trial(7)
        tracking = callback(run, workdir)
        place = Path(checkpoint_place(str(workdir.root / "checkpoints"), 7))
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"no checkpoint")
        report(tracking, one, 10)
        report(tracking, one, 20)
        assert run.end("KILLED") == 0
        assert len(caplog.records) == 1 and "lacks a picture of trial-007" in caplog.records[0].message
        client = MlflowClient(workdir.mlflow_uri)
        assert steps(client, children(client, run)["trial-007"].info.run_id) == [10, 20]

    def test_a_refused_entry_blocks_nothing(self, workdir: Workdir, caplog: pytest.LogCaptureFixture) -> None:
        run, one = opened(workdir, "refused"), trial(0)
        tracking = callback(run, workdir)
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

    def test_many_params_go_in_parts(self, workdir: Workdir, inputs: Inputs) -> None:
        run, one = opened(workdir, "many"), trial(0)
        one.config |= {f"parameter_{number}": number for number in range(250)}
        callback(run, workdir).on_trial_start(0, [], one)
        run.log_experts(replace(EXPERTS, losses=[float(epoch) for epoch in range(1500)]), inputs)
        assert run.end("KILLED") == 0
        client = MlflowClient(workdir.mlflow_uri)
        runs = children(client, run)
        assert len(runs["trial-000"].data.params) == 252
        assert steps(client, runs["experts"].info.run_id, "expert_training_loss") == list(range(1, 1501))

    def test_a_snapshot_of_tune_holds_nothing_of_it(self, workdir: Workdir) -> None:
        run = opened(workdir, "snapshot")
        assert callback(run, workdir).__getstate__() == {}
        run.end("KILLED")


class TestDescription:
    def test_says_the_result_how_to_repeat_it_and_where_the_report_is(
        self, tmp_path: Path, inputs: Inputs, model: Path
    ) -> None:
        settings, outcome = finished(Workdir(tmp_path), "described", inputs, model)
        text = describe(outcome, settings)
        assert "**trial-000**" in text and "Of 4 trials 3 finished, 1 were pruned, 0 failed" in text
        assert "reaches **0.900 ± 0.071** test accuracy with 2 networks" in text
        assert "| random real images | 0.525 ± 0.035 |" in text and "best trial − random real images" in text
        assert repeat_command(settings) in text and f"in `{settings.folder}`" in text
        assert "![" not in text, "MLflow resolves no paths of artifacts"

    def test_has_a_studys_variants_and_what_fresh_seeds_came_to(
        self, tmp_path: Path, inputs: Inputs, model: Path
    ) -> None:
        settings, outcome = finished(Workdir(tmp_path), "described", inputs, model)
        space = load("digits_range_study")
        records = [
            TrialRecord(
                number=number, status="finished", settings=space.resolve(point), rungs={40: 0.5}, seconds=1.0, reason=""
            )
            for number, point in enumerate(space.points())
        ]
        rows = study_rows(space, records, {record.name: MEASURED[CHALLENGE]["trial-000"] for record in records})
        study = describe({**outcome, "study": summarize_study(space, rows)}, replace(settings, space=space))
        for variant in space.variants:
            assert f"| {variant} |" in study
        variants = {"winner": dict.fromkeys(("validation_accuracy", *TESTED), summarize([0.25, 0.75]))}
        again = describe({**outcome, "repeats": {"variants": variants, "comparisons": []}}, settings)
        assert "with seeds that the search never saw" in again and "| best trial | 0.500 ± 0.354 |" in again


class Server:
    """A real MLflow server over a SQLite file, which can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'remote.db'}",
            "--artifacts-destination", str(self.folder / "store"),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, env=environment
            )
        while True:  # the test's own timeout bounds it
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def forgetful(address: str) -> Iterator[tuple[str, list[str]]]:
    """Stand before a server and lose the answer to every other request that changes something."""
    counts: dict[str, int] = {}
    forgotten: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._forward("GET", None)

        def do_POST(self) -> None:
            self._forward("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def _forward(self, method: str, body: bytes | None) -> None:
            request = urllib.request.Request(
                f"{address}{self.path}", body, {"Content-Type": "application/json"}, method=method
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            what = self.path.rsplit("/", 1)[1]
            if "/runs/" in self.path and what in ("create", "log-batch", "log-inputs", "update"):
                counts[what] = counts.get(what, 0) + 1
                if counts[what] % 2 == 1:
                    forgotten.append(what)
                    self.close_connection = True
                    return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", forgotten
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def timestamps_that_wait(journal: Journal) -> dict[tuple[str, str, int], int]:
    """The timestamps of metrics that were not sent yet, by run, metric and step."""
    with sqlite3.connect(journal.database) as database:
        rows = database.execute("SELECT run, payload FROM entries WHERE kind = ?", (METRICS,)).fetchall()
    return {(run, row[0], row[3]): row[2] for run, payload in rows for row in json.loads(payload)}


@pytest.fixture
def server(one_server: Server) -> Server:
    """A running server; it takes long to start, so a test leaves it to the next."""
    one_server.start()
    return one_server


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.message for record in caplog.records if words in record.message]


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
        yield request.getfixturevalue("server").address if request.param == "server" else None


class TestEveryBackend:
    def test_has_the_whole_sweep(
        self, tracking_uri: str | None, tmp_path: Path, inputs: Inputs, model: Path, theta: torch.Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        workdir = Workdir(tmp_path / "runs")
        run = opened(workdir, "everything", tracking_uri)
        settings, outcome = finished(workdir, "everything", inputs, model)
        tracking, one = callback(run, workdir), trial(0)
        run.log_dataset(inputs)
        run.log_experts(EXPERTS, inputs)
        tracking.on_trial_start(0, [], one)
        report(tracking, one, ITERATIONS, peak_memory_mib=1.5, trial_seconds=7.0)
        tracking.on_trial_complete(0, [], one)
        for _ in range(2):  # the second time by a driver that comes after a crash
            run.log_finals(MEASURED)
            run.log_result(outcome, settings)
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
        assert len(parent.inputs.dataset_inputs) == 2
        logged = {each.dataset.name: each for each in parent.inputs.dataset_inputs}
        real, synthetic = logged["digits"], logged["digits-synthetic"]
        assert [tag.value for each in (real, synthetic) for tag in each.tags] == ["training", "distilled"]
        assert inputs.dataset.digest.startswith(real.dataset.digest)
        assert json.loads(real.dataset.profile)["images"] == {"train": 1078, "validation": 359}
        assert mlflow.data.get_source(real).load() == str(inputs.path)
        file = settings.folder / "synthetic.safetensors"
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(synthetic.dataset.digest)
        assert Path(mlflow.data.get_source(synthetic).load()).read_bytes() == file.read_bytes()
        schema = TensorDatasetSchema.from_dict(json.loads(synthetic.dataset.schema))
        assert schema.features.inputs[0].shape == (-1, 1, 8, 8) and schema.targets.inputs[0].shape == (-1,)

    def has_the_model(self, parent: Run, inputs: Inputs, theta: torch.Tensor) -> None:
        loaded = mlflow.pyfunc.load_model(f"runs:/{parent.info.run_id}/model")
        intensities = inputs.dataset.pixels("validation").float() / inputs.dataset.levels
        expected = inputs.network.logits(theta, inputs.dataset.normalized("validation"))
        torch.testing.assert_close(torch.tensor(loaded.predict(intensities.numpy())), expected, rtol=0, atol=1e-5)
        (logged,) = json.loads(parent.data.tags["mlflow.log-model.history"])
        assert logged["artifact_path"] == "model" and set(logged["flavors"]) == {"python_function", "pytorch"}


@pytest.mark.slow
class TestServer:
    def test_that_goes_away_and_comes_back_has_everything_once_and_in_order(
        self, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        workdir = Workdir(tmp_path / "runs")
        run = opened(workdir, "outage", server.address)
        tracking, trials = callback(run, workdir), [trial(number) for number in range(3)]
        place = checkpoint_place(str(workdir.root / "checkpoints"), 0)

        def stream(first: int, last: int) -> None:
            for iteration in range(first, last):
                write_checkpoint(place, {"images": torch.rand(2, 1, 8, 8), "iteration": iteration})
                for one in trials:
                    report(tracking, one, iteration)

        stream(1, 6)
        server.stop()
        trials.append(trial(3))
        tracking.on_trial_start(0, [], trials[-1])
        stream(6, 16)
        while not said(caplog, "takes nothing"):
            time.sleep(0.05)
        waiting = timestamps_that_wait(run.journal)
        assert len(waiting) >= 4 * 10 * 2
        server.start()
        stream(16, ITERATIONS + 1)
        for one in trials:
            tracking.on_trial_complete(0, [], one)
        assert run.end("FINISHED") == 0
        assert len(said(caplog, "takes nothing")) == len(said(caplog, "is back")) == 1

        client = MlflowClient(server.address)
        runs = children(client, run)
        assert runs.keys() == {f"trial-{number:03d}" for number in range(4)}
        for name, child in runs.items():
            first = 6 if name == "trial-003" else 1
            for metric in ("validation_accuracy", "alpha"):
                history = client.get_metric_history(child.info.run_id, metric)
                assert steps(client, child.info.run_id, metric) == list(range(first, ITERATIONS + 1))
                for row in history:
                    assert row.timestamp == waiting.get((name, metric, row.step), row.timestamp)
                    assert row.value == result(int(name[-3:]), row.step)[metric]
            assert child.info.status == "FINISHED"
        pictures = client.list_artifacts(runs["trial-000"].info.run_id, "images")
        assert len(pictures) == 2 * ITERATIONS  # large and small
        assert client.get_run(run.run_id).info.status == "FINISHED"

    def test_that_stays_away_is_told_later_by_whoever_comes(
        self, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        workdir = Workdir(tmp_path / "runs")
        run = opened(workdir, "later", server.address)
        server.stop()
        report(callback(run, workdir), trial(0), 10)
        waiting = run.end("KILLED", deadline_s=1)
        assert waiting >= 5, "a run, its params, a result, two statuses"

        again = opened(workdir, "later", server.address)  # the server is still away
        assert again.run_id == run.run_id
        report(callback(again, workdir), trial(0), 20)
        assert again.trial_runs() == {}
        assert again.end("FINISHED", deadline_s=1) > waiting
        with pytest.raises(ClusterError, match="does not work"):
            opened(workdir, "later", "http://127.0.0.1:1")  # and this one has never been it
        assert reopen_sweep_run(server.address, workdir, "later").end("FINISHED", deadline_s=1) > waiting

        server.start()
        assert reopen_sweep_run(server.address, workdir, "later").end("FINISHED") == 0
        client = MlflowClient(server.address)
        assert len(parents(client, run)) == 1 and client.get_run(run.run_id).info.status == "FINISHED"
        child = children(client, run)["trial-000"]
        assert steps(client, child.info.run_id) == [10, 20] and child.info.status == "KILLED"

    def test_whose_answers_get_lost_has_nothing_twice(self, server: Server, tmp_path: Path, inputs: Inputs) -> None:
        workdir = Workdir(tmp_path / "runs")
        with forgetful(server.address) as (address, forgotten):
            with pytest.raises(ClusterError, match="does not work"):
                opened(workdir, "lost", address)  # though the run has been made
            run = opened(workdir, "lost", address)
            run.log_dataset(inputs)
            run.log_experts(EXPERTS, inputs)
            tracking = callback(run, workdir)
            for number in range(3):
                one = trial(number)
                for iteration in (10, 20, 40):
                    report(tracking, one, iteration)
                tracking.on_trial_complete(0, [], one)
            assert run.end("FINISHED") == 0
        assert set(forgotten) == {"create", "log-batch", "log-inputs", "update"} and forgotten.count("create") >= 2
        client = MlflowClient(server.address)
        (parent,) = parents(client, run)
        assert [each.dataset.name for each in parent.inputs.dataset_inputs] == ["digits"]
        runs = children(client, run)
        assert steps(client, runs.pop("experts").info.run_id, "expert_training_loss") == [1, 2]
        assert len(runs) == 3
        for child in runs.values():
            assert steps(client, child.info.run_id) == steps(client, child.info.run_id, "alpha") == [10, 20, 40]
            assert child.info.status == "FINISHED"

    def test_has_everything_once_after_drivers_were_killed(self, server: Server, tmp_path: Path) -> None:
        kills = 0
        for lines in (30, 80, 60, None):
            driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(tmp_path / "runs"), server.address], stdout=subprocess.PIPE,
                text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            assert driver.stdout is not None
            try:
                said = list(islice(driver.stdout, lines))
                assert lines is not None or driver.wait() == 0, said
            finally:
                if driver.poll() is None:
                    os.kill(driver.pid, signal.SIGKILL)
                    kills += 1
                driver.stdout.close()
                driver.wait()
        assert kills == 3
        told = json.loads(said[-1])
        assert told["waiting"] == 0
        client = MlflowClient(server.address)
        (parent,) = client.search_runs([told["experiment_id"]], "tags.`mdatm.sweep` = 'killed'")
        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        found = client.search_runs([told["experiment_id"]], query, max_results=1000)
        names = sorted(each.info.run_name for each in found)
        assert names == ["trial-000", "trial-001", "trial-002", "trial-003"]
        assert {each.info.status for each in (parent, *found)} == {"FINISHED"}
        for child in found:
            for metric in ("validation_accuracy", "alpha"):
                assert steps(client, child.info.run_id, metric) == list(range(1, 101))


# A driver that journals as fast as it can; one that comes after it repeats the last result of every trial, as a trial
# does that goes on from its checkpoint.
DRIVER = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from orchestrator.settings import Workdir
from orchestrator.tracking import open_sweep_run
from orchestrator.trial_tracking import TrackingCallback

workdir = Workdir(Path(sys.argv[1]))
run = open_sweep_run(sys.argv[2], workdir, "space", "killed", {"ipc": 1})
tracking = TrackingCallback(run, None, 100, str(workdir.root / "checkpoints"))
known = run.journal.runs()
trials = [SimpleNamespace(config={"trial_number": number}, last_result=None) for number in range(4)]
last = [max(known[f"trial-{number:03d}"].iteration, 1) if f"trial-{number:03d}" in known else 1 for number in range(4)]
for iteration in range(min(last), 101):
    for trial in trials:
        if iteration >= last[trial.config["trial_number"]]:
            trial.last_result = {"iteration": iteration, "validation_accuracy": 1 / iteration, "alpha": 0.5}
            tracking.on_trial_result(0, [], trial, trial.last_result)
            print(iteration, flush=True)
for trial in trials:
    tracking.on_trial_complete(0, [], trial)
print(json.dumps({"waiting": run.end("FINISHED"), "experiment_id": run.experiment_id}), flush=True)
"""
