"""The numerics work where Ray is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainables

ROOT = Path(trainables.__file__).parents[1]
NUMERICS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "trainables").rglob("*.py")
    if path.stem not in ("__init__", "trial")
)


def run_without_ray(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code where a package named ray comes first on the path and cannot be imported."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('no ray here')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)


def test_every_module_but_the_trial_imports_without_ray(tmp_path: Path) -> None:
    done = run_without_ray(tmp_path, f"import importlib; [importlib.import_module(n) for n in {NUMERICS}]; print('ok')")
    assert "trainables.distillation.trajectory" in NUMERICS
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("name", ["workers.trial"])
def test_where_ray_is_needed_it_is_ray_that_is_missed(tmp_path: Path, name: str) -> None:
    done = run_without_ray(tmp_path, f"import trainables.{name}")
    assert "no ray here" in done.stderr
