"""Commands at a `ray://` address: they run on the cluster, because a client cannot drive Tune from outside.

Tune moves the search to the cluster by itself then, without the callbacks' connections and without the terminal. So the
whole command goes there, and its lines come back. Its workdir and data are paths or URIs that the cluster reaches.
"""

import importlib
import logging
from dataclasses import replace
from typing import Any

import ray

from orchestrator.cluster import code_environment, result_of
from orchestrator.errors import ClusterError
from orchestrator.settings import SweepSettings

__all__ = ["run_on_cluster"]

CONNECTIONS = 3
"""How often a connection is tried."""


def run_on_cluster(module: str, function: str, settings: SweepSettings) -> None:
    """Run a function of ours that takes settings on the cluster at their address; its own errors are raised here."""
    there = replace(
        settings,
        address="auto",
        workdir=settings.workdir.absolute(),
        data=None if settings.data is None else settings.data.absolute(),
    )
    _connect(settings.address)
    task = None
    try:
        task = ray.remote(_call).options(num_cpus=0, max_retries=0).remote(module, function, there)
        result_of(task)
    except KeyboardInterrupt:
        if task is not None:
            ray.cancel(task)
        raise
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Connect as a client; Ray's client server starts a process for each, which now and then fails on a busy head.

    Raises:
        ClusterError: It failed each time.
    """
    for attempt in range(1, CONNECTIONS + 1):
        try:
            ray.init(address, logging_level=logging.ERROR, runtime_env=code_environment())
        except (RuntimeError, ConnectionError) as error:
            if attempt == CONNECTIONS:
                reason = str(error).strip().splitlines()[-1]
                raise ClusterError(f"Ray at {address} takes no client ({reason}); try again") from error
        else:
            return


def _call(module: str, function: str, settings: SweepSettings) -> Any:
    getattr(importlib.import_module(module), function)(replace(settings, workdir=settings.workdir.here()))
