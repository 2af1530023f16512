"""Whole sweeps on folders of images that nobody knows: whitened, on the first classes; classes of any name."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

from tests.support.processes import run
from tests.support.sweeps import SMALL
from trainables.data.names import folder_names, shortened
from trainables.data.synthetic import read_synthetic

pytestmark = [pytest.mark.slow, pytest.mark.rare]

SPACE = """from dataclasses import replace
from search_spaces import load
SPACE = replace(load("digits"), dataset="folder")
"""


NAMES = (
    "$0_to_$10", "$\\frac{$", "a|b", "<i>", "two\nlines", "x" * 200, "猫と犬", "قطة", "=😀 *b* `c`", "\x1b[31m[red]",
)  # fmt: skip


def write_digits(folder: Path, names: Sequence[str]) -> None:
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / "data" / ("val" if number % 5 == 0 else "train") / names[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(file)
    (folder / "space.py").write_text(SPACE)


def test_a_sweep_on_classes_of_any_name(tmp_path: Path) -> None:
    write_digits(tmp_path, NAMES)
    places = ["--data", tmp_path / "data", "--workdir", tmp_path / "runs", "--name", "own"]
    done = run("orchestrator.sweep", *SMALL, "--space", tmp_path / "space.py", "--trials", 1, *places)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Glyph" not in done.stderr and "Warning" not in done.stderr and "\x1b[31m" not in done.stdout + done.stderr
    folder = tmp_path / "runs" / "sweeps" / "own"
    page = (folder / "report.html").read_text(encoding="utf-8")
    cells = [html.unescape(cell) for cell in re.findall(r"<tr>\n<td>(.*?)</td>\n<td>\d+</td>\n<td>[\d.]+ ± ", page)]
    assert sorted(cells) == sorted(shortened(name, 60) for name in NAMES)
    written = read_synthetic(folder / "synthetic.safetensors")
    assert written.class_names == tuple(sorted(NAMES))
    again = run("orchestrator.report", "--sweep", "own", "--workdir", tmp_path / "runs")
    assert again.returncode == 0 and again.stderr == "", again.stderr
    exported = run(
        "orchestrator.export", "--sweep", "own", "--to", "folder", "--workdir", tmp_path / "runs", "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert exported.returncode == 0 and "Test accuracy of 3 networks" in exported.stdout, exported.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == sorted(folder_names(NAMES))


def test_a_sweep_on_a_folder_of_images(tmp_path: Path) -> None:
    write_digits(tmp_path, [f"digit {label}" for label in range(10)])
    options = [*SMALL, "--space", tmp_path / "space.py", "--trials", 1, "--set", "classes=4", "--set", "zca=true"]
    places = ["--data", tmp_path / "data", "--workdir", tmp_path / "runs", "--name", "own"]
    done = run("orchestrator.sweep", *options, *places)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "runs" / "sweeps" / "own" / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["best"]["validation_accuracy"] > 0.5  # chance: .25
    assert result["finals"]["winner"]["accuracy"]["mean"] > 0.5
    with safe_open(tmp_path / "runs" / "sweeps" / "own" / "synthetic.safetensors", framework="np") as file:
        assert file.get_slice("images").get_shape() == [4, 3, 8, 8]
    datasets = [path.name for path in (tmp_path / "runs" / "datasets").iterdir() if path.suffix != ".json"]
    stem = min(datasets, key=len).removesuffix(".arrow")
    assert sorted(datasets) == [f"{stem}-first-4.arrow", f"{stem}-first-4.zca.safetensors", f"{stem}.arrow"]
