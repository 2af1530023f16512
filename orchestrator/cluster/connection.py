"""The connection to an embedded or a joined Ray, and the environment of its workers. docs/ray.md, "Clusters"."""

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.exceptions import RayTaskError

import orchestrator
from orchestrator.cluster.autoscaler import is_infeasible
from orchestrator.cluster.probe import has_token
from orchestrator.cluster.resources import NODE_TIMEOUT_S, POLL_INTERVAL_S, Resources, Share, measure
from orchestrator.cluster.session_folder import session_folder
from orchestrator.cluster.signals import restored_handlers, stop_in_order
from orchestrator.errors import ClusterError, UserError
from trainables.machine import Machine
from trainables.workers.process import ALLOCATOR

__all__ = ["code_environment", "connected", "result_of"]


_log = logging.getLogger(__name__)
OBJECT_STORE_BYTES = 200 * 2**20  # experts and datasets are memory-mapped files, not objects


@contextmanager
def connected(
    address: str, gpus_per_trial: Share, concurrent: int | None = None, workers: int | None = None
) -> Iterator[Resources]:
    """Start an embedded Ray (`local`) or join a cluster that answers (see `probe`), and disconnect at the end.

    Args:
        address: Ray's address: local, auto or HOST:PORT.
        gpus_per_trial: GPUs of a worker.
        concurrent: Workers to request from a joined cluster, even if fewer fit; None: those that fit.
        workers: Workers of an embedded Ray, one a CPU core of its; None: as many as this process was granted cores.

    Raises:
        UserError: No node of this cluster has or can have room for a worker.
        ClusterError: No node with room for a worker started in time.
    """
    inside = ray.is_initialized()  # a command that `client` sent to the cluster is connected already
    with restored_handlers():
        if not inside:
            _start_or_join(address, workers)
        stop_in_order()  # after Ray, which installs a handler of its own
        try:
            yield _resources(address, gpus_per_trial, concurrent)
        finally:
            if not inside:
                ray.shutdown()


def result_of(reference: Any) -> Any:
    """Return a worker's result, or raise the worker's own error: the message of Ray's error is a whole traceback."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def code_environment() -> dict[str, Any]:
    """Return the runtime environment of a joined cluster's workers: our three packages, without the working directory.

    The working directory may hold large runs, which Ray would upload.
    """
    root = Path(orchestrator.__file__).resolve().parents[1]
    packages = [str(root / name) for name in ("orchestrator", "trainables", "search_spaces")]
    return {"py_modules": packages, "env_vars": ALLOCATOR}


def _start_or_join(address: str, workers: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    ray_worker.print_to_stdstream = _log_for_ray
    if address != "local":
        ray.init(address, runtime_env=code_environment(), **quiet)
        return
    for name, value in ALLOCATOR.items():  # workers inherit it
        os.environ.setdefault(name, value)
    folder = session_folder()
    try:
        with _loopback_only(), _own_token():
            ray.init(
                address,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                num_cpus=workers or Machine().cores().amount,
                _temp_dir=folder,
                **quiet,
            )
    except Exception as error:  # Ray raises plain exceptions, such as at its time limit on a busy machine
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ClusterError(
            f"Ray did not start on this machine ({reason}); its logs are in {folder}; run the same command again"
        ) from error


def _log_for_ray(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Log, in place of Ray's printing it, what a raylet publishes: pages about the death of a process or of itself.

    `log_to_driver=False` does not cover it. Whoever waits for the process says what happened in a line.
    """
    _log.info("%s", "\n".join(data["lines"]))


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Make a starting Ray listen on 127.0.0.1 only, as it does by default on macOS and Windows.

    `_node_ip_address="127.0.0.1"` has no effect: Ray replaces it by the machine's own address.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_token() -> Iterator[None]:
    """Let a starting Ray use a token of its own where none exists and Ray cannot store one in the home folder."""
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} or has_token() or _is_home_writable():
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # its processes inherit it, and keep it
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]


def _is_home_writable() -> bool:
    try:
        with tempfile.TemporaryFile(dir=Path.home()):
            return True
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False


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
    """Request a node with room for a worker from the cluster's autoscaler, wait for it, and return the resources then.

    Raises:
        UserError: No node of this cluster can have room for a worker.
        ClusterError: No such node started within `NODE_TIMEOUT_S`.
    """
    click.echo(f"No node of Ray at {address} has room for a worker: asking its autoscaler for one", err=True)
    deadline = time.monotonic() + NODE_TIMEOUT_S
    with offered.requested(1):
        while time.monotonic() < deadline:
            offered = measure(offered.gpus_per_trial)
            if offered.room:
                return offered
            if is_infeasible(offered.per_worker):
                raise _no_room(address, offered.gpus_per_trial)
            time.sleep(POLL_INTERVAL_S)
    raise ClusterError(
        f"no node with room for a worker ({offered.per_worker}) joined Ray at {address} within "
        f"{NODE_TIMEOUT_S / 60:.0f} minutes; `ray status` on the cluster shows what its autoscaler does"
    )


def _no_room(address: str, gpus_per_trial: float) -> UserError:
    if gpus_per_trial:
        return UserError(
            f"--gpus-per-trial {gpus_per_trial:g} needs a GPU, and Ray at {address} has none and can start none; "
            "leave the option out"
        )
    return UserError(f"Ray at {address} has no CPU core for a worker, and can start none; add a node with one")
