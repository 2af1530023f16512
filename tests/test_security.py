"""What docs/security.md promises: sockets on loopback alone, and nothing unpickled."""

import ast
import ipaddress
import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.processes import start
from tests.support.sweeps import SMALL

WINGS = ("orchestrator", "trainables", "search_spaces", "benchmarks")
SOURCES = [path for wing in WINGS for path in (ROOT / wing).rglob("*.py")]
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def faults(text: str) -> list[str]:
    """Calls and imports in a source that could execute what they read."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"line {node.lineno}: {name}" for name in names if name.split(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load"):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            safe = options.get("weights_only") == "True" or ast.unparse(node.func) == "np.load"
            if not safe or options.get("allow_pickle", "False") != "False":
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    assert faults(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load('a')",
        "import torch\ntorch.load('a', weights_only=False)",
        "import torch\ntorch.load('a', weights_only=trusted)",
        "import numpy as np\nnp.load('a', allow_pickle=True)",
        "import pickle",
        "from ray import cloudpickle\nimport cloudpickle",
    ],
)
def test_a_planted_call_is_found(text: str) -> None:
    assert faults(text) != []


@pytest.mark.slow
@pytest.mark.rare
def test_a_sweep_listens_on_loopback_alone(tmp_path: Path) -> None:
    sweep = start(
        sys.executable, "-u", "-m", "orchestrator.sweep", *SMALL, "--trials", 3, "--workdir", tmp_path, "--name", "a"
    )
    assert sweep.stdout is not None
    searching = threading.Event()

    def listen() -> None:
        assert sweep.stdout is not None
        for line in sweep.stdout:
            if line.startswith("trial-000"):
                searching.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    seen: dict[str, set[str]] = {}
    try:
        while not searching.is_set() and sweep.poll() is None:
            look(psutil.Process(sweep.pid), seen)
            searching.wait(0.5)
        look(psutil.Process(sweep.pid), seen)
    finally:
        os.killpg(sweep.pid, signal.SIGKILL)
        sweep.wait()
        reader.join()
    assert searching.is_set()
    assert {"gcs_server", "raylet"} <= set(seen) and any(name.startswith("ray::") for name in seen), seen
    for name, addresses in seen.items():
        assert all(is_loopback(address) for address in addresses), (name, addresses)


def look(process: psutil.Process, seen: dict[str, set[str]]) -> None:
    """Note the addresses on which a process and its descendants wait for others."""
    for each in [process, *process.children(recursive=True)]:
        try:
            sockets = each.net_connections(kind="inet")
            name = each.name()
        except psutil.Error:  # it has ended
            continue
        waiting = {socket.laddr.ip for socket in sockets if socket.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)}
        if waiting:
            seen.setdefault(name, set()).update(waiting)


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
