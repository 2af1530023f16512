"""Sweeps on a cluster that grows: Ray's own autoscaler, with nodes that are processes of this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.processes import run, start
from tests.support.servers import free_port
from tests.support.sweeps import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.rare]

IDLE_S = 20  # longer than a busy machine takes to start a worker on a new node, which counts as idle until then
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
HEAD, CPU_NODE, GPU_NODE = "head", "cpu", "gpu"


def configuration(port: int) -> dict[str, Any]:
    """What `ray up` would give the autoscaler: a head without cores, two nodes with one, one with a declared GPU."""

    def node(most: int, **resources: int) -> dict[str, Any]:
        return {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}

    empty: dict[str, Any] = {key: {} for key in ("file_mounts", "auth", "docker")}
    for name in ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"):
        empty[f"{name}_commands"] = []
    return empty | {
        "cluster_name": "growing",
        "max_workers": 3,
        "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 10,
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: node(0, CPU=0),
            CPU_NODE: node(2, CPU=1, object_store_memory=100_000_000),
            GPU_NODE: node(1, CPU=2, GPU=1, object_store_memory=100_000_000),
        },
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "gcs_address": f"127.0.0.1:{port}",
        },
    }


@contextmanager
def head(*options: object, port: int, **environment: str) -> Iterator[str]:
    """A head without a core for work, in a process group of its own, and its address."""
    folder = Path("/tmp") / f"mdatm-{port}"  # Ray's sockets need a short path
    process = start(
        Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=0",
        "--include-dashboard=false", f"--temp-dir={folder}", "--object-store-memory=100000000", *options,
        AUTOSCALER_UPDATE_INTERVAL_S="1", **ENVIRONMENT, **environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any("Ray runtime started" in line for line in process.stdout)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster with an autoscaler, and no node but its head."""
    port = free_port()
    file = tmp_path_factory.mktemp("cluster") / "cluster.json"
    file.write_text(json.dumps(configuration(port)))
    with head(f"--autoscaling-config={file}", port=port, RAY_FAKE_CLUSTER="1") as address:
        yield address


# Prints, twice a second, how many nodes the cluster has beside its head, and how many of those had work of a class so
# far: a process of its own, because a process that has joined one Ray can hardly join another.
WATCH = """
import json, sys, time, ray
from ray._private.state import actors
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
mine, used = ray.get_runtime_context().get_node_id(), {}
while True:
    for actor in actors().values():
        node = actor["Address"]["NodeID"]
        if node and node != mine:
            used.setdefault(actor["ActorClassName"], set()).add(node)
    nodes = sum(node["Alive"] for node in ray.nodes()) - 1
    print(json.dumps({"nodes": nodes, "used": {name: len(there) for name, there in used.items()}}), flush=True)
    time.sleep(0.5)
"""


@contextmanager
def watched(address: str) -> Iterator[Iterator[dict[str, Any]]]:
    """What a watcher of the cluster sees."""
    process = start(sys.executable, "-c", WATCH, address)
    assert process.stdout is not None
    try:
        yield (json.loads(line) for line in process.stdout if line.startswith("{"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_sweep_gets_the_nodes_that_it_asks_for_and_they_go_when_it_has_ended(growing: str, tmp_path: Path) -> None:
    with watched(growing) as sights:
        assert next(sights)["nodes"] == 0
        sweep = start(
            sys.executable, "-m", "orchestrator.sweep", *SMALL, "--trials", 2,
            "--concurrent", 2, "--workdir", tmp_path, "--name", "grown", "--address", growing,
        )  # fmt: skip
        seen = []
        try:
            for sight in sights:
                seen.append(sight)
                if sweep.poll() is not None:
                    break
        finally:
            if sweep.poll() is None:
                os.killpg(sweep.pid, signal.SIGKILL)
        assert sweep.stdout is not None
        said = sweep.stdout.read()
        assert sweep.returncode == 0, said
        assert "asking its autoscaler for one" in said
        assert max(sight["nodes"] for sight in seen) >= 2, "asked for 2 at once where none fits"
        used = seen[-1]["used"]
        assert used["ExpertActor"] >= 1
        assert sum(nodes for name, nodes in used.items() if name.endswith("Trainable")) >= 2, "trials ran on both"
        result = json.loads((tmp_path / "sweeps" / "grown" / "result.json").read_text())
        assert sum(result["trials"].values()) == 2
        assert any(sight["nodes"] == 0 for sight in sights), "idle nodes are removed"


# Connects as a sweep does, and prints what it was given.
CONNECT = """
import json, sys
from orchestrator.cluster.connection import connected
share = float(sys.argv[2]) or None
with connected(sys.argv[1], share, concurrent=5) as resources:
    before = resources.room
    with resources.requested(int(sys.argv[3])):
        import time, orchestrator.cluster.connection as cluster
        until = time.monotonic() + 60
        while (now := cluster.measure(resources.gpus_per_trial)).room < int(sys.argv[3]) and time.monotonic() < until:
            time.sleep(0.5)
    print(json.dumps({
        "device": resources.device, "room": before, "then": now.room, "workers": resources.workers(),
        "at most 3": resources.workers(3),
    }))
"""


def connect(address: str, share: float, wanted: int) -> dict[str, Any]:
    command = [sys.executable, "-c", CONNECT, address, str(share), str(wanted)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_room_is_asked_for_ahead_of_need_and_let_go(growing: str) -> None:
    with watched(growing) as sights:
        assert any(sight["nodes"] == 0 for sight in sights)
        given = connect(growing, 0, 2)
        assert given["device"] == "cpu" and given["then"] >= 2
        assert any(sight["nodes"] >= 2 for sight in sights)
        assert any(sight["nodes"] == 0 for sight in sights), "the request went with the one who asked"


def test_a_gpu_that_is_not_there_yet_is_started_and_shared(growing: str) -> None:
    given = connect(growing, 0.5, 2)
    assert given == {"device": "cuda", "room": 2, "then": 2, "workers": 5, "at most 3": 3}


@pytest.mark.parametrize("version", ["0", "1"], ids=["v1", "v2"])
def test_a_gpu_on_a_cluster_that_cannot_grow_is_refused_soon(version: str, tmp_path: Path) -> None:
    with head(port=free_port(), RAY_enable_autoscaler_v2=version) as address:
        done = run(
            "orchestrator.sweep",
            *SMALL,
            "--gpus-per-trial",
            1,
            "--workdir",
            tmp_path,
            "--address",
            address,
            timeout=120,
        )
    assert done.returncode == 2, done.stderr
    assert f"--gpus-per-trial 1 needs a GPU, and Ray at {address} has none and can start none" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "sweeps").exists()
