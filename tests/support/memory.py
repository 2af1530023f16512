"""Memory that another process takes: a threshold for Ray's memory monitor, and a process that passes it for a while."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.support.processes import end, start

__all__ = ["FULL_MEMORY", "MemoryThreshold"]

FULL_MEMORY = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: e771e2c8) was \
22.45GB used / 23.54GB limit (0.953696)
OOM kill reason: Memory usage 24105502310B exceeded threshold of 24012684697B (95.0% of 25276510208B limit)
Object store memory usage: [- objects spillable: 0
- bytes spillable: 0

Eviction Stats:
(global lru) capacity: 100000000
(global lru) bytes evicted: 0]
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Task: task name=f, required resources={CPU: 1}, pid=18820, actual memory used=4.03GB)
]
Total non-selected idle workers USS bytes: 0.00GB
To see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.7`
Top 10 memory users: PID	MEM(GB)	COMMAND
4711	10.12	/usr/bin/python3 hog.py --gigabytes 10
4712	4.03	ray::DistillationTrial.train
99	0.52	/usr/lib/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/ray.html. Consider \
provisioning more memory on this node or reducing task parallelism by requesting more CPUs per task.
"""
"""What Ray 2.60's memory monitor says, less some of its lines."""

STEP_BYTES = 2**26
MOST_BYTES = 3 * 2**30
"""Most memory that is taken, whatever the threshold."""
HOG = """
import sys, time, psutil
wanted, step, most = map(int, sys.argv[1:])
held = []
while True:
    memory = psutil.virtual_memory()
    if memory.total - memory.available < wanted and len(held) * step < most:
        held.append(b"x" * step)
    else:
        time.sleep(0.02)
"""


class MemoryThreshold:
    """A threshold a little above the memory that is used now."""

    def __init__(self, margin_bytes: int) -> None:
        """Set the threshold this far above what is used."""
        memory = psutil.virtual_memory()
        self._bytes = memory.total - memory.available + margin_bytes
        self.environment = {
            "RAY_memory_usage_threshold": f"{self._bytes / memory.total:.4f}",
            "RAY_memory_monitor_refresh_ms": "100",
        }
        """Environment of a Ray that has this threshold."""

    @contextmanager
    def passed(self) -> Iterator[subprocess.Popen[str]]:
        """Take memory until the threshold is passed by half a GiB, as long as the context lasts."""
        hog = start(sys.executable, "-c", HOG, self._bytes + 2**29, STEP_BYTES, MOST_BYTES)
        try:
            yield hog
        finally:
            end(hog)
