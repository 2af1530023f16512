"""What a trial takes of a GPU's memory, measured on one: an iteration and the beginning of a validation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainables.config import Protocol
from trainables.workbench import TrialWork, Workbench

__all__ = ["Footprint", "measure_footprint"]


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What was measured."""

    trial_bytes: int
    """The most that the process took of the GPU, its context with it."""
    gpu_bytes: int
    """What the GPU has."""
    gpu: str
    """Its name."""


def measure_footprint(work: TrialWork, config: Mapping[str, Any]) -> Footprint:
    """Run an iteration and an epoch of validation of one setting, alone on a GPU, and return what they took of it.

    What other processes have on that GPU is counted with it: a process cannot tell its own context from theirs.

    Args:
        work: What all trials share; `device` is cuda.
        config: The settings that take most.

    Raises:
        ConfigError: The settings cannot work.
        torch.cuda.OutOfMemoryError: They take more than the GPU has.
    """
    device = torch.device(work.device)
    free, total = torch.cuda.mem_get_info(device)  # makes the context
    torch.cuda.reset_peak_memory_stats(device)
    bench = Workbench(replace(work, protocol=Protocol.challenge(1), validation_networks=1, device_share=1.0))
    distiller = bench.distiller(config)
    distiller.step()
    bench.validate(distiller.images)
    took = total - free + torch.cuda.max_memory_reserved(device)
    return Footprint(trial_bytes=took, gpu_bytes=total, gpu=torch.cuda.get_device_name(device))
