"""The three commands of docs/how-to/use-your-own-pictures.md, on photographs as people have them."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks.photographs import CLASSES, write_photographs
from tests.support.paths import ROOT
from tests.support.processes import run

pytestmark = [pytest.mark.slow, pytest.mark.rare]

PAGE = ROOT / "docs" / "how-to" / "use-your-own-pictures.md"


@pytest.mark.timeout(900)
def test_the_commands_of_the_page_lead_to_a_report(tmp_path: Path) -> None:
    write_photographs(tmp_path / "PHOTOS")
    lines = re.findall(r"(?m)^    uv run python -m (orchestrator\.\w+) (.*PHOTOS.*)$", PAGE.read_text())
    assert [module.rpartition(".")[2] for module, _ in lines] == ["inspect", "inspect", "sweep"]
    for module, words in lines:
        options = shlex.split(words)
        done = run(
            module, *options, *(["--name", "mine"] if module.endswith("sweep") else []), cwd=tmp_path, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "sweeps" / "mine"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and result["trials"]["finished"] + result["trials"]["pruned"] >= 1
    assert result["dataset"]["test_from"] == "carved from train"
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "Damaged images that were left out" in report and all(name in report for name in CLASSES)
    assert result["finals"]["winner"]["accuracy"]["mean"] > 0.5  # chance: a third
