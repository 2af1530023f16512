"""The embedded Ray where a machine grants little: one core, a temporary folder like Slurm's, no home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CODE = """
import os
import ray
from orchestrator.cluster.connection import connected
with connected("local", None) as resources:
    print("WORKERS", resources.workers(), ray.get(ray.remote(lambda: 1).options(num_cpus=1).remote()))
print("TOKEN", "RAY_AUTH_TOKEN" in os.environ)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="taskset and /proc are Linux's")
def test_one_granted_core_is_one_worker_also_in_a_long_temporary_folder_without_a_home(tmp_path: Path) -> None:
    temporary = tmp_path / ("slurm-job-" + "1" * 60)
    temporary.mkdir()
    # /proc refuses new files even to root, who may otherwise write anywhere.
    places = {"TMPDIR": str(temporary), "HOME": "/proc/nobody", "PYTHONPATH": str(ROOT)}
    unset = ("RAY_AUTH", "RAY_TMP")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unset)} | places
    done = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "WORKERS 1 1" in done.stdout and "TOKEN False" in done.stdout
