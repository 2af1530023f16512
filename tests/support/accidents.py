"""Processes of a sweep that are killed at random moments; the moments and the victims follow from a seed."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.processes import end, start
from tests.support.sweeps import begin


@dataclass(frozen=True)
class Victim:
    """A process that may be killed."""

    command: str
    """What its command line contains."""
    stage: str
    """The stage in which it lives: a key of the seconds of result.json."""
    life: float = 1.0
    """For which share of that stage it surely lives: Ray starts and other work come before it."""


VICTIMS = {
    "driver": Victim("orchestrator.sweep", "total"),
    "expert actor": Victim("ray::ExpertActor", "experts", life=0.4),
    "trial": Victim("ray::DistillationTrial", "search", life=0.6),
    "network": Victim("ray::train_and_test", "finals", life=0.3),
    "raylet": Victim("raylet/raylet", "total"),
    "gcs": Victim("gcs_server", "total"),
}
"""The victims by name."""
MOST_RESUMES = 5


@dataclass(frozen=True)
class Accident:
    """A process that is killed by SIGKILL at a moment."""

    victim: str
    moment: float
    """When, after the victim has been seen first: as a share of its life in the undisturbed sweep."""


def draw_accidents(seed: int) -> list[Accident]:
    """Return one or two accidents."""
    draw = random.Random(f"accidents {seed}")
    return [Accident(draw.choice(sorted(VICTIMS)), 0.8 * draw.random()) for _ in range(draw.choice((1, 1, 2)))]


def run_with_accidents(
    workdir: Path, name: str, accidents: Sequence[Accident], stage_s: Mapping[str, float], *arguments: object
) -> list[str]:
    """Run a small sweep, kill the victims, resume it whenever it ends unfinished, and return what every driver said.

    A victim that does not exist at its moment is killed as soon as it exists, if it ever does. At least one is killed.

    Args:
        workdir: The sweep's workdir.
        name: The sweep's name.
        accidents: What happens.
        stage_s: Seconds of each stage in the undisturbed sweep.
        arguments: More arguments of the command.
    """
    said: list[str] = []
    left = _Schedule(accidents, stage_s)
    driver = begin(workdir, name, *arguments)
    for _ in range(MOST_RESUMES):
        try:
            while driver.poll() is None:
                left.kill_due(driver)
                time.sleep(0.05)
            said.append(driver.stdout.read() if driver.stdout else "")
        finally:
            end(driver)
        if driver.returncode == 0:
            assert left.killed, f"none of {accidents} happened"
            return said
        assert driver.returncode in (3, -signal.SIGKILL), said[-1]
        assert "Traceback" not in said[-1], said[-1]
        driver = start(sys.executable, "-u", "-m", "orchestrator.sweep", "--resume", name, "--workdir", workdir)
    raise AssertionError(f"not finished after {MOST_RESUMES} drivers: {said[-1]}")


class _Schedule:
    """The accidents that have not happened, and when they are due."""

    def __init__(self, accidents: Sequence[Accident], stage_s: Mapping[str, float]) -> None:
        self._left = list(accidents)
        self._stage_s = stage_s
        self._seen: dict[str, float] = {}
        """When a victim was seen first, by name."""
        self.killed = 0

    def kill_due(self, driver: subprocess.Popen[str]) -> None:
        """Kill the victims of this driver that are due."""
        for accident in list(self._left):
            victim = VICTIMS[accident.victim]
            process = _find(driver, victim)
            if process is None:
                continue
            seen = self._seen.setdefault(accident.victim, time.monotonic())
            if time.monotonic() - seen >= accident.moment * victim.life * self._stage_s[victim.stage]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
                    self._left.remove(accident)
                    self.killed += 1


def _find(driver: subprocess.Popen[str], victim: Victim) -> psutil.Process | None:
    """Return a process of this driver's command, the command's own first; None if there is none."""
    with suppress(psutil.NoSuchProcess):
        command = psutil.Process(driver.pid)
        for process in (command, *command.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                if victim.command in " ".join(process.cmdline()):
                    return process
    return None
