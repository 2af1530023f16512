"""What a trial takes of a GPU: its memory alone, and its time beside others on the same GPU."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainables.config.protocol import Protocol
from trainables.workers.process import prepare_process
from trainables.workers.workbench import TrialWork, Workbench

__all__ = ["Footprint", "TrialProbe", "measure_footprint"]

TIMED = 3
"""Iterations whose median is the time of one."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The measured GPU memory of a trial."""

    trial_bytes: int
    """Peak GPU memory of the process, including its context."""
    gpu_bytes: int
    """Total memory of the GPU."""
    gpu: str
    """Name of the GPU."""


def measure_footprint(work: TrialWork, own: Mapping[str, Any]) -> Footprint:
    """Run one iteration and one epoch of validation of a trial, alone on a GPU, and return their GPU memory.

    Memory of other processes on that GPU is included, because a process cannot separate its own context from theirs.

    Args:
        work: Settings that all trials share; `device` is cuda.
        own: The settings in which the largest trial differs from others.

    Raises:
        ConfigError: The settings are invalid.
        RuntimeError: The trial needs more memory than the GPU has; see `memory_errors`.
    """
    prepare_process(work.device, work.arithmetic)
    device = torch.device(work.device)
    free, total = torch.cuda.mem_get_info(device)  # creates the context
    torch.cuda.reset_peak_memory_stats(device)
    alone = replace(work, protocol=Protocol.challenge(1), validation_networks=1, device_share=1.0)
    bench = Workbench(alone, keeps_graphs=False)  # kept graphs take what is left of a trial's share
    distiller = bench.distiller(own)
    distiller.step()
    bench.validate(distiller.images)
    peak = total - free + torch.cuda.max_memory_reserved(device)
    return Footprint(trial_bytes=peak, gpu_bytes=total, gpu=torch.cuda.get_device_name(device))


class TrialProbe:
    """A trial in its own process, beside others on the same GPU; a plain class, which the driver makes an actor."""

    def begin(self, work: TrialWork, own: Mapping[str, Any]) -> None:
        """Load the data and run a first iteration, which compiles what is compiled.

        Args:
            work: Settings that all trials share; `device_share` is that of one of the trials.
            own: The settings in which the trial differs from others.

        Raises:
            ConfigError: The settings are invalid.
            RuntimeError: There is too little GPU memory; see `memory_errors`.
        """
        prepare_process(work.device, work.arithmetic)
        self._distiller = Workbench(work).distiller(own)
        self._distiller.step()

    def seconds(self) -> float:
        """Return the seconds of an iteration: the median of `TIMED`; an iteration ends when its loss is read."""
        seconds = []
        for _ in range(TIMED):
            began = time.perf_counter()
            self._distiller.step()
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)
