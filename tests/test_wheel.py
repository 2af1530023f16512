"""The wheel: what it carries, and that it works in an empty environment, away from the checkout."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = {"orchestrator", "trainables", "search_spaces"}


def run(*command: object, cwd: Path, timeout: float) -> str:
    """Run a command without what this process's environment says of Python and of uv's own run."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_NO_SYNC"}
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_wheel_works_in_an_empty_environment(tmp_path: Path) -> None:
    run("uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT, cwd=ROOT, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if "test" in Path(name).name]

    python = tmp_path / "environment" / "bin" / "python"
    run("uv", "venv", "--quiet", "--python", "3.11", tmp_path / "environment", cwd=tmp_path, timeout=120)
    # In the checkout, whose settings say until which day packages are looked up.
    run("uv", "pip", "install", "--quiet", "--no-compile-bytecode", "--python", python, wheel, cwd=ROOT, timeout=900)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    plan = run(python.with_name("mdatm"), "sweep", "--space", "digits", "--plan", cwd=elsewhere, timeout=120)
    assert "CPU-core-hours" in plan and list(elsewhere.iterdir()) == []
    where = run(python, "-c", "import orchestrator; print(orchestrator.__file__)", cwd=elsewhere, timeout=60)
    assert Path(where.strip()).is_relative_to(tmp_path / "environment")
