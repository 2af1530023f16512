"""Tasks on workers: each starts when those that it needs are done, and starts again if its process was lost."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from orchestrator.cluster.connection import result_of
from orchestrator.cluster.losses import Patience, check_gpu_memory, is_lost
from orchestrator.cluster.resources import Resources

__all__ = ["Task", "run_tasks"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Task:
    """A unit of work for a worker."""

    name: str
    """What it is, for messages."""
    start: Callable[..., Any]
    """Starts it on a worker, given the results of the tasks that it needs; returns the Ray reference of its result.

    It is called again if the process was lost."""
    needs: tuple[Hashable, ...] = ()
    """Keys of the tasks that must be done before it starts."""


def run_tasks(
    tasks: Mapping[Key, Task],
    resources: Resources,
    patience: Patience,
    done: Callable[[Key, Any], None],
    *,
    limit: int | None = None,
) -> None:
    """Run tasks on workers; those whose process was lost are started again.

    Args:
        tasks: The tasks by key. They are started in this order, as far as what they need is done.
        resources: Resources of one worker; as many tasks run at once as have room.
        patience: Decides when lost tasks are started again, and how many may run at once.
        done: Called with the key and the result of every task that is done.
        limit: Most tasks that run at once; None: as many as have room.

    Raises:
        ClusterError: Processes were lost for longer than the patience.
        GpuMemoryError: A worker's GPU had too little memory.
        Exception: A worker's own error.
    """
    needed = {key for task in tasks.values() for key in task.needs}
    assert needed <= tasks.keys(), "every task can start at some time"
    waiting, running = dict(tasks), dict[Any, Key]()
    results = dict[Hashable, Any]()
    """Of the tasks that are done; None if no other task needs it."""
    with resources.requested(min(resources.workers(limit), len(tasks))):
        while waiting or running:
            pause = patience.pause_left
            if not pause:
                most = patience.workers(resources.now().workers(limit))
                ready = [key for key, task in waiting.items() if results.keys() >= set(task.needs)]
                for key in ready[: max(0, most - len(running))]:
                    task = waiting.pop(key)
                    running[task.start(*(results[each] for each in task.needs))] = key
            elif not running:
                patience.wait()
                continue
            for reference in ray.wait(list(running), timeout=pause or None)[0]:
                key = running.pop(reference)
                try:
                    result = result_of(reference)
                except Exception as error:
                    if not is_lost(error):
                        check_gpu_memory(tasks[key].name, error, patience.remedy)
                        raise
                    patience.lost(tasks[key].name, error)
                    patience.check()
                    # In the old order: what others need stays first, as a worker that makes it may hold a core.
                    waiting = {each: task for each, task in tasks.items() if each in waiting or each == key}
                else:
                    patience.progress(tasks[key].name)
                    results[key] = result if key in needed else None
                    done(key, result)
