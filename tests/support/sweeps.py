"""Small sweeps as a user runs them: begun, killed, resumed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import end, run, start, wait_until

# A sweep of every stage in under a minute: the digits with fewer, shorter trials.
SMALL = (
    "--space", "digits", "--trials", "4", "--experts", "2", "--concurrent", "1",
    "--set", "iterations=20", "--set", "validation_every_iterations=5", "--set", "first_rung_iterations=5",
    "--set", "validation_epochs=30", "--set", "validation_networks=1", "--set", "protocol_epochs=60",
    "--set", "full_data_epochs=2", "--networks", "2", "--final-seeds", "0",
    "--set", "baselines=none", "--set", "regime_epochs=30", "--set", "recover_iterations=20",
)  # fmt: skip

# What the finals of a larger one do besides.
MORE = ("--final-seeds", "2", "--baselines", "k_center,rded", "--regimes", "soft,soft_kd")


@dataclass(frozen=True)
class Sweep:
    """A finished sweep and what it said."""

    workdir: Path
    name: str
    output: str

    @property
    def folder(self) -> Path:
        return self.workdir / "sweeps" / self.name

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return result


def run_sweep(workdir: Path, name: str, *arguments: str) -> Sweep:
    """Run a small sweep to its end."""
    done = run("orchestrator.sweep", *SMALL, "--workdir", workdir, "--name", name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return Sweep(workdir, name, done.stdout)


def begin(workdir: Path | str, name: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a small sweep; the workdir may be a URI."""
    return start(
        sys.executable, "-u", "-m", "orchestrator.sweep", *SMALL, "--workdir", workdir, "--name", name, *arguments,
        **environment,
    )  # fmt: skip


def kill_when(sweep: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Kill a driver by SIGKILL, which it cannot catch, as soon as a condition holds."""
    try:
        wait_until(sweep, reached)
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
    finally:
        end(sweep)


def resume(workdir: Path, name: str, *arguments: object) -> Sweep:
    """Resume a sweep and run it to its end."""
    done = run("orchestrator.sweep", "--resume", name, "--workdir", workdir, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return Sweep(workdir, name, done.stdout)
