"""The expert stage as a command: its process is killed, a node of its cluster goes, its disk is full."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from ray.cluster_utils import Cluster
from rich.console import Console

from orchestrator.cluster.resources import Resources
from orchestrator.errors import ClusterError
from orchestrator.stages.experts import ensure_experts
from orchestrator.stages.inputs import prepare_inputs
from orchestrator.state.space import load_space
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings
from tests.support.disks import small_disk
from tests.support.losses import patience
from tests.support.paths import ROOT
from tests.support.processes import assert_refused, run, wait_until
from tests.support.ray_clusters import ray_cluster
from trainables.storage.atomic import is_disk_full, write_atomically

# Longer than the space needs, so that there is a middle to disturb.
HORIZON = 48
OVERRIDES = {"horizon_epochs": HORIZON, "expert_momentum": 0.9}
COMMAND = ("--space", "digits", *(word for key, value in OVERRIDES.items() for word in ("--set", f"{key}={value}")))


def snapshots(workdir: Path) -> dict[str, int]:
    """Snapshots of each expert file in a workdir."""
    return {
        path.name: pa.ipc.open_file(pa.memory_map(str(path))).num_record_batches
        for path in workdir.glob("experts/*/expert-*.arrow")
    }


def manifest(workdir: Path) -> dict[str, Any]:
    (path,) = workdir.glob("experts/*/manifest.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def assert_same_bits(found: Path, undisturbed: Path, experts: int) -> None:
    """The files are equal to the last bit: snapshots, losses, momentum buffers, and their checksums."""
    listed = manifest(undisturbed)["experts"]
    assert manifest(found)["experts"] == {str(expert): listed[str(expert)] for expert in range(experts)}
    for expert in range(experts):
        (one,), (other,) = (folder.glob(f"experts/*/expert-000{expert}.arrow") for folder in (found, undisturbed))
        assert one.read_bytes() == other.read_bytes()
    assert list(found.glob("experts/*/.*.partial")) == []


def went_on_from(said: str) -> int:
    """Epochs that the command says it need not train."""
    found = re.search(r"^Resuming from (\d+) of \d+ epochs on disk$", said, flags=re.MULTILINE)
    assert found, said
    return int(found[1])


@contextmanager
def training(workdir: Path, experts: int, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command as a process that is killed if it is still there at the end."""
    command = [sys.executable, "-m", "orchestrator.experts", *COMMAND, "--experts", experts, "--workdir", workdir]
    process = subprocess.Popen(
        list(map(str, [*command, *arguments])), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    done = run("orchestrator.experts", *COMMAND, "--experts", 3, "--workdir", workdir)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of one CPU; nodes may be added to it."""
    with ray_cluster(monkeypatch, head_cores=1) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.rare
def test_a_node_that_goes_is_done_without(undisturbed: Path, cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    with training(tmp_path, 3, "--address", cluster.address) as process:
        wait_until(process, lambda: len(found := snapshots(tmp_path)) == 2 and min(found.values()) > 10)
        cluster.remove_node(node, allow_graceful=False)
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("Another expert actor resumes: expert ") == 1, said
    assert "3 trained, 0 reused" in said
    assert_same_bits(tmp_path, undisturbed, 3)


@pytest.mark.slow
@pytest.mark.rare
def test_a_full_disk_is_told_and_harms_no_file(undisturbed: Path, tmp_path: Path) -> None:
    disk = tmp_path / "experts"
    with small_disk(disk, "3m"):
        done = run("orchestrator.experts", *COMMAND, "--experts", 2, "--workdir", tmp_path)
        assert_refused(
            done, f"the disk of {disk}", "is full", "MB more are needed there for expert", "run the same command again",
            code=3,
        )  # fmt: skip
        before = snapshots(tmp_path)  # every file can be read
        assert before and 1 < max(before.values()) < HORIZON + 1
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        done = run("orchestrator.experts", *COMMAND, "--experts", 2, "--workdir", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert went_on_from(done.stdout) == sum(rows - 1 for rows in before.values())
        assert_same_bits(tmp_path, undisturbed, 2)


def test_a_file_that_the_disk_has_no_room_for_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k"):
        path = tmp_path / "disk" / "file"
        path.write_bytes(b"old")
        with pytest.raises(OSError) as caught:
            write_atomically(path, lambda aside: aside.write_bytes(bytes(10**5)))
        assert is_disk_full(caught.value) and caught.value.filename == str(path)
        assert path.read_bytes() == b"old"
        assert list(path.parent.iterdir()) == [path]
    assert not is_disk_full(FileNotFoundError()) and not is_disk_full(None)


def test_a_disk_without_room_for_the_manifest_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "experts", "8m"):
        space = load_space("digits", OVERRIDES, expert_count=1)
        settings = sweep_settings(space=space, name="experts", workdir=Workdir(tmp_path))
        inputs = prepare_inputs(settings, Console(file=io.StringIO()))
        inputs.store.write(0, [torch.zeros(inputs.network.parameters)] * (HORIZON + 1), [0.5] * HORIZON)
        inputs.store.lock_path.touch()
        filler = tmp_path / "experts" / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        resources = Resources(cpus=1, gpus=0, gpus_per_trial=0)
        with pytest.raises(ClusterError, match=r"is full: 1 MB more are needed there for the manifest .*; free them"):
            ensure_experts(inputs, resources, Console(file=io.StringIO()), patience())
        filler.unlink()
        summary = ensure_experts(inputs, resources, Console(file=io.StringIO()), patience())
        assert (summary.trained, summary.reused) == (0, 1)
