"""What the commands say without starting anything."""

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.sweep import main as sweep
from search_spaces import load, names
from search_spaces.vocabulary import VOCABULARY
from tests.support.paths import ROOT
from tests.support.processes import assert_refused, run
from trainables.config.arithmetic import Arithmetic
from trainables.config.distillation import DistillationConfig
from trainables.config.experts import ExpertRecipe
from trainables.config.reading import Reading

PROBE = """
import runpy, sys
sys.argv = sys.argv[1:]
module = sys.argv[0]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
heavy = {"torch", "ray", "mlflow", "optuna"} & set(sys.modules)
sys.stderr.write("HEAVY " + " ".join(sorted(heavy)))
sys.exit(code)
"""


def loaded_by(module: str, *arguments: str) -> tuple[int, str, str]:
    """Run a module and return its exit code, its output, and which heavy packages it loaded."""
    command = [sys.executable, "-c", PROBE, module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    return done.returncode, done.stdout, done.stderr.rpartition("HEAVY ")[2]


@pytest.mark.parametrize(
    "module",
    ["inspect", "sweep", "experts", "evaluate", "ui", "report", "export", "baselines", "dcs", "status"],
)
def test_help_loads_neither_torch_nor_ray(module: str) -> None:
    code, output, heavy = loaded_by(f"orchestrator.{module}", "--help")
    assert code == 0 and "Usage:" in output
    assert heavy == ""


@pytest.mark.parametrize(
    "asked",
    [
        ("baselines", "--dataset", "digits"),
        ("dcs", "--space", "digits", "--subsets", 8),
        ("evaluate", "--dataset", "digits", "--synthetic", __file__),
    ],
    ids=lambda asked: asked[0],
)
def test_json_that_could_not_be_written_is_refused_before_anything_is_measured(
    asked: tuple[str | int | Path, ...], tmp_path: Path
) -> None:
    command, *options = asked
    options += ["--workdir", tmp_path / "runs", "--json"]
    for file, words in ((tmp_path / "no" / "a.json", "create"), (tmp_path, "is a folder")):
        refused = run(f"orchestrator.{command}", *options, file)
        assert_refused(refused, "--json")
        assert words in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("space", ["ti_ranges", "digits_ablation"])
def test_plan_loads_neither_torch_nor_ray(space: str) -> None:
    code, _, heavy = loaded_by("orchestrator.sweep", "--space", space, "--plan")
    assert code == 0 and heavy == ""


@pytest.mark.parametrize("space", names())
def test_plan_says_what_would_run(space: str) -> None:
    done = CliRunner().invoke(sweep, ["--space", space, "--plan"])
    assert done.exit_code == 0
    output = done.output
    assert str(load(space).fixed["trials"].value) in output
    for heading in (
        "trials",
        "one trial takes",
        "experts on disk",
        "memory of one trial",
        "total",
        "CPU-core-hours",
        "No GPU was measured",
    ):
        assert heading in output


def test_help_names_every_option() -> None:
    text = run("orchestrator.sweep", "--help").stdout
    for option in (
        "--space", "--trials", "--seed", "--workdir", "--name", "--plan", "--concurrent", "--gpus-per-trial",
        "--time-budget", "--patience", "--experts", "--address", "--tracking-uri", "--storage-path", "--data", "--set",
        "--preset", "--quiet",
    ):  # fmt: skip
        assert option in text


def test_plan_follows_the_options() -> None:
    output = run("orchestrator.sweep", "--space", "digits", "--plan", "--trials", 7, "--experts", 3).stdout
    assert "7, the first is" in output and "3 × 25 epochs = 75" in output


def test_plan_refuses_what_a_sweep_would_refuse() -> None:
    assert_refused(run("orchestrator.sweep", "--space", "digits", "--plan", "--set", "N=0"), "N")


def keys_read(package: str) -> set[str]:
    """Return every constant string by which a module of the package takes something out of a mapping."""
    found: set[Any] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                found.add(node.slice.value)
    return found


def test_every_key_of_the_vocabulary_reaches_a_setting() -> None:
    """No key of a space is silently ignored: each is a field of a unit's settings or read by name in the sweep."""
    of_units = {
        field.name for config in (Arithmetic, DistillationConfig, ExpertRecipe, Reading) for field in fields(config)
    }
    # Read as T and T_plus, and by the space itself.
    derived = {"T_width", "T_growth", "horizon_epochs", "repeats", "ipcs", "methods", "baselines"}
    assert sorted(VOCABULARY.keys() - of_units - derived - keys_read("orchestrator")) == []
