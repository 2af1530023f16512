"""The Ray cluster: embedded or joined; what it offers, and what a worker is given. RAY.md."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import ray
from ray._private import ray_constants
from ray.exceptions import RayError, RayTaskError

from orchestrator.autoscaler import ask_for, cannot_come, let_go
from orchestrator.errors import ClusterError, UserError
from trainables.allocator import ALLOCATOR

__all__ = ["AUTO", "Resources", "Share", "code_environment", "connected", "measure", "result_of"]

AUTO = "auto"
Share = float | str | None
"""GPUs of a worker as asked for; AUTO: what a trial is measured to need, and a whole one until then; None: a whole one
where one is up, else none."""

OBJECT_STORE_BYTES = 200 * 2**20  # experts and datasets are memory-mapped files, not objects
NODE_TIMEOUT_S = 900.0
"""How long a node that an autoscaler was asked for may take: clouds take minutes, and hours if they have none left."""
LOOK_AGAIN_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cluster offers, and what one worker of a sweep takes of it."""

    cpus: float
    """CPU cores of the nodes that are up; if workers need a GPU, those beside one."""
    gpus: float
    gpus_per_trial: float
    """GPUs of a trial, an expert actor or a final; 0: it runs on one CPU."""
    asked: int | None = None
    """Workers that a joined cluster is asked for at once, though fewer fit: its autoscaler may start the rest."""

    @property
    def device(self) -> str:
        """Where a worker computes: cpu or cuda."""
        return "cuda" if self.gpus_per_trial else "cpu"

    @property
    def per_worker(self) -> dict[str, float]:
        """Resources of one worker, as Tune wants them."""
        return {"CPU": 1, "GPU": self.gpus_per_trial} if self.gpus_per_trial else {"CPU": 1}

    @property
    def actor_options(self) -> dict[str, Any]:
        """Resources of one worker, as `ray.remote` wants them."""
        return {"num_cpus": 1, "num_gpus": self.gpus_per_trial}

    @property
    def room(self) -> int:
        """How many workers fit on the nodes that are up."""
        return int(min(self.cpus, self.gpus * _shares(self.gpus_per_trial)) if self.gpus_per_trial else self.cpus)

    def workers(self, limit: int | None = None) -> int:
        """Return how many workers to have at once: as many as fit or were asked for, at most `limit`, at least one."""
        most = max(self.room, self.asked or 0)
        return max(1, most if limit is None else min(most, limit))

    @contextmanager
    def requested(self, workers: int) -> Iterator[None]:
        """Ask the autoscaler at once for room for all workers of a stage, ahead of their coming.

        The request is let go as soon as there is room, and at the end: from then on the workers themselves, running and
        queued, are what the autoscaler sees, so that nodes may go one by one as a stage ends.
        """
        if workers <= measure(self.gpus_per_trial).room:
            yield
            return
        ask_for(workers, self.per_worker)
        ended = threading.Event()
        waiting = threading.Thread(target=self._let_go_when_there, args=(workers, ended), daemon=True)
        waiting.start()
        try:
            yield
        finally:
            ended.set()
            waiting.join()

    def _let_go_when_there(self, workers: int, ended: threading.Event) -> None:
        until = time.monotonic() + NODE_TIMEOUT_S
        with suppress(RayError):  # the cluster is gone, and whoever needs it will say so
            while measure(self.gpus_per_trial).room < workers and time.monotonic() < until:
                if ended.wait(LOOK_AGAIN_S):
                    break
            let_go()


