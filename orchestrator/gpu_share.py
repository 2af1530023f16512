"""`--gpus-per-trial auto`: as many trials on a GPU as the memory of one, measured, allows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from orchestrator.cluster import Resources, measure
from orchestrator.errors import UserError
from search_spaces import Space
from trainables.footprint import Footprint, measure_footprint
from trainables.memory import SPARE
from trainables.workbench import TrialWork

__all__ = ["heaviest_settings", "share_gpus", "share_of"]

_TAKE_MEMORY = ("N", "batch_syn")
_ACCELERATOR = "accelerator_type:"  # Ray's mark on a node that has GPUs of that type


def share_gpus(space: Space, resources: Resources, work: TrialWork, console: Console) -> Resources:
    """Measure what a trial takes of each type of GPU that is up, and return what a worker is to take from now on.

    A type that comes later is not measured: the trials' share is then that of the types before.

    Raises:
        UserError: A trial takes more than a whole GPU, or its settings cannot work.
    """
    measured = _measure(heaviest_settings(space), work)
    share = share_of(measured)
    for each in measured:
        console.print(
            f"A trial takes {each.trial_bytes / 2**30:.1f} of {each.gpu_bytes / 2**30:.1f} GiB of {each.gpu}: "
            f"--gpus-per-trial {share:g}",
            markup=False,
        )
    return replace(measure(share), asked=resources.asked)


def heaviest_settings(space: Space) -> dict[str, Any]:
    """Return the point of a space that takes most memory: trial 0 with the largest N and batch."""
    if space.variants:
        return max(map(space.resolve, space.points()), key=lambda point: (point["N"] * point["batch_syn"], point["N"]))
    largest = {name: max(space.searched[name].values) for name in _TAKE_MEMORY if name in space.searched}
    return space.resolve({**space.first(), **largest})


def share_of(measured: Sequence[Footprint]) -> float:
    """Return the share of a GPU with which as many trials fit on the tightest type as its memory, less a reserve, has.

    Raises:
        UserError: Not even one fits.
    """
    tightest = max(measured, key=lambda each: each.trial_bytes / each.gpu_bytes)
    if tightest.trial_bytes > tightest.gpu_bytes:
        raise UserError(f"a trial takes more memory than {tightest.gpu} has; set --memory-budget or lower batch_syn")
    trials = max(1, int(SPARE * tightest.gpu_bytes / tightest.trial_bytes))
    return math.floor(1e4 / trials) / 1e4  # Ray counts in ten-thousandths, and the sum must not exceed one


def _measure(config: dict[str, Any], work: TrialWork) -> list[Footprint]:
    up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kinds = {kind for resources in up for kind in resources if kind.startswith(_ACCELERATOR)}
    run = ray.remote(measure_footprint)
    where = [{"resources": {kind: 0.001}} for kind in sorted(kinds)] or [{}]
    try:
        measured: list[Footprint] = ray.get(
            [run.options(num_cpus=1, num_gpus=1, **each).remote(work, config) for each in where]
        )
    except RayTaskError as error:
        if type(error.cause).__name__ != "OutOfMemoryError":
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        raise UserError("a trial takes more memory than a GPU has; set --memory-budget or lower batch_syn") from error
    return measured
