"""The time of trials that share one GPU, measured in as many processes as trials."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from orchestrator.cluster.connection import result_of
from orchestrator.cluster.losses import Patience, is_lost
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.worker_code import remote_actor
from trainables.workers.footprint import TrialProbe
from trainables.workers.workbench import TrialWork

__all__ = ["seconds_together", "share_of_one"]


def share_of_one(trials: int) -> float:
    """Return the share of a GPU of one of so many trials, in Ray's ten-thousandths; the sum is at most one."""
    return math.floor(1e4 / trials) / 1e4


def seconds_together(
    work: TrialWork,
    own: Mapping[str, Any],
    trials: int,
    resources: Resources,
    on: Mapping[str, float],
    name: str,
    patience: Patience,
) -> float:
    """Return the seconds of a GPU for an iteration of one of so many trials at once on it.

    Args:
        work: Settings that all trials share.
        own: The settings in which the measured trial differs from others.
        trials: Trials at once.
        resources: The cluster's resources.
        on: Further resources that choose the node, by their names in Ray.
        name: What is measured, for messages.
        patience: Decides when a measurement that lost a process is made again.

    Raises:
        ConfigError: The settings are invalid.
        RuntimeError: The trials need more memory than the GPU has; see `memory_errors`.
        ClusterError: Processes were lost for longer than the patience.
    """
    share = share_of_one(trials)
    work, resources = replace(work, device_share=share), replace(resources, gpus_per_trial=share)
    while True:
        try:
            return _measure(work, own, trials, resources, on)
        except Exception as error:
            if not is_lost(error):
                raise
            patience.lost(name, error)
            patience.check()
            patience.wait()


def _measure(
    work: TrialWork, own: Mapping[str, Any], trials: int, resources: Resources, on: Mapping[str, float]
) -> float:
    # One bundle has one GPU: without it Ray may spread the shares over several.
    group = placement_group([{"CPU": trials, "GPU": 1, **on}])
    try:
        ray.get(group.ready())
        probes = [remote_actor(TrialProbe, resources, group=group).remote() for _ in range(trials)]
        for begun in [probe.begin.remote(work, own) for probe in probes]:
            result_of(begun)
        seconds = [result_of(timed) for timed in [probe.seconds.remote() for probe in probes]]
    finally:
        remove_placement_group(group)  # ends the probes too
    return float(sum(seconds)) / trials**2
