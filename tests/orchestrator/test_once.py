"""What a command reads, counted in all of its processes: the dataset's folders and every expert file at most once."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from tests.support.paths import ROOT
from tests.support.sweeps import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SPACE = """from dataclasses import replace
from search_spaces import load
SPACE = replace(load("digits"), dataset="folder")
"""

# Python runs a module of this name as it starts, also in the processes that Ray starts.
SITECUSTOMIZE = """import os, sys

_below = os.environ["COUNTED_BELOW"]
_log = os.open(os.environ["COUNTED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def _note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, os.PathLike)):
        place = os.fspath(arguments[0])
        if isinstance(place, str) and place.startswith(_below):
            mode = arguments[1] if event == "open" else ""
            os.write(_log, f"{os.getpid()}\\t{event}\\t{mode}\\t{place}\\n".encode())

sys.addaudithook(_note)
"""


class Event(NamedTuple):
    pid: str
    name: str
    mode: str
    place: str


class Counted(NamedTuple):
    """What all processes of a command have listed and opened below the test's folder."""

    events: list[Event]

    def listings(self, folder: Path) -> Counter[str]:
        """How often a folder, or one in it, was listed."""
        return Counter(
            event.place for event in self.events if event.name != "open" and Path(event.place).is_relative_to(folder)
        )

    def hashed(self) -> Counter[str]:
        """How often an expert's file was read through: memory maps are no opening of Python's."""
        return Counter(
            Path(event.place).name for event in self.events if _is_expert(event.place) and event.mode in ("r", "rb")
        )

    def written(self) -> Counter[str]:
        """How often an expert's file was forced to disk."""
        partial = (Path(event.place).name for event in self.events if event.mode in ("r+", "rb+"))
        return Counter(f"{name.split('.')[1]}.arrow" for name in partial if name.startswith(".expert-"))

    def processes(self, name: str) -> set[str]:
        """The processes that opened a file of this name."""
        return {event.pid for event in self.events if event.name == "open" and Path(event.place).name == name}


def _is_expert(place: str) -> bool:
    name = Path(place).name
    return name.startswith("expert-") and name.endswith(".arrow")


def run_counted(folder: Path, name: str, *command: object) -> Counted:
    hooks, log = folder / "hooks", folder / f"{name}.log"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(SITECUSTOMIZE)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{hooks}{os.pathsep}{ROOT}",
        "COUNTED_BELOW": str(folder),
        "COUNTED_LOG": str(log),
    }
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, timeout=400, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return Counted([Event(*line.split("\t")) for line in log.read_text().splitlines()])


def test_a_command_hashes_every_expert_and_walks_through_the_dataset_once(tmp_path: Path) -> None:
    digits, data = load_digits(), tmp_path / "data"
    for number, (image, label) in enumerate(zip(digits.images[:300], digits.target[:300], strict=True)):
        file = data / ("val" if number % 5 == 0 else "train") / f"digit {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(file)
    (tmp_path / "space.py").write_text(SPACE)
    folders = {str(data / split / f"digit {label}") for split in ("train", "val") for label in range(10)}
    folders |= {str(data), *(str(data / split) for split in ("train", "val"))}
    places = ["--data", data, "--workdir", tmp_path / "runs", "--space", tmp_path / "space.py"]
    experts = {f"expert-{number:04d}.arrow" for number in range(2)}

    trained = run_counted(tmp_path, "experts", "orchestrator.experts", *places, "--experts", 2, "--concurrent", 1)
    assert trained.listings(data) == Counter(folders)
    assert trained.hashed() == trained.written() and set(trained.written()) == experts
    assert len(trained.processes("manifest.json")) >= 1

    swept = run_counted(tmp_path, "sweep", "orchestrator.sweep", *SMALL, *places, "--trials", 2, "--name", "counted")
    assert swept.listings(data) == Counter(folders)
    assert swept.hashed() == Counter(experts)
    assert swept.written() == Counter()
    assert len(swept.processes("manifest.json")) > 1  # workers are counted too
