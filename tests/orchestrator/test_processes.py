"""Sweeps that are stopped, clusters that are joined, servers that are started: all of them real processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from tests.support.processes import assert_refused, end, run, start, wait_for
from tests.support.servers import free_port
from tests.support.sweeps import SMALL, Sweep

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("by", "during", "least"),
    [(signal.SIGINT, "Sweep ", 0), (signal.SIGTERM, "trial-001", 2)],
    ids=["experts", "search"],
)
def test_a_sweep_that_is_stopped_keeps_what_it_has_and_says_so(
    first: Sweep, by: signal.Signals, during: str, least: int
) -> None:
    name = f"stopped-{by.name}"
    sweep = start(
        sys.executable, "-u", "-m", "orchestrator.sweep", *SMALL, "--trials", 60, "--experts", 3 if least == 0 else 2,
        "--workdir", first.workdir, "--name", name,
    )  # fmt: skip
    try:
        said = []
        assert sweep.stdout is not None
        for line in sweep.stdout:
            said.append(line)
            if line.startswith(during):
                os.kill(sweep.pid, by)
                break
        said += sweep.stdout.readlines()
        assert sweep.wait(120) == 130, "".join(said)
    finally:
        end(sweep)
    assert said[-1].startswith("Error: stopped by hand"), "".join(said)
    assert "Traceback" not in "".join(said)
    result = json.loads((first.workdir / "sweeps" / name / "result.json").read_text())
    assert result["status"] == "stopped" and result["finals"] == {}
    assert least <= sum(result["trials"].values()) < 60
    client = MlflowClient(result["mlflow"]["tracking_uri"])
    assert client.get_run(result["mlflow"]["parent_run_id"]).info.status == "KILLED"
    experiment = [result["mlflow"]["experiment_id"]]
    query = f"tags.`mlflow.parentRunId` = '{result['mlflow']['parent_run_id']}' and attributes.status = 'RUNNING'"
    assert client.search_runs(experiment, query) == []


@pytest.mark.parametrize("by", [pytest.param(signal.SIGINT, marks=pytest.mark.rare), signal.SIGTERM])
def test_a_sweep_is_stopped_in_its_finals_by_the_first_signal(first: Sweep, by: signal.Signals) -> None:
    name = f"stopped-finals-{by.name}"
    sweep = start(
        sys.executable, "-u", "-m", "orchestrator.sweep", *SMALL, "--trials", 2, "--networks", 20,
        "--set", "protocol_epochs=600", "--workdir", first.workdir, "--name", name,
    )  # fmt: skip
    try:
        said = []
        assert sweep.stdout is not None
        for line in sweep.stdout:
            said.append(line)
            if line.startswith("Finals, networks"):
                os.kill(sweep.pid, by)
                break
        said += sweep.stdout.readlines()
        assert sweep.wait(120) == 130, "".join(said)
    finally:
        end(sweep)
    assert said[-1].startswith("Error: stopped by hand"), "".join(said)
    result = json.loads((first.workdir / "sweeps" / name / "result.json").read_text())
    assert result["status"] == "stopped" and sum(result["trials"].values()) == 2
    # The line that the test waited for is printed when a fifth of the 20 networks of each set, or more, are tested.
    assert result["under_way"]["stage"] == "finals, networks" and result["finals"]


@pytest.mark.rare
def test_a_sweep_in_which_every_trial_diverges_says_why(first: Sweep) -> None:
    done = run(
        "orchestrator.sweep", *SMALL, "--trials", 2, "--workdir", first.workdir, "--name", "diverged", "--quiet",
        "--set", "alpha_init=1e30",
    )  # fmt: skip
    assert_refused(done, "none of 2 trials succeeded", "no finite update", "alpha_init", code=4)
    result = json.loads((first.workdir / "sweeps" / "diverged" / "result.json").read_text())
    assert result["status"] == "failed" and result["trials"] == {"finished": 0, "pruned": 0, "failed": 2, "paused": 0}
    client = MlflowClient(result["mlflow"]["tracking_uri"])
    query = f"tags.`mlflow.parentRunId` = '{result['mlflow']['parent_run_id']}' and tags.`mdatm.stage` = 'trial'"
    children = client.search_runs([result["mlflow"]["experiment_id"]], query)
    assert [child.info.status for child in children] == ["FAILED", "FAILED"]
    assert all("no finite update" in child.data.tags["mdatm.reason"] for child in children)


def succeeds(command: list[str], environment: dict[str, str]) -> bool:
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=15).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture
def cluster() -> Iterator[tuple[str, str]]:
    """A Ray cluster that somebody else started: its address, and the one for clients."""
    port, client_port = free_port(), free_port()
    # Temporary files of its own: Ray's sockets need a short path, and no other cluster may be found through them.
    folder = Path("/tmp") / f"mdatm-{port}"
    head = start(
        Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        "--include-dashboard=false", f"--temp-dir={folder}", f"--ray-client-server-port={client_port}",
        "--object-store-memory=100000000", RAY_AUTH_MODE="disabled", RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    )  # fmt: skip
    try:
        assert head.stdout is not None
        assert any("Ray runtime started" in line for line in head.stdout)
        # Ray's client server now and then fails to fork for its first client: wait until one has got through.
        attempt = [sys.executable, "-c", f"import ray; ray.init('ray://127.0.0.1:{client_port}')"]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        while not succeeds(attempt, environment):
            time.sleep(1)
        yield f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}"
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # on SIGTERM it would drain for half a minute
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.rare
def test_commands_join_a_cluster_and_a_time_budget_ends_the_search_there(
    cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    address, client_address = cluster
    workdir, store = tmp_path / "runs", tmp_path / "store"
    done = run(
        "orchestrator.experts", "--space", "digits", "--experts", 2, "--workdir", workdir, "--address", address,
        "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trained, 0 reused" in done.stdout
    done = run(
        "orchestrator.sweep", *SMALL, "--trials", 60, "--workdir", workdir, "--name", "short",
        "--address", client_address, "--time-budget", "15s", "--storage-path", store,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((workdir / "sweeps" / "short" / "result.json").read_text())
    assert result["experts"]["reused"] == 2
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines.count(f"Sweep short in {workdir}/sweeps/short") == 1 and "pid=" not in done.stdout
    assert [line.split()[0] for line in lines if line.startswith("trial-")] == [
        f"trial-{number:03d}" for number in range(sum(line.startswith("trial-") for line in lines))
    ]
    assert result["status"] == "finished" and 1 <= sum(result["trials"].values()) < 60
    statuses = Counter(pq.read_table(workdir / "sweeps" / "short" / "trials.parquet")["status"].to_pylist())
    assert statuses == Counter({name: count for name, count in result["trials"].items() if count})
    assert statuses["paused"] >= 1 and "--resume short" in done.stdout
    assert list((store / "short").rglob("trial-000.safetensors"))
    assert not (workdir / "sweeps" / "short" / "tune").exists()


def test_a_tracking_server_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    done = run(
        "orchestrator.sweep", *SMALL, "--workdir", tmp_path, "--name", "a", "--tracking-uri", "http://127.0.0.1:1",
        "--quiet",
    )  # fmt: skip
    assert_refused(done, "MLflow", "http://127.0.0.1:1", code=3)
    assert not (tmp_path / "sweeps").exists()


def test_ui_serves_the_comparison_on_loopback_until_it_is_ended(first: Sweep) -> None:
    port = free_port()
    server = start(
        sys.executable, "-u", "-m", "orchestrator.ui", "--workdir", first.workdir, "--sweep", "first", "--port", port
    )  # fmt: skip
    try:
        assert server.stdout is not None
        said = [next(server.stdout) for _ in range(4)]
        view = (
            f"http://127.0.0.1:{port}/#/experiments/{first.result['mlflow']['experiment_id']}/runs?viewStateShareKey="
        )
        assert said[0].startswith(f"Charts of the trials: {view}") and "compareRunsMode=CHART" in said[0]
        assert said[1].startswith(f"Table of the trials: {view}") and "compareRunsMode=TABLE" in said[1]
        assert said[2].startswith(f"Compare the best trials: http://127.0.0.1:{port}/#/compare-runs?runs=")
        assert "Ctrl-C" in said[3]
        wait_for(f"http://127.0.0.1:{port}/health")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert b"MLflow" in page.read()
        place = first.result["mlflow"]
        client = MlflowClient(f"http://127.0.0.1:{port}")
        assert client.get_run(place["parent_run_id"]).info.run_name == "first"
        server.send_signal(signal.SIGTERM)  # to itself alone: MLflow's processes end with it
        assert server.wait(60) == 0
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
    finally:
        end(server)


class TestEvaluate:
    def test_gives_the_finals_of_the_sweep_again(self, first: Sweep, tmp_path: Path) -> None:
        figures = tmp_path / "figures.json"
        done = run(
            "orchestrator.evaluate", "--synthetic", first.folder / "synthetic.safetensors", "--dataset", "digits",
            "--networks", 2, "--workdir", first.workdir, "--json", figures,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = json.loads(figures.read_text())
        assert written["accuracy"]["n"] == 2 and 0.3 < written["accuracy"]["mean"] <= 1
        assert f"{written['accuracy']['mean']:.4f}" in done.stdout

    @pytest.mark.rare
    def test_takes_a_challenge_file(self, first: Sweep) -> None:
        done = run(
            "orchestrator.evaluate", "--synthetic", first.folder / "synthetic.pt", "--dataset", "digits",
            "--networks", 1, "--depth", 2, "--width", 8, "--workdir", first.workdir,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "n = 1" in done.stdout

    def test_refuses_what_is_no_synthetic_set(self, first: Sweep, tmp_path: Path) -> None:
        broken = tmp_path / "broken.pt"
        broken.write_bytes(b"no tensor")
        common = ("--workdir", first.workdir, "--synthetic")
        assert_refused(run("orchestrator.evaluate", "--dataset", "digits", *common, broken), "broken.pt")
        assert_refused(run("orchestrator.evaluate", "--dataset", "digits", *common, tmp_path / "no.pt"), "no.pt")
        whole = first.folder / "synthetic.safetensors"
        assert_refused(run("orchestrator.evaluate", "--dataset", "cifar10", *common, whole), "digits", "cifar10")
