"""`--gpus-per-trial auto`: as many trials on a GPU as its memory allows and as pay.

A trial that fills a GPU takes five times as long beside four others. So both its memory and its time beside others are
measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import ray
from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import ACCELERATOR, Resources, measure
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.errors import GpuMemoryError, UserError
from orchestrator.planning.shared_gpu import seconds_together, share_of_one
from orchestrator.state.gpu_figures import GpuFigures
from orchestrator.state.progress import Progress
from search_spaces import Space
from trainables.at_once import double_while_worthwhile
from trainables.distillation.micro_batches import SPARE
from trainables.workers.footprint import Footprint, measure_footprint
from trainables.workers.workbench import TrialWork

__all__ = ["heaviest_settings", "share_gpus", "share_of", "trials_that_fit"]

_TAKE_MEMORY = ("N", "batch_syn")


def share_gpus(
    space: Space, resources: Resources, work: TrialWork, progress: Progress, console: Console, patience: Patience
) -> Resources:
    """Measure the largest trial on every type of GPU that is up, and return the resources with the share that pays.

    What was measured is recorded, so that a resumed sweep decides alike on the same types. A type that joins during the
    search is not measured; its trials have the share of the measured types.

    Raises:
        UserError: A trial takes more than a whole GPU, or its settings cannot work.
        ClusterError: Processes were lost for longer than the patience.
    """
    _, own = space.split(heaviest_settings(space))
    kinds = sorted({kind for node in _nodes() for kind in node if kind.startswith(ACCELERATOR)}) or [""]
    for kind, footprint in _footprints([kind for kind in kinds if kind not in progress.gpus], own, resources, work,
                                       patience).items():  # fmt: skip
        progress.record_gpu(kind, _timed(kind, footprint, own, resources, work, patience))
    measured = [progress.gpus[kind] for kind in kinds]
    share = share_of(measured)
    for figures in measured:
        times = ", ".join(f"{each:.3g} s with {trials}" for trials, each in figures.seconds.items())
        console.print(
            f"A trial takes {figures.trial_bytes / 2**30:.1f} of {figures.gpu_bytes / 2**30:.1f} GiB of {figures.gpu}, "
            f"and an iteration {times} at once: --gpus-per-trial {share:g}",
            soft_wrap=True,
        )
    return replace(measure(share), asked=resources.asked)


def heaviest_settings(space: Space) -> dict[str, Any]:
    """Return the point of a space that needs most memory: trial 0 with the largest N and batch."""
    return max(space.extremes(_TAKE_MEMORY), key=lambda point: (point["N"] * point["batch_syn"], point["N"]))


def share_of(measured: Sequence[GpuFigures]) -> float:
    """Return the share of a GPU for one trial: on every type as many trials fit and pay; the fewest decide.

    Raises:
        UserError: Not even one trial fits.
    """
    return share_of_one(min(map(_trials_that_pay, measured)))


def trials_that_fit(figures: Footprint | GpuFigures) -> int:
    """Return how many trials fill a GPU's memory less a reserve.

    Raises:
        UserError: Not even one trial fits.
    """
    if figures.trial_bytes > figures.gpu_bytes:
        raise UserError(f"a trial takes more memory than {figures.gpu} has; set --memory-budget or lower batch_syn")
    return max(1, int(SPARE * figures.gpu_bytes / figures.trial_bytes))


def _trials_that_pay(figures: GpuFigures) -> int:
    """Return the largest measured number of trials at once up to which every step pays, and which fits."""
    most = min(max(figures.seconds), trials_that_fit(figures))
    return double_while_worthwhile(figures.seconds.__getitem__, most)


def _timed(
    kind: str, footprint: Footprint, own: Mapping[str, Any], resources: Resources, work: TrialWork, patience: Patience
) -> GpuFigures:
    """Measure trials at once on a type of GPU: 1, 2, 4 …, as long as it pays and memory and cores suffice."""
    seconds: dict[int, float] = {}
    cores = max(int(node["CPU"] / node["GPU"]) for node in _nodes() if kind in node or not kind)

    def measure_together(trials: int) -> float:
        seconds[trials] = seconds_together(
            work, own, trials, resources, _on(kind), f"the measurement of {trials} trials on {_name(kind)}", patience
        )
        return seconds[trials]

    double_while_worthwhile(measure_together, max(1, min(trials_that_fit(footprint), cores)))
    return GpuFigures(**asdict(footprint), seconds=seconds)


def _footprints(
    kinds: Sequence[str], own: Mapping[str, Any], resources: Resources, work: TrialWork, patience: Patience
) -> dict[str, Footprint]:
    """Measure a trial's memory on types of GPUs."""
    whole = replace(resources, gpus_per_trial=1)
    tasks = {}
    for kind in kinds:
        placed = remote_task(measure_footprint, whole, on=_on(kind))
        tasks[kind] = Task(f"the measurement of a trial on {_name(kind)}", partial(placed.remote, work, own))
    measured: dict[str, Footprint] = {}
    try:
        run_tasks(tasks, resources, patience, measured.__setitem__)
    except GpuMemoryError as error:
        raise UserError("a trial takes more memory than a GPU has; set --memory-budget or lower batch_syn") from error
    return measured


def _nodes() -> list[dict[str, float]]:
    """Return the resources of the nodes with GPUs that are up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]


def _on(kind: str) -> dict[str, float]:
    """Return the resources that choose a node with this type of GPU."""
    return {kind: 0.001} if kind else {}


def _name(kind: str) -> str:
    return kind.removeprefix(ACCELERATOR) or "a GPU"
