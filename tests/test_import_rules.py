"""The import rules: kept by the tree, and broken by an arrow planted against each wing and each layer."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("orchestrator", "trainables", "search_spaces")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def layers(package: str) -> list[list[str]]:
    """Return a package's layers, the highest first, each with its modules that stand side by side."""
    (contract,) = [each for each in CONTRACTS if each.get("containers") == [package]]
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def plant(tree: Path, module: str, arrow: str) -> None:
    path = tree.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    path.write_text(f"{path.read_text()}\n{arrow}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_tree_keeps_the_rules(tree: Path) -> None:
    done = lint(tree)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "arrow"),
    [
        ("search_spaces.space", "import trainables.config"),
        ("search_spaces.space", "import torch"),
        ("trainables.distillation.matching", "import orchestrator.results.statistics"),
        ("trainables.distillation.matching", "import search_spaces"),
        ("trainables.distillation.matching", "import ray"),
        ("orchestrator.results.trials", "import mlflow"),
        ("orchestrator.state.settings", "import ray"),
    ],
)
def test_an_arrow_between_wings_or_to_a_heavy_package_breaks_them(tree: Path, module: str, arrow: str) -> None:
    plant(tree, module, arrow)
    done = lint(tree)
    assert done.returncode == 1 and "BROKEN" in done.stdout, done.stdout


@pytest.mark.parametrize("package", ["orchestrator", "trainables"])
def test_an_arrow_up_from_any_layer_breaks_them(tree: Path, package: str) -> None:
    """One arrow a layer, each from a layer to the one above it; the report names them all."""
    planted = [
        (f"{package}.{lower[0]}", f"{package}.{upper[-1]}")
        for upper, lower in zip(layers(package), layers(package)[1:], strict=False)
    ]
    for module, imported in planted:
        plant(tree, module, f"import {imported}")
    done = lint(tree)
    assert done.returncode == 1, done.stdout
    for module, imported in planted:
        assert f"{module} -> {imported}" in done.stdout, done.stdout


@pytest.mark.parametrize("package", ["orchestrator", "trainables"])
def test_every_folder_and_module_has_a_layer(package: str) -> None:
    entries = {
        path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    named = [name for layer in layers(package) for name in layer]
    assert sorted(named) == sorted(entries - {"__init__"})
