"""The three wings' import direction: kept by the tree, and broken by an arrow planted the wrong way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "trainables", "search_spaces")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_the_rules(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "arrow"),
    [
        ("search_spaces/space.py", "import trainables.config"),
        ("search_spaces/space.py", "import torch"),
        ("trainables/matching.py", "import orchestrator.statistics"),
        ("trainables/matching.py", "import search_spaces"),
        ("trainables/matching.py", "import ray"),
        ("trainables/distillation.py", "import trainables.trial"),
    ],
)
def test_a_planted_arrow_breaks_them(tree: Path, module: str, arrow: str) -> None:
    path = tree / module
    path.write_text(f"{path.read_text()}\n{arrow}\n")
    done = lint(tree)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def test_every_module_of_trainables_is_under_the_rule_against_ray() -> None:
    rules = (ROOT / "pyproject.toml").read_text()
    modules = {path.stem for path in (ROOT / "trainables").glob("*.py")} - {"__init__", "actor", "trial"}
    assert [name for name in sorted(modules) if f'"trainables.{name}"' not in rules] == []
