"""Sweeps in real processes: what a user types, in a folder of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]

# A sweep of every stage in under a minute: the digits with fewer, shorter trials.
SMALL = (
    "--space", "digits", "--trials", "4", "--experts", "2", "--concurrent", "1",
    "--set", "iterations=20", "--set", "validation_every_iterations=5", "--set", "first_rung_iterations=5",
    "--set", "validation_epochs=30", "--set", "validation_networks=1", "--set", "protocol_epochs=60",
    "--set", "full_data_epochs=2", "--networks", "2", "--final-seeds", "0",
    "--baselines", "none", "--set", "regime_epochs=30", "--set", "recover_iterations=20",
)  # fmt: skip

# What the finals of a larger one do besides.
MORE = ("--final-seeds", "2", "--baselines", "k_center,rded", "--regimes", "soft,soft_kd")


def run(module: str, *arguments: object, timeout: float = 300, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` as a user would."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def assert_refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """One line on stderr with these words, that exit code, no traceback."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in done.stderr + done.stdout


@dataclass(frozen=True)
class Sweep:
    """A finished sweep and what it said."""

    workdir: Path
    name: str
    output: str

    @property
    def folder(self) -> Path:
        return self.workdir / "sweeps" / self.name

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


def run_sweep(workdir: Path, name: str, *arguments: str) -> Sweep:
    done = run("orchestrator.sweep", *SMALL, "--workdir", workdir, "--name", name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return Sweep(workdir, name, done.stdout)


@contextmanager
def ray_cluster(monkeypatch: pytest.MonkeyPatch, *, head_cores: int) -> Iterator[Cluster]:
    """A cluster of a head with so many cores; nodes may be added to it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head_cores, "object_store_memory": 10**8})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in a worker: threads wait for one another far longer than small tensors take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of most sweeps, one for all processes of the suite: several drivers at once are what people do."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return tmp_path_factory.mktemp("runs")
    shared = tmp_path_factory.getbasetemp().parent / "runs"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="session")
def first(workdir: Path) -> Sweep:
    """A small sweep from nothing."""
    return run_once(workdir, "first")


@pytest.fixture(scope="session")
def second(first: Sweep) -> Sweep:
    """The same sweep again, in the same workdir; its finals distil too, and measure baselines, in two regimes more."""
    return run_once(first.workdir, "second", *MORE)


def run_once(workdir: Path, name: str, *arguments: str) -> Sweep:
    """Run a sweep, unless another process of the suite has done so."""
    said = workdir / f"{name}.txt"
    with FileLock(said.with_suffix(".lock")):
        if not said.exists():
            said.write_text(run_sweep(workdir, name, *arguments).output)
    return Sweep(workdir, name, said.read_text())
