"""The Ray cluster: embedded or joined; what it offers, and what a worker is given. RAY.md."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import UserError

# Ray reads these when it is imported.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else `uv run` makes Ray build an environment a worker
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # MLflow and the study hold the results
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

__all__ = ["Resources", "connected"]

ANSWER_TIMEOUT_S = 5.0
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
    """Start an embedded Ray (`local`) or join a cluster, and leave it at the end.

    Raises:
        UserError: No cluster answers at the address, or GPUs are asked of one that has none.
    """
    _check_answers(address)
    if address == "local":
        options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    else:
        if (Path.home() / ".ray" / "auth_token").exists():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Workers elsewhere get our three packages, not the working directory with its gigabytes of runs.
        root = Path(__file__).resolve().parent.parent
        packages = [str(root / name) for name in ("orchestrator", "trainables", "search_spaces")]
        options = {"runtime_env": {"py_modules": packages}}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"no Ray cluster answers at --address {address} ({reason}); use local, or start it") from error
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


def _check_answers(address: str) -> None:
    """Refuse an address on which nothing listens, at once: Ray itself would wait for minutes."""
    if address in ("local", "auto"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port or 10001
    except ValueError as error:
        raise UserError(f"--address is local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}") from error
    if not host or (parts.scheme not in ("", "ray")):
        raise UserError(f"--address is local, auto, HOST:PORT or ray://HOST:PORT, not {address!r}")
    try:
        socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(f"no Ray cluster answers at --address {address} ({error}); use local, or start it") from error
