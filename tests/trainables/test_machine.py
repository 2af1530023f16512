"""What was granted of a machine: control groups of both versions, cpusets, Slurm, taskset."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.machine import Machine

GIB = 2**30
Write = Callable[[dict[str, str]], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files of `proc` and `sys` below a folder."""

    def write_files(files: dict[str, str]) -> None:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write_files


def machine(root: Path, **environment: str) -> Machine:
    return Machine(root=root, environment=environment, allowed_cores=64, free_bytes=256 * GIB)


def test_a_machine_of_ones_own_grants_all(tmp_path: Path) -> None:
    assert machine(tmp_path).cores() == (64, "the cores on which it may run")
    assert machine(tmp_path).memory() == (256 * GIB, "the machine's free memory")


def test_the_cores_are_told_where_psutil_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert Machine(root=tmp_path, environment={}, allowed_cores=3).cores().amount == 3


@pytest.mark.parametrize("own", ["/", "/system.slice/job", "/of/the/host/alone"])
def test_version_2_of_control_groups(own: str, write: Write, tmp_path: Path) -> None:
    """The tightest group from the process's own up to the root counts; in a container names may be the host's."""
    write(
        {
            "proc/self/cgroup": f"0::{own}\n",
            "sys/fs/cgroup/cpu.max": "450000 100000\n",
            "sys/fs/cgroup/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB}\nactive_file 7\n",
            "sys/fs/cgroup/system.slice/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/system.slice/job/memory.max": "max\n",
            "sys/fs/cgroup/system.slice/job/cpuset.cpus.effective": "0-1,9\n",
        }
    )
    cores, by = machine(tmp_path).cores()
    assert (cores, by) == (
        (3, "the cpuset of its control group") if "job" in own else (4, "the CPU quota of its control group")
    )
    assert machine(tmp_path).memory() == (6 * GIB, "the memory limit of its control group")


@pytest.mark.parametrize("mounted", ["cpu,cpuacct", "cpu"])
def test_version_1_of_control_groups(mounted: str, write: Write, tmp_path: Path) -> None:
    write(
        {
            "proc/self/cgroup": "9:memory:/job\n5:cpu,cpuacct:/job\n3:cpuset:/\n1:name=systemd:/job\n",
            f"sys/fs/cgroup/{mounted}/job/cpu.cfs_quota_us": "200000\n",
            f"sys/fs/cgroup/{mounted}/job/cpu.cfs_period_us": "100000\n",
            f"sys/fs/cgroup/{mounted}/cpu.cfs_quota_us": "-1\n",
            f"sys/fs/cgroup/{mounted}/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpuset/cpuset.cpus": "0-15\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/job/memory.stat": "cache 5\n",
        }
    )
    assert machine(tmp_path).cores() == (2, "the CPU quota of its control group")
    assert machine(tmp_path).memory() == (3 * GIB, "the memory limit of its control group")


def test_a_part_of_a_core_is_one_worker_and_a_used_up_memory_none(write: Write, tmp_path: Path) -> None:
    write(
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "50000 100000",
            "sys/fs/cgroup/memory.max": "100",
            "sys/fs/cgroup/memory.current": "200",
        }
    )
    assert machine(tmp_path).cores().amount == 1
    assert machine(tmp_path).memory().amount == 0


def test_slurm(tmp_path: Path) -> None:
    assert machine(tmp_path, SLURM_CPUS_ON_NODE="8").cores() == (8, "SLURM_CPUS_ON_NODE")
    both = machine(tmp_path, SLURM_CPUS_ON_NODE="8", SLURM_CPUS_PER_TASK="4", SLURM_MEM_PER_CPU="2048")
    assert both.cores() == (4, "SLURM_CPUS_PER_TASK")
    assert both.memory() == (8 * GIB, "SLURM_MEM_PER_CPU")
    assert machine(tmp_path, SLURM_MEM_PER_NODE="4096").memory() == (4 * GIB, "SLURM_MEM_PER_NODE")
    assert machine(tmp_path, SLURM_MEM_PER_NODE="0").memory().amount == 256 * GIB
    assert machine(tmp_path, SLURM_CPUS_ON_NODE="4(x2)").cores().amount == 64


def test_what_cannot_be_read_limits_nothing(write: Write, tmp_path: Path) -> None:
    write({"proc/self/cgroup": "nonsense\n0::/a\n", "sys/fs/cgroup/cpu.max": "many", "sys/fs/cgroup/cpuset.cpus": "x-"})
    assert machine(tmp_path).cores().amount == 64


@pytest.mark.skipif(sys.platform != "linux", reason="taskset is Linux's")
def test_taskset_leaves_one_core() -> None:
    code = "from trainables.machine import Machine; print(Machine().cores().amount)"
    done = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
