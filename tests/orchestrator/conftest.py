"""Sweeps in real processes, and servers, that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.support.mlflow_server import MlflowServer
from tests.support.sweeps import MORE, Sweep, run_sweep


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


@pytest.fixture(scope="module")
def one_mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that is not started yet."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def mlflow_server(one_mlflow_server: MlflowServer) -> MlflowServer:
    """A running server; it takes long to start, so a test leaves it to the next."""
    one_mlflow_server.start()
    return one_mlflow_server
