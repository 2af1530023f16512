"""Sweeps whose node has no memory left for a while, because another process takes it, and Ray ends their workers.

The threshold of the monitor is lowered to a little above what is used, and a process passes it by half a GiB.
"""

import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

from tests.support.memory import MemoryThreshold
from tests.support.processes import end
from tests.support.sweep_records import rows, study, tracked
from tests.support.sweeps import MORE, Sweep, begin, resume
from trainables.data.synthetic import read_synthetic

pytestmark = [pytest.mark.slow, pytest.mark.rare]

SWEEP_BYTES = 5 * 2**29
"""Memory above what is used now that a small sweep has room in: driver, Ray and two workers."""
LOSS = re.compile(
    r"The process of (.+?) was lost: Ray ended it when the memory of node \S+ was full, [\d.]+ of [\d.]+ GB: PID \d+ \("
)


class Watched:
    """A sweep whose lines are read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self._lines, self.said = process, queue.Queue[str](), ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def read_new(self) -> list[str]:
        """Return what it said since the last call."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        self.said += "".join(lines)
        return lines

    def wait_until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.read_new()
            assert self.process.poll() is None, self.said
            time.sleep(0.02)

    def finish(self, code: int = 0) -> str:
        self.process.wait()
        time.sleep(0.5)  # for the reader
        self.read_new()
        assert self.process.returncode == code, self.said
        return self.said


def experts_begin(folder: Path) -> bool:
    return any(folder.parent.parent.glob("experts/*/expert-*.arrow"))


def the_search_begins(folder: Path) -> bool:
    return (folder / "tune").exists() or any(folder.glob("**/trial-000"))


def a_trial_has_a_rung(folder: Path) -> bool:
    return (folder / "checkpoints" / "trial-001.safetensors").exists()


def a_distillation_of_the_finals_begins(folder: Path) -> bool:
    return any((folder / "checkpoints").glob("final*/*.safetensors"))


def a_network_is_measured(folder: Path) -> bool:
    path = folder / "progress.jsonl"
    return path.exists() and '"confusion"' in path.read_text()


MOMENTS = {
    "expert actor": experts_begin,
    "trial-000": the_search_begins,
    "trial-": a_trial_has_a_rung,
    "final-": a_distillation_of_the_finals_begins,
    "": a_network_is_measured,
}
"""When the memory is taken, by the beginning of the name of what is lost then."""


def take(threshold: MemoryThreshold, sweep: Watched, lost: str, seconds: float) -> None:
    """Take memory until a process of that name was lost, and then for so many seconds more."""
    with threshold.passed():
        found: list[str] = []

        def has_lost() -> bool:
            found.extend(match[1] for line in sweep.read_new() if (match := LOSS.match(line)))
            return any(name.startswith(lost) for name in found)

        while not has_lost():
            assert sweep.process.poll() is None, sweep.said
            time.sleep(0.02)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            sweep.read_new()
            time.sleep(0.1)


def assert_undisturbed(sweep: Sweep, undisturbed: Sweep) -> None:
    assert rows(sweep) == rows(undisturbed)
    for part in ("finals", "repeats", "regimes", "trials", "best", "paper"):
        assert sweep.result.get(part) == undisturbed.result.get(part)
    images = [read_synthetic(each.folder / "synthetic.safetensors").images for each in (sweep, undisturbed)]
    assert torch.equal(*images)


@pytest.mark.timeout(900)
def test_memory_taken_by_another_process_changes_no_value(second: Sweep, tmp_path: Path) -> None:
    threshold = MemoryThreshold(SWEEP_BYTES)
    process = begin(tmp_path, "pressed", *MORE, **threshold.environment)
    sweep, folder = Watched(process), tmp_path / "sweeps" / "pressed"
    try:
        for lost, reached in MOMENTS.items():
            sweep.wait_until(lambda reached=reached: reached(folder))  # type: ignore[misc]
            take(threshold, sweep, lost, seconds=60 if lost == "trial-000" else 5)
        said = sweep.finish()
    finally:
        end(process)
    assert "Traceback" not in said and "docs.ray.io" not in said and " failed at " not in said
    pressed = Sweep(tmp_path, "pressed", said)
    assert_undisturbed(pressed, second)
    assert tracked(pressed) == tracked(second)


def test_a_node_without_memory_halts_the_sweep_and_it_goes_on_when_there_is_some(first: Sweep) -> None:
    name = "no-memory"  # its experts are there
    full = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    process = begin(first.workdir, name, "--patience", "8s", **full)
    try:
        said = Watched(process).finish(code=3)
    finally:
        end(process)
    assert "Traceback" not in said and "docs.ray.io" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert "longer than --patience 8 s: the process of trial-000 was lost again (Ray ended it when the memory" in line
    assert f"--resume {name}" in line
    assert [trial.state for trial in study(first.workdir, name)] == [TrialState.RUNNING]
    resumed = resume(first.workdir, name, "--patience", "10m")
    assert_undisturbed(resumed, first)
