"""MLflow servers that go away, lose answers and come back, and drivers that are killed: MLflow has everything once."""

import http.server
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.errors import ClusterError
from orchestrator.stages.inputs import Inputs
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.journal import METRICS, Journal
from orchestrator.tracking.opening import reopen_sweep_run
from tests.support.mlflow_server import MlflowServer
from tests.support.paths import ROOT
from tests.support.tracking import (
    EXPERTS,
    ITERATIONS,
    PICTURES,
    callback,
    children,
    opened,
    parents,
    report,
    result,
    steps,
    trial,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_pauses")]


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


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.message for record in caplog.records if words in record.message]


class TestServer:
    def test_that_goes_away_and_comes_back_has_everything_once_and_in_order(
        self, mlflow_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        workdir = Workdir(tmp_path / "runs")
        run = opened(workdir, "outage", mlflow_server.address)
        tracking, trials = callback(run), [trial(number) for number in range(3)]

        def stream(first: int, last: int) -> None:
            for iteration in range(first, last):
                for one in trials:
                    report(tracking, one, iteration, PICTURES if one is trials[0] else None)

        stream(1, 6)
        mlflow_server.stop()
        trials.append(trial(3))
        tracking.on_trial_start(0, [], trials[-1])
        stream(6, 16)
        while not said(caplog, "accepts nothing"):
            time.sleep(0.05)
        waiting = timestamps_that_wait(run.journal)
        assert len(waiting) >= 4 * 10 * 2
        mlflow_server.start()
        stream(16, ITERATIONS + 1)
        for one in trials:
            tracking.on_trial_complete(0, [], one)
        assert run.end("FINISHED") == 0
        assert len(said(caplog, "accepts nothing")) == len(said(caplog, "is back")) == 1

        client = MlflowClient(mlflow_server.address)
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
        self, mlflow_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        workdir = Workdir(tmp_path / "runs")
        run = opened(workdir, "later", mlflow_server.address)
        mlflow_server.stop()
        report(callback(run), trial(0), 10)
        waiting = run.end("KILLED", deadline_s=1)
        assert waiting >= 5, "a run, its params, a result, two statuses"

        again = opened(workdir, "later", mlflow_server.address)  # the server is still away
        assert again.run_id == run.run_id
        report(callback(again), trial(0), 20)
        assert again.trial_runs() == {}
        assert again.end("FINISHED", deadline_s=1) > waiting
        with pytest.raises(ClusterError, match="does not work"):
            opened(workdir, "later", "http://127.0.0.1:1")  # and this one has never been it
        later = reopen_sweep_run(mlflow_server.address, workdir, "later")
        assert later is not None and later.end("FINISHED", deadline_s=1) > waiting

        mlflow_server.start()
        later = reopen_sweep_run(mlflow_server.address, workdir, "later")
        assert later is not None and later.end("FINISHED") == 0
        client = MlflowClient(mlflow_server.address)
        assert len(parents(client, run)) == 1 and client.get_run(run.run_id).info.status == "FINISHED"
        child = children(client, run)["trial-000"]
        assert steps(client, child.info.run_id) == [10, 20] and child.info.status == "KILLED"

    def test_whose_answers_get_lost_has_nothing_twice(
        self, mlflow_server: MlflowServer, tmp_path: Path, inputs: Inputs
    ) -> None:
        workdir = Workdir(tmp_path / "runs")
        with forgetful(mlflow_server.address) as (address, forgotten):
            with pytest.raises(ClusterError, match="does not work"):
                opened(workdir, "lost", address)  # though the run has been made
            run = opened(workdir, "lost", address)
            run.log_dataset(inputs.dataset, inputs.file)
            run.log_experts(EXPERTS, inputs.experts_params, inputs.experts_place)
            tracking = callback(run)
            for number in range(3):
                one = trial(number)
                for iteration in (10, 20, 40):
                    report(tracking, one, iteration)
                tracking.on_trial_complete(0, [], one)
            assert run.end("FINISHED") == 0
        assert set(forgotten) == {"create", "log-batch", "log-inputs", "update"} and forgotten.count("create") >= 2
        client = MlflowClient(mlflow_server.address)
        (parent,) = parents(client, run)
        assert parent.inputs is not None
        assert [each.dataset.name for each in parent.inputs.dataset_inputs] == ["digits"]
        runs = children(client, run)
        assert steps(client, runs.pop("experts").info.run_id, "expert_training_loss") == [1, 2]
        assert len(runs) == 3
        for child in runs.values():
            assert steps(client, child.info.run_id) == steps(client, child.info.run_id, "alpha") == [10, 20, 40]
            assert child.info.status == "FINISHED"

    @pytest.mark.rare
    def test_has_everything_once_after_drivers_were_killed(self, mlflow_server: MlflowServer, tmp_path: Path) -> None:
        kills = 0
        for lines in (30, 80, 60, None):
            driver = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(tmp_path / "runs"), mlflow_server.address], stdout=subprocess.PIPE,
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
        client = MlflowClient(mlflow_server.address)
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
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.result import result_entries
from orchestrator.tracking.opening import open_sweep_run
from orchestrator.tracking.trial_callback import TrackingCallback
from trainables.workers.rung import RungResult

workdir = Workdir(Path(sys.argv[1]))
run = open_sweep_run(sys.argv[2], workdir, "space", "killed", {"ipc": 1})
tracking = TrackingCallback(run, 100)
known = run.journal.runs()
trials = [SimpleNamespace(config={"trial_number": number}, last_result=None) for number in range(4)]
last = [max(known[f"trial-{number:03d}"].iteration, 1) if f"trial-{number:03d}" in known else 1 for number in range(4)]
for iteration in range(min(last), 101):
    for trial in trials:
        if iteration >= last[trial.config["trial_number"]]:
            rung = RungResult(iteration=iteration, validation_accuracy=1 / iteration, alpha=0.5)
            trial.last_result = rung.to_report()
            tracking.on_trial_result(0, [], trial, trial.last_result)
            print(iteration, flush=True)
for trial in trials:
    tracking.on_trial_complete(0, [], trial)
print(json.dumps({"waiting": run.end("FINISHED"), "experiment_id": run.experiment_id}), flush=True)
"""
