"""Commands at a `ray://` address: they run on the cluster, because a client cannot drive Tune from outside.

From a client Tune would move the search to the cluster by itself, without the callbacks' connections and without the
terminal. So the whole command runs on the cluster, and its output is printed here. Its workdir and data are paths or
URIs that the cluster reaches.
"""

import importlib
import logging
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.cluster.connection import code_environment, result_of
from orchestrator.cluster.losses import is_lost, reason_of
from orchestrator.cluster.relay import Mailbox, forwarded, print_new
from orchestrator.errors import ClusterError
from orchestrator.state.settings import SweepSettings

__all__ = ["run_on_cluster"]

CONNECTIONS = 3
"""Attempts to connect."""
POLL_S = 0.5
"""Seconds between two looks at the command's output."""


def run_on_cluster(module: str, function: str, settings: SweepSettings, remedy: str) -> None:
    """Run a function on the cluster at the settings' address; its own errors are raised here.

    Args:
        module: Name of the function's module.
        function: Name of the function, which takes the settings.
        settings: The settings.
        remedy: How to continue if the driver's process on the cluster is lost: "resume with: COMMAND".

    Raises:
        ClusterError: Ray at the address accepts no client, or the connection or the driver's process was lost.
    """
    remote_settings = replace(
        settings,
        address="auto",
        workdir=settings.workdir.absolute(),
        data=None if settings.data is None else settings.data.absolute(),
    )
    _connect(settings.address)
    task = None
    try:
        mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
        task = ray.remote(_call).options(num_cpus=0, max_retries=0).remote(module, function, remote_settings, mailbox)
        running = [task]
        while running:
            _, running = ray.wait(running, timeout=POLL_S)
            print_new(mailbox)
        result_of(task)
    except RayError as error:
        if not is_lost(error):
            raise
        raise ClusterError(f"the driver's process on the cluster was lost: {reason_of(error)}; {remedy}") from error
    except ConnectionError as error:  # Ray's client has lost its server
        raise ClusterError(f"the connection to Ray at {settings.address} was lost; {remedy}") from error
    except KeyboardInterrupt:
        if task is not None:
            ray.cancel(task)
        raise
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    """Connect as a client; Ray's client server starts a process per client, which sometimes fails on a busy head.

    Raises:
        ClusterError: All attempts failed.
    """
    for attempt in range(1, CONNECTIONS + 1):
        try:
            # Without the workers' logs, as on this machine: the command's own output comes through a `relay`.
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=code_environment())
        except (RuntimeError, ConnectionError) as error:
            if attempt == CONNECTIONS:
                reason = str(error).strip().splitlines()[-1]
                raise ClusterError(f"Ray at {address} accepts no client ({reason}); try again") from error
        else:
            return


def _call(module: str, function: str, settings: SweepSettings, mailbox: Any) -> None:
    with forwarded(mailbox):
        getattr(importlib.import_module(module), function)(replace(settings, workdir=settings.workdir.here()))
