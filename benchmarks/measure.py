"""What all benchmarks share: fresh processes that take turns, their peak memory, and where and when it was measured."""

import multiprocessing
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainables.allocator import ALLOCATOR
from trainables.files import write_json

__all__ = ["device_fault", "fresh_process", "peak_bytes", "surroundings", "write_records"]


def fresh_process(*, allocator: bool = False) -> ProcessPoolExecutor:
    """Return an executor with one new process, which lives as long as the executor and shares nothing with this one.

    Args:
        allocator: Whether the process has the allocator's settings of a sweep's workers; if not, it has the C
            library's own, whatever this process was started with.
    """
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with _environment(ALLOCATOR if allocator else dict.fromkeys(ALLOCATOR)):
        executor.submit(_start).result()  # an executor starts its process with its first task
    return executor


def _start() -> None:
    """Do nothing, in a process that is there from then on."""


@contextmanager
def _environment(changes: dict[str, str] | dict[str, None]) -> Iterator[None]:
    """Set variables of the environment, or remove those that are None, for a while."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def device_fault(device: str) -> str | None:
    """Return why nothing can run on a device, in one line, or None."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return "--device cuda needs a CUDA device, and there is none here; use --device cpu"
    return None


def peak_bytes(device: str) -> int:
    """Return the most memory that this process had: allocated tensors on a GPU, the resident set on a CPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # Not getrusage's figure: a process inherits that from its parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def surroundings(device: str) -> dict[str, Any]:
    """Return date, hardware and versions, and how busy the machine was before."""
    gpu = None
    if device == "cuda":
        import torch

        gpu = torch.cuda.get_device_name()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def write_records(path: Path | None, records: list[dict[str, Any]], setting: dict[str, Any]) -> None:
    """Write records as a JSON list, each with the setting in which all were measured; nothing if there is no path."""
    if path:
        write_json(path, [{**record, "setting": setting} for record in records])


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
