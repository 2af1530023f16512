"""The Ray cluster: embedded or joined; what it offers, and what a worker is given. RAY.md."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError

# Ray reads these when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` makes Ray build an environment a worker
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # MLflow and the study hold the results
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new engine prints its banner however quiet it is asked to be
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

__all__ = ["Resources", "connected"]

OBJECT_STORE_BYTES = 200 * 2**20  # experts and datasets are memory-mapped files, not objects


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cluster offers, and what one worker of a sweep takes of it."""

    cpus: float
    gpus: float
    gpus_per_trial: float
    """GPUs of a trial, an expert actor or a final; 0: it runs on one CPU."""

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

    def workers(self, limit: int | None = None) -> int:
        """Return how many workers fit at once, at most `limit`."""
        fit = int(min(self.cpus, self.gpus / self.gpus_per_trial) if self.gpus_per_trial else self.cpus)
        return max(1, fit if limit is None else min(fit, limit))


@contextmanager
def connected(address: str, gpus_per_trial: float | None) -> Iterator[Resources]:
    """Start an embedded Ray (`local`) or join a cluster that answers (see `address`), and leave it at the end.

    Raises:
        UserError: GPUs are asked of a cluster that has none.
    """
    if address == "local":
        options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        # Workers elsewhere get our three packages, not the working directory with its gigabytes of runs.
        root = Path(__file__).resolve().parent.parent
        packages = [str(root / name) for name in ("orchestrator", "trainables", "search_spaces")]
        options = {"runtime_env": {"py_modules": packages}}
    ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    # Kubernetes stops with SIGTERM, on which Tune aborts and loses its state; SIGUSR1 makes it stop in order.
    previous = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        offered = ray.cluster_resources()
        yield _resources(offered.get("CPU", 0.0), offered.get("GPU", 0.0), gpus_per_trial, address)
    finally:
        signal.signal(signal.SIGTERM, previous)
        ray.shutdown()


def _resources(cpus: float, gpus: float, gpus_per_trial: float | None, address: str) -> Resources:
    if gpus_per_trial and not gpus:
        raise UserError(f"--gpus-per-trial {gpus_per_trial:g} needs a GPU, and Ray at {address} has none; leave it out")
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if gpus else 0.0
    if gpus_per_trial > 1 or (gpus_per_trial and gpus_per_trial > gpus):
        raise UserError(f"--gpus-per-trial is a share of one GPU, larger than 0 and at most 1, not {gpus_per_trial:g}")
    return Resources(cpus=cpus, gpus=gpus, gpus_per_trial=gpus_per_trial)