def measure(gpus_per_trial: float) -> Resources:
    """Return what the nodes that are up now offer to workers, node by node: a GPU's worker needs a core beside it."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    if gpus_per_trial:
        shares = _shares(gpus_per_trial)
        cpus = sum(min(node.get("CPU", 0.0), node.get("GPU", 0.0) * shares) for node in nodes)
    return Resources(cpus=cpus, gpus=gpus, gpus_per_trial=gpus_per_trial)


def _shares(gpus_per_trial: float) -> int:
    """Return how many workers fit on one GPU: a share does not reach over two."""
    return int(1 / gpus_per_trial + 1e-9)


@contextmanager
def connected(address: str, gpus_per_trial: Share, concurrent: int | None = None) -> Iterator[Resources]:
    """Start an embedded Ray (`local`) or join a cluster that answers (see `address`), and leave it at the end.

    Args:
        address: Where Ray is.
        gpus_per_trial: GPUs of a worker.
        concurrent: Workers to ask a joined cluster for, though fewer fit; None: those that fit.

    Raises:
        UserError: A worker has no room on this cluster, and cannot have.
        ClusterError: No node that has room for a worker came in time.
    """
    inside = ray.is_initialized()  # a command that `remote` sent here is connected already
    if not inside:
        _start_or_join(address)
    previous = signal.signal(signal.SIGTERM, _stop_in_order)
    try:
        yield _resources(address, gpus_per_trial, concurrent)
    finally:
        signal.signal(signal.SIGTERM, previous)
        if not inside:
            ray.shutdown()


def result_of(reference: Any) -> Any:
    """Return what a worker found, or raise its own error in place of Ray's, which has the traceback as its message."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def code_environment() -> dict[str, Any]:
    """Return what workers elsewhere are given: our three packages, not the working directory with all its runs."""
    root = Path(__file__).resolve().parent.parent
    packages = [str(root / name) for name in ("orchestrator", "trainables", "search_spaces")]
    return {"py_modules": packages, "env_vars": ALLOCATOR}


def _start_or_join(address: str) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "local":
        ray.init(address, runtime_env=code_environment(), **quiet)
        return
    for name, value in ALLOCATOR.items():  # workers inherit it
        os.environ.setdefault(name, value)
    with _loopback_only():
        ray.init(address, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Have a Ray that starts listen on 127.0.0.1 alone, as it does by itself on macOS and Windows.

    `_node_ip_address="127.0.0.1"` does not do it: Ray replaces it by the machine's own address.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _stop_in_order(*_: Any) -> None:
    """Take SIGTERM, with which Kubernetes stops, like Ctrl-C: on the signal itself Tune aborts and loses its state."""
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        raise KeyboardInterrupt
    os.kill(os.getpid(), signal.SIGUSR1)  # Tune is running, and this is its signal to stop in order


def _resources(address: str, share: Share, concurrent: int | None) -> Resources:
    if isinstance(share, str):  # AUTO
        share = 1.0
    gpus_per_trial = share if share is not None else 1.0 if measure(0).gpus else 0.0
    offered = measure(gpus_per_trial)
    if not offered.room and address == "local":
        raise _no_room(address, gpus_per_trial)
    if not offered.room:
        offered = _first_node(address, offered)
    return Resources(
        cpus=offered.cpus,
        gpus=offered.gpus,
        gpus_per_trial=gpus_per_trial,
        asked=None if address == "local" else concurrent,
    )


def _first_node(address: str, offered: Resources) -> Resources:
    """Wait until a node has room for a worker, on a cluster where only an autoscaler could start one."""
    click.echo(f"No node of Ray at {address} has room for a worker: asking its autoscaler for one", err=True)
    until = time.monotonic() + NODE_TIMEOUT_S
    with offered.requested(1):
        while time.monotonic() < until:
            offered = measure(offered.gpus_per_trial)
            if offered.room:
                return offered
            if cannot_come(offered.per_worker):
                raise _no_room(address, offered.gpus_per_trial)
            time.sleep(LOOK_AGAIN_S)
    raise ClusterError(
        f"no node with room for a worker ({offered.per_worker}) came to Ray at {address} within "
        f"{NODE_TIMEOUT_S / 60:.0f} minutes; `ray status` there says what its autoscaler does"
    )


def _no_room(address: str, gpus_per_trial: float) -> UserError:
    if gpus_per_trial:
        return UserError(
            f"--gpus-per-trial {gpus_per_trial:g} needs a GPU, and Ray at {address} has none and can start none; "
            "leave it out"
        )
    return UserError(f"Ray at {address} has no CPU core for a worker, and can start none; give it a node")
