"""Shared by all benchmarks: fresh processes, their peak memory, and the environment of a measurement."""

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

from trainables.config.arithmetic import Arithmetic
from trainables.storage.atomic import write_json
from trainables.workers.process import ALLOCATOR, use_arithmetic

__all__ = [
    "device_fault", "environment", "fresh_process", "peak_bytes", "reset_peak", "surroundings", "use_precision",
    "wait_for", "write_records",
]  # fmt: skip


def fresh_process(*, allocator: bool = False) -> ProcessPoolExecutor:
    """Return an executor with one new process, which lives as long as the executor and shares nothing with this one.

    Args:
        allocator: Whether the process has the allocator's settings of a sweep's workers; if not, it has the C
            library's own, whatever settings this process has.
    """
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with environment(ALLOCATOR if allocator else dict.fromkeys(ALLOCATOR)):
        executor.submit(_start).result()  # an executor starts its process with its first task
    return executor


def _start() -> None:
    """Do nothing; the call starts the executor's process."""


@contextmanager
def environment(changes: dict[str, str] | dict[str, None]) -> Iterator[None]:
    """Set environment variables, or remove those that are None, while the context is open."""
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
    """Return why a device cannot be used, in one line; None if it can."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return "--device cuda needs a CUDA device, and this machine has none; use --device cpu"
    return None


def peak_bytes(device: str) -> int:
    """Return this process's peak memory in bytes: allocated tensors on a GPU, the resident set on a CPU."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # Not getrusage's figure: a process inherits that from its parent.
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def reset_peak(device: str) -> None:
    """Let `peak_bytes` count from what is in use now."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def use_precision(precision: str, device: str) -> None:
    """Let this process multiply in a precision, as a worker of a sweep with this setting.

    Raises:
        ConfigError: The precision is unknown, or the device does not have it.
    """
    use_arithmetic(device, Arithmetic(precision=precision, deterministic=False))


def wait_for(device: str) -> None:
    """Wait until a device has done all that it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def surroundings(device: str) -> dict[str, Any]:
    """Return date, hardware and versions, and the machine's load average before the measurement."""
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
    """Write records as a JSON list, with the common setting in every record; nothing if `path` is None."""
    if path:
        write_json(path, [{**record, "setting": setting} for record in records])


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
