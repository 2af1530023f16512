"""The resources of a command: an embedded Ray with the workers for which this machine has room, or a joined cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from rich.console import Console

from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.errors import UserError
from orchestrator.planning.plan import make_plan
from orchestrator.planning.workers import workers_here
from orchestrator.state.settings import SweepSettings

__all__ = ["resources_of"]


@contextmanager
def resources_of(settings: SweepSettings, console: Console) -> Iterator[Resources]:
    """Connect to the settings' Ray and disconnect at the end; prints how many workers an embedded Ray gets, and why.

    A Ray that runs already in this process is used as it is.

    Raises:
        UserError: No node has or can have room for a worker, `cpus` is given and Ray runs already, or the workers'
            device does not have the precision.
        ClusterError: No node with room for a worker started in time.
    """
    count = None
    if settings.address == "local" and ray.is_initialized():
        if settings.cpus is not None:
            raise UserError("cpus is for a Ray that the sweep starts, and Ray runs already; leave it out")
    elif settings.address == "local":
        workers = workers_here(settings, make_plan(settings).worker_bytes)
        console.print(f"Workers at once: {workers}", soft_wrap=True)
        count = workers.count
    with connected(settings.address, settings.gpus_per_trial, settings.concurrent, count) as resources:
        if settings.arithmetic.tf32 and resources.device == "cpu":
            raise UserError("precision=tf32 needs a GPU, and the workers run on CPUs; set precision to fp32 or bf16")
        yield resources
