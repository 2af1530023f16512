"""The trials' runs in MLflow: what Tune's callback logs of a trial from its start to its end."""

import math
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from ray import cloudpickle

from orchestrator.state.workdir import Workdir
from tests.support.losses import lose_process
from tests.support.tracking import ITERATIONS, PICTURES, callback, children, opened, report, steps, trial
from trainables.workers.rung import Halted, RungPictures, SettingsFailed

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_a_trial_is_a_run_with_params_metrics_pictures_and_status(workdir: Workdir, tmp_path: Path) -> None:
    run = opened(workdir, "whole")
    tracking, one = callback(run), trial(0)
    tracking.on_trial_start(0, [], one)
    for iteration in (10, 20, 20, 40):  # a trial that resumes reports its last rung again
        report(tracking, one, iteration, PICTURES)
        assert not any(isinstance(value, RungPictures) for value in one.last_result.values()), "Tune keeps the rest"
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
    for file in files:
        content = Path(client.download_artifacts(child.info.run_id, file, str(tmp_path))).read_bytes()
        assert content == (PICTURES.webp if file.endswith(".webp") else PICTURES.png)
    folder = workdir.sweep("whole") / "journal"
    assert not list((folder / "pictures").iterdir()), "sent pictures are deleted"


def test_how_trials_end(workdir: Workdir, tmp_path: Path) -> None:
    run = opened(workdir, "ends")
    tracking = callback(run)
    finished, pruned, hopeless, broken, cut_off, lost = trials = [trial(number) for number in range(6)]
    for one in trials:
        tracking.on_trial_start(0, [], one)
        report(tracking, one, 10)
    report(tracking, finished, ITERATIONS)
    tracking.on_trial_complete(0, [], finished)
    tracking.on_trial_complete(0, [], pruned)
    end = SettingsFailed("diverged: α = nan")
    report(tracking, hopeless, 20, validation_accuracy=math.nan, alpha=math.nan, end=end)
    tracking.on_trial_complete(0, [], hopeless)
    broken.error_file = tmp_path / "error.txt"
    broken.error_file.write_text("Traceback\n  somewhere\nValueError: broken\n")
    tracking.on_trial_error(0, [], broken)
    lose_process(lost, tmp_path)
    tracking.on_trial_error(0, [], lost)
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
        "trial-005": ("KILLED", None),
    }
    assert runs["trial-002"].data.tags["mdatm.reason"] == "diverged: α = nan"
    assert steps(client, runs["trial-002"].info.run_id) == [10], "a failed result's NaN is no metric"
    assert "broken" in runs["trial-003"].data.tags["mdatm.reason"]
    assert client.get_run(run.run_id).info.status == "KILLED"
    assert cut_off.last_result["iteration"] == 10


def test_a_trial_that_was_halted_repeats_its_last_rung(workdir: Workdir) -> None:
    run, one = opened(workdir, "halted"), trial(0)
    tracking = callback(run)
    report(tracking, one, 10)
    report(tracking, one, 20, validation_accuracy=math.nan, end=Halted("no room for the checkpoint"))
    tracking.on_trial_complete(0, [], one)
    run.end("FAILED")
    run, client = opened(workdir, "halted"), MlflowClient(workdir.mlflow_uri)
    report(callback(run), one, 20)
    run.end("KILLED")
    child = children(client, run)["trial-000"]
    assert steps(client, child.info.run_id) == [10, 20] and "mdatm.outcome" not in child.data.tags


def test_a_trial_that_failed_and_goes_on_has_no_reason_any_more(workdir: Workdir) -> None:
    run, one = opened(workdir, "mended"), trial(0)
    tracking = callback(run)
    report(tracking, one, 10, end=SettingsFailed("out of memory"))
    tracking.on_trial_complete(0, [], one)
    tracking.on_trial_start(0, [], one)
    report(tracking, one, ITERATIONS)
    tracking.on_trial_complete(0, [], one)
    assert run.end("FINISHED") == 0
    child = children(MlflowClient(workdir.mlflow_uri), run)["trial-000"]
    assert child.info.status == "FINISHED" and child.data.tags["mdatm.reason"] == ""


def test_a_picture_that_cannot_be_written_is_missing_and_nothing_else(
    workdir: Workdir, caplog: pytest.LogCaptureFixture
) -> None:
    run, one = opened(workdir, "unreadable"), trial(7)
    tracking = callback(run)
    blocked = run.journal.folder / "pictures" / "trial-007"
    blocked.write_text("no folder")
    report(tracking, one, 10, PICTURES)
    report(tracking, one, 20, PICTURES)
    blocked.unlink()
    assert run.end("KILLED") == 0
    assert len(caplog.records) == 1 and "lacks a picture of trial-007" in caplog.records[0].message
    client = MlflowClient(workdir.mlflow_uri)
    assert steps(client, children(client, run)["trial-007"].info.run_id) == [10, 20]


def test_a_snapshot_of_tune_holds_nothing_of_it(workdir: Workdir) -> None:
    run = opened(workdir, "snapshot")
    snapshot = cloudpickle.dumps(callback(run))  # fails for a connection or a lock
    assert vars(cloudpickle.loads(snapshot)) == {}
    run.end("KILLED")
