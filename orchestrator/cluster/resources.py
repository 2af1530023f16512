"""The resources of a cluster and of a worker, and the number of workers that fit."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import ray
from ray.exceptions import RayError

from orchestrator.cluster.autoscaler import ask_for, cancel_request

__all__ = ["ACCELERATOR", "AUTO", "Resources", "Share", "measure"]

AUTO = "auto"
Share = float | str | None
"""GPUs of a worker as requested by the user. AUTO: the share that a trial is measured to need, and a whole GPU until
then. None: a whole GPU if a node has one, else no GPU."""
NODE_TIMEOUT_S = 900.0
"""Seconds to wait for a node from an autoscaler: clouds take minutes, and hours if they have no machine left."""
ACCELERATOR = "accelerator_type:"
"""Beginning of the name of Ray's resource on nodes with GPUs of a type."""
POLL_INTERVAL_S = 2.0
"""Seconds between two measurements while nodes start."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that a cluster offers, and those that one worker of a sweep takes."""

    cpus: float
    """CPU cores of the nodes that are up; if workers need a GPU, only cores on nodes with GPUs."""
    gpus: float
    gpus_per_trial: float
    """GPUs of a trial, an expert actor or a final; 0: it runs on one CPU."""
    gpu_types: frozenset[str] = frozenset()
    """Ray's names of the types of GPUs that are up; empty where workers have none, or Ray does not know them."""
    asked: int | None = None
    """Workers to run at once on a joined cluster, even if fewer fit: its autoscaler may start nodes for the rest."""

    @property
    def device(self) -> str:
        """The device of a worker: cpu or cuda."""
        return "cuda" if self.gpus_per_trial else "cpu"

    @property
    def per_worker(self) -> dict[str, float]:
        """Resources of one worker, in the form that Tune takes."""
        return {"CPU": 1, "GPU": self.gpus_per_trial} if self.gpus_per_trial else {"CPU": 1}

    @property
    def room(self) -> int:
        """Number of workers that fit on the nodes that are up."""
        return int(min(self.cpus, self.gpus * _shares(self.gpus_per_trial)) if self.gpus_per_trial else self.cpus)

    def workers(self, limit: int | None = None) -> int:
        """Return how many workers to run at once: as many as fit or are requested, at most `limit`, at least one."""
        available = max(self.room, self.asked or 0)
        return max(1, available if limit is None else min(available, limit))

    def now(self) -> "Resources":
        """Return these resources with what the nodes that are up now offer."""
        return replace(measure(self.gpus_per_trial), asked=self.asked)

    @contextmanager
    def requested(self, workers: int) -> Iterator[None]:
        """Request room for all workers of a stage from the autoscaler, before the workers start.

        The request is cancelled as soon as the nodes have room, and at the latest when the context ends. From then on
        the autoscaler sees only the workers, running and queued, so it can remove nodes one by one as a stage ends.
        """
        if workers <= measure(self.gpus_per_trial).room:
            yield
            return
        ask_for(workers, self.per_worker)
        ended = threading.Event()
        waiting = threading.Thread(target=self._cancel_when_room, args=(workers, ended), daemon=True)
        waiting.start()
        try:
            yield
        finally:
            ended.set()
            waiting.join()

    def _cancel_when_room(self, workers: int, ended: threading.Event) -> None:
        """Cancel the request once all workers have room, the stage has ended, or `NODE_TIMEOUT_S` has passed."""
        deadline = time.monotonic() + NODE_TIMEOUT_S
        with suppress(RayError):  # the cluster is lost, and the stage's own calls report that
            while measure(self.gpus_per_trial).room < workers and time.monotonic() < deadline:
                if ended.wait(POLL_INTERVAL_S):
                    break
            cancel_request()


def measure(gpus_per_trial: float) -> Resources:
    """Return the resources that the nodes that are up now offer to workers.

    Cores are counted per node: a worker on a GPU needs a core of the same node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    if gpus_per_trial:
        shares = _shares(gpus_per_trial)
        cpus = sum(min(node.get("CPU", 0.0), node.get("GPU", 0.0) * shares) for node in nodes)
        types = {kind.removeprefix(ACCELERATOR) for node in nodes for kind in node if kind.startswith(ACCELERATOR)}
        return Resources(cpus=cpus, gpus=gpus, gpus_per_trial=gpus_per_trial, gpu_types=frozenset(types))
    return Resources(cpus=cpus, gpus=gpus, gpus_per_trial=gpus_per_trial)


def _shares(gpus_per_trial: float) -> int:
    """Return how many workers fit on one GPU: a worker's share lies on one GPU."""
    return int(1 / gpus_per_trial + 1e-9)
