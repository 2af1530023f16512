"""What a process may use of its machine: the CPU cores and the memory that it was granted.

A machine's own numbers are too large in a container (control groups), in a job of Slurm, and under taskset.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["Limit", "Machine"]

_UNLIMITED_BYTES = 2**60
"""From here on version 1 of control groups means that memory is not limited."""


class Limit(NamedTuple):
    """An amount that may be used, and what limits it."""

    amount: int
    """Cores, or bytes."""
    by: str
    """What limits it, for messages."""


def _allowed_cores() -> int:
    """Return the cores on which the system may run this process; macOS tells only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes() -> int:
    import psutil  # only here: a GPU machine may have torch and nothing else

    return int(psutil.virtual_memory().available)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The places where limits are read; the defaults are those of this process."""

    root: Path = Path("/")
    """The folder that has `proc` and `sys`."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    allowed_cores: int = field(default_factory=_allowed_cores)
    """Cores on which the system may run this process: all, or those of taskset or of a cpuset."""
    free_bytes: int | None = None
    """Memory that is free on the whole machine; None: read when it is asked for."""

    def cores(self) -> Limit:
        """Return how many CPU cores this process may use, at least one; a part of a core counts as none."""
        limits = [Limit(self.allowed_cores, "the cores on which it may run"), *self._quotas(), *self._slurm_cores()]
        amount, by = min(limits, key=lambda limit: limit.amount)
        return Limit(max(1, amount), by)

    def memory(self) -> Limit:
        """Return how many bytes this process and its children may still take."""
        free = _free_bytes() if self.free_bytes is None else self.free_bytes
        limits = [Limit(free, "the machine's free memory"), *self._groups_memory(), *self._slurm_memory()]
        return min(limits, key=lambda limit: limit.amount)

    def _quotas(self) -> Iterator[Limit]:
        """Yield the cores that the quotas and cpusets of the process's control groups allow."""
        for folder in self._groups("cpu"):
            quota, _, period = _word(folder, "cpu.max").partition(" ")
            if not period:  # version 1
                quota, period = _word(folder, "cpu.cfs_quota_us"), _word(folder, "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # max and -1: no quota
                yield Limit(int(quota) // int(period), "the CPU quota of its control group")
        for folder in self._groups("cpuset"):
            listed = _word(folder, "cpuset.cpus.effective") or _word(folder, "cpuset.cpus")
            if cores := _listed_cores(listed):
                yield Limit(cores, "the cpuset of its control group")

    def _groups_memory(self) -> Iterator[Limit]:
        """Yield the memory that the limits of the process's control groups leave; caches of files can be given up."""
        for folder in self._groups("memory"):
            for limit, used, cache in (
                ("memory.max", "memory.current", "inactive_file"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            ):
                most, taken = _word(folder, limit), _word(folder, used)
                if most.isdecimal() and int(most) < _UNLIMITED_BYTES:
                    cached = re.search(rf"^{cache} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                    kept = int(taken or 0) - (int(cached[1]) if cached else 0)
                    yield Limit(max(0, int(most) - max(0, kept)), "the memory limit of its control group")

    def _slurm_cores(self) -> Iterator[Limit]:
        """Yield the cores of the task in a job of Slurm, or of the job on this node."""
        for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
            if (cores := self.environment.get(name, "")).isdecimal() and int(cores):
                yield Limit(int(cores), name)
                return

    def _slurm_memory(self) -> Iterator[Limit]:
        """Yield the memory of a job of Slurm on this node; 0 is all of it."""
        for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
            if (mebibytes := self.environment.get(name, "")).isdecimal() and int(mebibytes):
                times = self.cores().amount if name == "SLURM_MEM_PER_CPU" else 1
                yield Limit(int(mebibytes) * 2**20 * times, name)
                return

    def _groups(self, controller: str) -> Iterator[Path]:
        """Yield the folders of the process's control groups, from its own up to the root.

        In a container the names in /proc may be those of the host; the container's own group is then the root.
        """
        mounted = self.root / "sys/fs/cgroup"
        for line in _text(self.root / "proc/self/cgroup").splitlines():
            _, controllers, path = ([*line.split(":", 2), "", ""])[:3]
            if controllers == "":
                mounts = [mounted, mounted / "unified"]
            elif controller in controllers.split(","):
                mounts = [mounted / controllers, mounted / controller]
            else:
                continue
            own = Path(path.lstrip("/"))
            for mount in mounts:
                for group in (own, *own.parents):
                    if (mount / group).is_dir():
                        yield mount / group


def _text(file: Path) -> str:
    """Return a file's text; empty: it does not exist or may not be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def _word(folder: Path, name: str) -> str:
    """Return a file's text without spaces at its ends; empty: it does not exist."""
    return _text(folder / name).strip()


def _listed_cores(text: str) -> int:
    """Return how many cores a list such as `0-3,8` names; 0: it names none."""
    cores = 0
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return 0
        cores += int(last) - int(first) + 1 if dash else 1
    return cores
