"""Work as Ray takes it: every function and class that a worker runs is given to Ray here. docs/ray.md, "Processes".

A task on a GPU has a process of its own, which ends with the task: it would keep its CUDA context and its cached memory
beside the next worker of that GPU, and CUDA would stay on the GPU on which the process began. Tasks on CPUs share
processes, because the start of one takes seconds. An actor has its own process on either device.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.cluster.resources import Resources

__all__ = ["remote_actor", "remote_task"]


def remote_task(function: Callable[..., Any], resources: Resources, *, on: dict[str, float] | None = None) -> Any:
    """Return a function as a Ray task with the resources of one worker; `.remote(…)` starts it.

    Ray would start a lost task again without a word, so it may not; see `run_tasks`.

    Args:
        function: The function.
        resources: Resources of one worker.
        on: Further resources that choose the node, by their names in Ray.
    """
    remote = _remote_function(function, own_process=bool(resources.gpus_per_trial))
    return remote.options(num_cpus=1, num_gpus=resources.gpus_per_trial, max_retries=0, resources=on)


def remote_actor(actor: type, resources: Resources, *, group: PlacementGroup | None = None) -> Any:
    """Return a class as a Ray actor with the resources of one worker; a lost actor is not restarted.

    Args:
        actor: The class.
        resources: Resources of one worker.
        group: Where it must run; None: on any node.
    """
    strategy = None if group is None else PlacementGroupSchedulingStrategy(placement_group=group)
    return _remote_class(actor).options(num_cpus=1, num_gpus=resources.gpus_per_trial, scheduling_strategy=strategy)


@cache  # Ray exports every such object as another function
def _remote_function(function: Callable[..., Any], *, own_process: bool) -> Any:
    """Return a Ray function; `.options()` takes GPUs, but not the number of calls after which a process ends."""
    return ray.remote(max_calls=1)(function) if own_process else ray.remote(function)


@cache
def _remote_class(actor: type) -> Any:
    return ray.remote(actor)
