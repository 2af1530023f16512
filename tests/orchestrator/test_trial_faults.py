"""What can happen to a trial in a sweep: its process, its node, its disk, MLflow's server; all of it for real."""

import json
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.tracking import MlflowClient
from ray.cluster_utils import Cluster

from tests.support.disks import small_disk
from tests.support.mlflow_server import MlflowServer
from tests.support.processes import assert_refused, end, run, wait_until
from tests.support.ray_clusters import ray_cluster
from tests.support.sweep_records import rows, tracked
from tests.support.sweeps import Sweep, begin, resume
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint

pytestmark = pytest.mark.slow


def finish(sweep: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == code, said
    return said


def trial_process(ancestor: int) -> psutil.Process | None:
    """Return the process that runs a trial below another process."""
    for process in psutil.Process(ancestor).children(recursive=True):
        try:
            if "DistillationTrial" in " ".join(process.cmdline()):
                return process
        except psutil.NoSuchProcess:
            continue
    return None


def has_checkpoint(root: Path | str, trial: int) -> bool:
    return Path(checkpoint_place(str(root), trial)).exists()


@pytest.mark.rare
def test_trials_killed_while_the_tracking_server_is_away_go_on_bit_for_bit_and_it_has_all(
    first: Sweep, mlflow_server: MlflowServer
) -> None:
    name = "trial-killed"
    sweep = begin(first.workdir, name, "--tracking-uri", mlflow_server.address)
    folder = first.workdir / "sweeps" / name / "checkpoints"
    try:
        for number in (0, 1):  # the reference trial at its first rung, and another
            wait_until(sweep, partial(has_checkpoint, folder, number))
            running: list[psutil.Process] = []  # none between two trials

            def found(running: list[psutil.Process] = running) -> bool:
                process = trial_process(sweep.pid)
                running += [] if process is None else [process]
                return bool(running)

            wait_until(sweep, found)
            running[0].kill()
            mlflow_server.stop()
        time.sleep(5)
        mlflow_server.start()
        finish(sweep)
    finally:
        end(sweep)
    killed = Sweep(first.workdir, name, "")
    assert killed.result["trials"]["failed"] == 0, rows(killed)
    assert rows(killed) == rows(first)
    assert tracked(killed) == tracked(first)
    assert killed.result["finals"] == first.result["finals"]

    place, ui = killed.result["mlflow"], ("orchestrator.ui", "--workdir", first.workdir, "--sweep", name)
    assert place["compare_url"].startswith(f"{mlflow_server.address}/#/compare-runs")
    done = run(*ui)  # and starts no server
    assert done.returncode == 0, done.stderr
    assert f"Charts of the trials: {mlflow_server.address}/#/experiments/{place['experiment_id']}/runs?" in done.stdout
    tags = MlflowClient(mlflow_server.address).get_experiment(place["experiment_id"]).tags
    assert json.loads(tags[f"mlflow.sharedViewState.{place['parent_run_id']}"])["name"] == name
    mlflow_server.stop()
    assert_refused(run(*ui), f"MLflow at {mlflow_server.address} does not show the sweep '{name}'", "refused", code=3)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster whose head, which must stay, computes nothing, and two nodes with a core each."""
    with ray_cluster(monkeypatch, head_cores=0) as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=10**8)
        yield cluster


@pytest.mark.rare
def test_a_trial_whose_node_goes_is_finished_elsewhere(first: Sweep, workers: Cluster) -> None:
    name = "node-gone"
    sweep = begin(first.workdir, name, "--address", workers.address)
    try:
        wait_until(sweep, lambda: has_checkpoint(first.workdir / "sweeps" / name / "checkpoints", 0))
        busy: list[Any] = []  # none between two trials

        def found() -> bool:
            busy.extend(filter(runs_a_trial, workers.list_all_nodes()))
            return bool(busy)

        wait_until(sweep, found)
        workers.remove_node(busy[0], allow_graceful=False)
        finish(sweep)
    finally:
        end(sweep)
    moved = Sweep(first.workdir, name, "")
    assert rows(moved) == rows(first)
    assert moved.result["finals"] == first.result["finals"]


def runs_a_trial(node: object) -> bool:
    raylets = node.all_processes["raylet"]  # type: ignore[attr-defined]
    return any(trial_process(each.process.pid) is not None for each in raylets)


@pytest.mark.rare
def test_a_full_disk_halts_the_sweep_and_it_goes_on_when_there_is_room(first: Sweep, tmp_path: Path) -> None:
    disk, ballast = tmp_path / "disk", tmp_path / "disk" / "ballast"
    name = "disk-full"
    with small_disk(disk, "8m"):
        sweep = begin(first.workdir, name, "--storage-path", disk)
        checkpoints = disk / name / "checkpoints"
        try:
            wait_until(sweep, lambda: has_checkpoint(checkpoints, 0))
            with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                while True:
                    file.write(bytes(4096))
            said = finish(sweep, code=3)
        finally:
            end(sweep)
        (line,) = [line for line in said.splitlines() if line.startswith("Error: ")]
        assert "no room for the checkpoint" in line and str(disk) in line and f"--resume {name}" in line
        assert "Traceback" not in said
        before = read_checkpoint(checkpoint_place(str(checkpoints), 0))
        assert before is not None and before["iteration"] >= 5
        ballast.unlink()
        resumed = resume(first.workdir, name)
    assert rows(resumed) == rows(first)
    assert resumed.result["finals"] == first.result["finals"]
