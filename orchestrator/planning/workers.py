"""How many workers run at once on this machine: as many as cores and memory were granted for, and at least one."""

import math
from dataclasses import dataclass

from orchestrator.state.settings import SweepSettings
from trainables.machine import Machine

__all__ = ["WorkersHere", "workers_here"]

RESERVED_BYTES = 700 * 2**20
"""Memory that Ray's own processes and its store of objects take besides the workers."""
USED_SHARE = 0.9
"""Share of the free memory for which workers are counted: Ray ends workers when little is left."""


@dataclass(frozen=True, kw_only=True)
class WorkersHere:
    """The workers of an embedded Ray, and why they are not more."""

    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count}: {self.why}"


def workers_here(settings: SweepSettings, worker_bytes: int, machine: Machine | None = None) -> WorkersHere:
    """Count the workers that an embedded Ray runs at once.

    Args:
        settings: The sweep's; its `cpus` replace the cores that were granted, and `concurrent` limits the workers.
        worker_bytes: Memory of one worker: `Plan.worker_bytes`.
        machine: What grants cores and memory; None: this machine.
    """
    machine = machine or Machine()
    memory, granted = machine.memory(), machine.cores()
    fitting = max(1, math.floor((USED_SHARE * memory.amount - RESERVED_BYTES) / worker_bytes))
    cores = granted.amount if settings.cpus is None else settings.cpus
    count = min(cores, fitting, settings.concurrent or cores)
    given = f"{cores} {'core' if cores == 1 else 'cores'} ({granted.by if settings.cpus is None else '--cpus'})"
    room = f"{memory.amount / 2**30:.1f} GiB, {memory.by}"
    limits = [given, f"memory for {fitting} of {worker_bytes / 2**30:.1f} GiB each ({room})"]
    if settings.concurrent is not None:
        limits.append(f"--concurrent {settings.concurrent}")
    return WorkersHere(count=count, why=", ".join(limits))
