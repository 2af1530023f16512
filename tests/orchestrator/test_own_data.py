"""A whole sweep on a folder of image files that nobody knows, whitened, on its first classes."""

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from sklearn.datasets import load_digits

from tests.support.processes import run
from tests.support.sweeps import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.rare]

SPACE = """from dataclasses import replace
from search_spaces import load
SPACE = replace(load("digits"), dataset="folder")
"""


def test_a_sweep_on_a_folder_of_images(tmp_path: Path) -> None:
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = tmp_path / "data" / ("val" if number % 5 == 0 else "train") / f"digit {label}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(file)
    (tmp_path / "space.py").write_text(SPACE)
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
    datasets = [path.name for path in (tmp_path / "runs" / "datasets").iterdir()]
    stem = min(datasets, key=len).removesuffix(".arrow")
    assert sorted(datasets) == [f"{stem}-first-4.arrow", f"{stem}-first-4.zca.safetensors", f"{stem}.arrow"]
