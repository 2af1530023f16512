"""`--gpus-per-trial auto`: as many trials on a GPU as the measured memory of one trial allows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from orchestrator.cluster.resources import Resources, measure
from orchestrator.errors import UserError
from search_spaces import Space
from trainables.distillation.micro_batches import SPARE
from trainables.workers.footprint import Footprint, measure_footprint
from trainables.workers.workbench import TrialWork

__all__ = ["heaviest_settings", "share_gpus", "share_of"]

_TAKE_MEMORY = ("N", "batch_syn")
_ACCELERATOR = "accelerator_type:"  # prefix of Ray's resource on nodes with GPUs of a type


def share_gpus(space: Space, resources: Resources, work: TrialWork, console: Console) -> Resources:
    """Measure a trial's memory on every type of GPU that is up, and return the resources with the share that fits.

    A type that joins later is not measured; its trials have the share of the measured types.

    Raises:
        UserError: A trial takes more than a whole GPU, or its settings cannot work.
    """
    _, own = space.split(heaviest_settings(space))
    measured = _measure(own, work)
    share = share_of(measured)
    for footprint in measured:
        console.print(
            f"A trial takes {footprint.trial_bytes / 2**30:.1f} of {footprint.gpu_bytes / 2**30:.1f} GiB "
            f"of {footprint.gpu}: "
            f"--gpus-per-trial {share:g}"
        )
    return replace(measure(share), asked=resources.asked)


def heaviest_settings(space: Space) -> dict[str, Any]:
    """Return the point of a space that needs most memory: trial 0 with the largest N and batch."""
    return max(space.extremes(_TAKE_MEMORY), key=lambda point: (point["N"] * point["batch_syn"], point["N"]))


def share_of(measured: Sequence[Footprint]) -> float:
    """Return the share of a GPU for one trial, so that trials fill the tightest type's memory less a reserve.

    Raises:
        UserError: Not even one trial fits.
    """
    tightest = max(measured, key=lambda footprint: footprint.trial_bytes / footprint.gpu_bytes)
    if tightest.trial_bytes > tightest.gpu_bytes:
        raise UserError(f"a trial takes more memory than {tightest.gpu} has; set --memory-budget or lower batch_syn")
    trials = max(1, int(SPARE * tightest.gpu_bytes / tightest.trial_bytes))
    return math.floor(1e4 / trials) / 1e4  # Ray counts in ten-thousandths, and the sum must not exceed one


def _measure(own: dict[str, Any], work: TrialWork) -> list[Footprint]:
    up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kinds = {kind for resources in up for kind in resources if kind.startswith(_ACCELERATOR)}
    run = ray.remote(measure_footprint)
    placements = [{"resources": {kind: 0.001}} for kind in sorted(kinds)] or [{}]
    try:
        measured: list[Footprint] = ray.get(
            [run.options(num_cpus=1, num_gpus=1, **placement).remote(work, own) for placement in placements]
        )
    except RayTaskError as error:
        if type(error.cause).__name__ != "OutOfMemoryError":
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        raise UserError("a trial takes more memory than a GPU has; set --memory-budget or lower batch_syn") from error
    return measured
