"""Processes of a sweep that are killed at random moments; the moments and the victims follow from a seed."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.processes import end, start
from tests.support.sweeps import begin

VICTIMS = {
    "driver": "orchestrator.sweep",
    "expert actor": "ray::ExpertActor",
    "trial": "ray::DistillationTrial",
    "network": "ray::train_and_test",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
}
"""What the command line of a victim contains, by the victim's name."""
MOST_RESUMES = 5


@dataclass(frozen=True)
class Accident:
    """A process that is killed by SIGKILL at a moment."""

    victim: str
    moment: float
    """Share of the time that the undisturbed sweep took, from the start of the command."""


def draw_accidents(seed: int) -> list[Accident]:
    """Return one or two accidents, by moment."""
    draw = random.Random(f"accidents {seed}")
    accidents = [Accident(draw.choice(sorted(VICTIMS)), draw.random()) for _ in range(draw.choice((1, 1, 2)))]
    return sorted(accidents, key=lambda accident: accident.moment)


def run_with_accidents(
    workdir: Path, name: str, accidents: list[Accident], undisturbed_s: float, *arguments: object
) -> list[str]:
    """Run a small sweep, kill the victims, resume it whenever it ends unfinished, and return what every driver said.

    A victim that does not exist at its moment is killed as soon as it exists, if it ever does.
    """
    said: list[str] = []
    left, began = list(accidents), time.monotonic()
    driver = begin(workdir, name, *arguments)
    for _ in range(MOST_RESUMES):
        try:
            while driver.poll() is None:
                if (
                    left
                    and time.monotonic() - began >= left[0].moment * undisturbed_s
                    and _kill(driver, left[0].victim)
                ):
                    left.pop(0)
                time.sleep(0.02)
            said.append(driver.stdout.read() if driver.stdout else "")
        finally:
            end(driver)
        if driver.returncode == 0:
            return said
        assert driver.returncode in (3, -signal.SIGKILL), said[-1]
        assert "Traceback" not in said[-1], said[-1]
        driver = start(sys.executable, "-u", "-m", "orchestrator.sweep", "--resume", name, "--workdir", workdir)
    raise AssertionError(f"not finished after {MOST_RESUMES} drivers: {said[-1]}")


def _kill(driver: subprocess.Popen[str], victim: str) -> bool:
    """Kill a victim of this driver, and return whether there was one."""
    if victim == "driver":
        driver.kill()
        return True
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if VICTIMS[victim] in " ".join(process.cmdline()):
                process.kill()
                return True
        except psutil.NoSuchProcess:
            continue
    return False
