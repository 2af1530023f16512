"""A sweep's run in MLflow: opened, found again by the next driver, and closed."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.errors import ClusterError, UserError
from orchestrator.stages.inputs import Inputs
from orchestrator.state.stage import FINALS
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.datasets import real_dataset
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.opening import reopen_sweep_run
from orchestrator.tracking.result import result_entries
from tests.support.builders import sweep_settings, trial_record
from tests.support.paths import ROOT
from tests.support.results import MEASURED, finished_result
from tests.support.tracking import (
    EXPERTS,
    ITERATIONS,
    callback,
    children,
    opened,
    parents,
    report,
    steps,
    trial,
    write_finished,
)

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_a_second_driver_goes_on_in_the_same_runs_and_repeats_nothing(workdir: Workdir, inputs: Inputs) -> None:
    run, client = opened(workdir, "resumed"), MlflowClient(workdir.mlflow_uri)
    tracking, done, going = callback(run), trial(0), trial(1)
    run.log_experts(EXPERTS, inputs.experts_params, inputs.experts_place)
    for one, last in ((done, ITERATIONS), (going, 20)):
        tracking.on_trial_start(0, [], one)
        for iteration in range(10, last + 1, 10):
            report(tracking, one, iteration)
    tracking.on_trial_complete(0, [], done)
    assert run.end("KILLED") == 0
    assert children(client, run)["trial-001"].info.status == "KILLED"

    again = opened(workdir, "resumed")
    assert (again.run_id, again.experiment_id) == (run.run_id, run.experiment_id)
    tracking, going = callback(again), trial(1)
    again.log_experts(
        replace(EXPERTS, trained=0, reused=2, losses=[3.0, 3.0]), inputs.experts_params, inputs.experts_place
    )
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


def test_a_trial_whose_driver_died_before_it_was_closed_is_closed_by_the_next(workdir: Workdir) -> None:
    run, client = opened(workdir, "unclosed"), MlflowClient(workdir.mlflow_uri)
    tracking, trials = callback(run), [trial(number) for number in range(4)]
    for one in trials:
        report(tracking, one, 10)
    run.end("KILLED")
    run = opened(workdir, "unclosed")
    ends = ((0, "finished", ""), (1, "pruned", "stopped by ASHA"), (2, "failed", "diverged"), (9, "finished", ""))
    records = (
        trial_record(number, status=status, reason=reason, settings={"N": 3, "ipc": 1}, rungs={10: 0.5})
        for number, status, reason in ends
    )
    run.close_trials(records, ["N"])
    run.end("FINISHED")
    ended = children(client, run)
    assert {name: (each.info.status, each.data.tags.get("mdatm.outcome")) for name, each in ended.items()} == {
        "trial-000": ("FINISHED", "finished"), "trial-001": ("KILLED", "pruned"),
        "trial-002": ("FAILED", "failed"), "trial-003": ("KILLED", None), "trial-009": ("FINISHED", "finished"),
    }  # fmt: skip
    for name in ("trial-000", "trial-009"):  # journalled rungs are not sent twice, missing ones are
        history = client.get_metric_history(ended[name].info.run_id, "validation_accuracy")
        assert [each.step for each in history] == [10]
    assert ended["trial-009"].data.params == {"N": "3", "trial_number": "9"}
    assert {name: each.data.tags.get("mdatm.reason") for name, each in ended.items()} == {
        "trial-000": None, "trial-001": None, "trial-002": "diverged", "trial-003": None, "trial-009": None,
    }  # fmt: skip


def test_a_trial_that_is_paused_goes_on_in_its_run_and_its_finals_are_told_again(workdir: Workdir) -> None:
    run, client, one = opened(workdir, "paused"), MlflowClient(workdir.mlflow_uri), trial(0)
    report(callback(run), one, 10)
    run.close_trials([trial_record(0, status="paused", rungs={10: 0.5}, settings={"N": 3})], ["N"])
    run.log_finals(MEASURED)
    run.end("FINISHED")
    paused = children(client, run)["trial-000"]
    assert (paused.info.status, paused.data.tags["mdatm.outcome"]) == ("KILLED", "paused")

    run = opened(workdir, "paused")
    run.forget_finals()
    tracking = callback(run)
    tracking.on_trial_start(0, [], one)
    report(tracking, one, ITERATIONS)
    tracking.on_trial_complete(0, [], one)
    run.log_finals(MEASURED)
    run.end("FINISHED")
    runs = children(client, run)
    ended = runs["trial-000"]
    assert (ended.info.status, ended.data.tags["mdatm.outcome"]) == ("FINISHED", "finished")
    assert steps(client, ended.info.run_id) == [10, ITERATIONS]
    assert sorted(steps(client, ended.info.run_id, "test_accuracy")) == [0, 0, 1, 1]
    others = runs["final-random_real"].info.run_id
    assert sorted(steps(client, others, "test_accuracy")) == [0, 1], "no search changes them"


def test_a_result_is_told_once_also_by_a_driver_that_comes_later(workdir: Workdir, inputs: Inputs, model: Path) -> None:
    run = opened(workdir, "result")
    settings, outcome = sweep_settings(name="result", workdir=workdir), finished_result()
    write_finished(settings, inputs, model)
    run.log_result(result_entries(outcome, settings, run.run_id))
    assert run.end("FINISHED") == 0
    client = MlflowClient(workdir.mlflow_uri)
    ended = client.get_run(run.run_id).info.end_time
    again = reopen_sweep_run(None, workdir, "result")
    assert again is not None
    again.log_result(result_entries({**outcome, "seconds": {"search": 99.0}}, settings, again.run_id))
    assert again.journal.waiting == 0
    assert again.end("FINISHED") == 0
    parent = client.get_run(run.run_id)
    assert parent.info.end_time == ended and parent.data.metrics["seconds_search"] == 12.5
    assert reopen_sweep_run(None, workdir, "never-was") is None
    assert (settings.places.folder / "report.md").exists(), "only pictures are deleted once sent"


def test_the_search_and_the_finals_are_told_apart(workdir: Workdir) -> None:
    run = opened(workdir, "stages")
    for stage in ("trial", FINALS):
        tracking, one = callback(run, stage=stage), trial(0)
        report(tracking, one, ITERATIONS)
        tracking.on_trial_complete(0, [], one)
    records = (trial_record(number, stage=FINALS, settings={"N": 3}, rungs={ITERATIONS: 0.5}) for number in range(2))
    run.close_trials(records, ["N"])
    assert run.flush() == 0
    assert run.trial_runs().keys() == {"trial-000"}, "the search's alone are compared"
    run.end("FINISHED")
    runs = children(MlflowClient(workdir.mlflow_uri), run)
    assert {name: each.data.tags["mdatm.stage"] for name, each in runs.items()} == {
        "trial-000": "trial", "final-000": "final", "final-001": "final",
    }  # fmt: skip
    assert runs["final-000"].data.metrics["validation_accuracy"] == 1 / 41, "it was known"
    assert runs["final-001"].data.metrics["validation_accuracy"] == 0.5


def test_an_input_that_is_given_twice_is_there_once(workdir: Workdir, inputs: Inputs) -> None:
    run = opened(workdir, "inputs")
    for _ in range(2):
        run.journal.add("sweep", ("input", real_dataset(inputs.dataset, inputs.file)))
        run.log_dataset(inputs.dataset, inputs.file)
    assert run.end("FINISHED") == 0
    found = MlflowClient(workdir.mlflow_uri).get_run(run.run_id).inputs
    assert found is not None
    assert [each.dataset.name for each in found.dataset_inputs] == ["digits"]


def test_two_sweeps_of_one_name_are_two_runs(workdir: Workdir) -> None:
    run = opened(workdir, "twice")
    run.end("FINISHED")
    shutil.rmtree(workdir.sweep("twice"))
    again = opened(workdir, "twice")
    again.end("FINISHED")
    assert again.run_id != run.run_id


def test_a_parent_made_by_a_driver_that_died_before_it_noted_it_is_found(workdir: Workdir) -> None:
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


def test_a_run_that_is_not_where_it_was_is_said(workdir: Workdir, tmp_path: Path) -> None:
    run = opened(workdir, "moved")
    run.end("KILLED")
    elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
    with pytest.raises(ClusterError, match=f"{run.run_id} was created at {workdir.mlflow_uri} and does not exist here"):
        opened(workdir, "moved", elsewhere)


def test_what_is_no_uri_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="check --tracking-uri"):
        opened(Workdir(tmp_path), "nowhere", "http://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


def test_the_compare_address_names_the_trials_that_mlflow_has(workdir: Workdir) -> None:
    run = opened(workdir, "compared")
    tracking = callback(run)
    for number in range(2):
        tracking.on_trial_start(0, [], trial(number))
    assert run.flush() == 0
    runs = run.trial_runs()
    assert runs.keys() == {"trial-000", "trial-001"}
    assert run.compare_url().count("%22%2C%20%22") == 1
    run.end("KILLED")


def test_a_deleted_experiment_or_run_is_restored_and_said(workdir: Workdir, caplog: pytest.LogCaptureFixture) -> None:
    run, client = opened(workdir, "before its deletion"), MlflowClient(workdir.mlflow_uri)
    assert run.end("KILLED") == 0
    client.delete_experiment(run.experiment_id)
    new = opened(workdir, "after its deletion")
    assert new.experiment_id == run.experiment_id and new.end("FINISHED") == 0
    assert [record.message for record in caplog.records] == [
        "MLflow's experiment space was deleted; it is restored, with its runs"
    ]
    for delete in (partial(client.delete_run, run.run_id), partial(client.delete_experiment, run.experiment_id)):
        delete()
        again = opened(workdir, "before its deletion")
        assert again.run_id == run.run_id and again.flush() == 0 and again.journal.backlog().refused == 0
        assert again.end("FINISHED") == 0
        assert client.get_run(run.run_id).info.lifecycle_stage == "active"
    assert "MLflow's run before its deletion was deleted; it is restored" in caplog.text


def log_note(workdir: Workdir, sweep: str) -> str:
    """Open a sweep's run with a file among its artifacts, and return the run's id."""
    run = opened(workdir, sweep)
    (workdir.sweep(sweep) / "note.txt").write_text(sweep)
    run.journal.add("sweep", ("file", {"path": "note.txt", "folder": None}))
    assert run.flush() == 0 and run.journal.backlog().refused == 0
    assert run.end("FINISHED") == 0
    return run.run_id


def test_a_workdir_that_was_moved_has_old_and_new_artifacts(workdir: Workdir, tmp_path: Path) -> None:
    old = log_note(workdir, "before the move")
    moved = Workdir(tmp_path / "moved [to] here")
    shutil.copytree(workdir.root, moved.root)
    new = log_note(moved, "after the move")
    client = MlflowClient(moved.mlflow_uri)
    for run_id in (old, new):
        assert [file.path for file in client.list_artifacts(run_id)] == ["note.txt"]
        assert (moved.mlflow_artifacts / run_id / "artifacts" / "note.txt").exists()
    assert not (workdir.mlflow_artifacts / new).exists()


def test_mlflows_database_is_waited_for_while_another_process_holds_it(workdir: Workdir) -> None:
    opened(workdir, "first").end("FINISHED")
    with closing(sqlite3.connect(workdir.mlflow_database, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.5, lambda: holder.execute("COMMIT")).start()
        run = opened(workdir, "second")
        holder.execute("BEGIN EXCLUSIVE")
        callback(run).on_trial_start(0, [], trial(0))
        threading.Timer(0.5, lambda: holder.execute("COMMIT")).start()
        assert run.flush() == 0 and run.journal.backlog().refused == 0
        assert run.end("FINISHED") == 0


def test_a_database_of_studies_is_refused_before_mlflow_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE studies (name)")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"holds Optuna's studies.*change --tracking-uri"):
        opened(Workdir(tmp_path / "runs"), "a", f"sqlite:///{path}")
    assert path.read_bytes() == before and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_sweeps_that_start_together_in_a_new_workdir_share_its_tables(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from orchestrator.state.workdir import Workdir\n"
        "from orchestrator.tracking.opening import open_sweep_run\n"
        "sys.exit(open_sweep_run(None, Workdir(Path(sys.argv[1])), 'space', sys.argv[2], {}).end('FINISHED'))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "runs", name], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "other")
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    client = MlflowClient(Workdir(tmp_path / "runs").mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'space'")
    names = [run.info.run_name for run in client.search_runs([experiment.experiment_id])]
    assert sorted(str(name) for name in names) == ["one", "other"]
