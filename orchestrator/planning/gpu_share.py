"""`--gpus-per-trial auto`: as many trials on a GPU as the measured memory of one trial allows."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import ACCELERATOR, Resources, measure
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.errors import GpuMemoryError, UserError
from search_spaces import Space
from trainables.distillation.micro_batches import SPARE
from trainables.workers.footprint import Footprint, measure_footprint
from trainables.workers.workbench import TrialWork

__all__ = ["heaviest_settings", "share_gpus", "share_of"]

_TAKE_MEMORY = ("N", "batch_syn")


def share_gpus(space: Space, resources: Resources, work: TrialWork, console: Console, patience: Patience) -> Resources:
    """Measure a trial's memory on every type of GPU that is up, and return the resources with the share that fits.

    A type that joins later is not measured; its trials have the share of the measured types.

    Raises:
        UserError: A trial takes more than a whole GPU, or its settings cannot work.
        ClusterError: Processes were lost for longer than the patience.
    """
    _, own = space.split(heaviest_settings(space))
    measured = _measure(own, resources, work, patience)
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


def _measure(own: dict[str, Any], resources: Resources, work: TrialWork, patience: Patience) -> list[Footprint]:
    up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    kinds = {kind for offered in up for kind in offered if kind.startswith(ACCELERATOR)}
    whole = replace(resources, gpus_per_trial=1)
    tasks = {}
    for kind in sorted(kinds) or [""]:
        placed = remote_task(measure_footprint, whole, on={kind: 0.001} if kind else None)
        name = f"the measurement of a trial on {kind.removeprefix(ACCELERATOR) or 'a GPU'}"
        tasks[kind] = Task(name, partial(placed.remote, work, own))
    measured: dict[str, Footprint] = {}
    try:
        run_tasks(tasks, resources, patience, measured.__setitem__)
    except GpuMemoryError as error:
        raise UserError("a trial takes more memory than a GPU has; set --memory-budget or lower batch_syn") from error
    return [measured[kind] for kind in tasks]
