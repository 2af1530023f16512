"""The plan: its counts against formulas, for fewer classes, whitening, and datasets that the catalog does not know."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.planning.plan import Plan, make_plan
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.pictures import cifar10_parquet
from tests.support.processes import assert_refused, run
from trainables.errors import ConfigError

SPACE = (
    "from dataclasses import replace\nfrom search_spaces import load\nSPACE = replace(load('digits'), dataset='{}')\n"
)


def plan(dataset: str = "digits", data: Path | None = None, **values: Any) -> Plan:
    space = replace(load("digits"), dataset=dataset).override(values)
    return make_plan(sweep_settings(space=space, data=data))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two classes of 6 and 2 pictures of 16 × 16 pixels, as a folder and as Parquet; returns their parent."""
    for split, count in (("train", 6), ("test", 2)):
        encoded, labels = [], []
        for label in (0, 1):
            for number in range(count):
                file = tmp_path / "folder" / split / f"class {label}" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (99 * label, number, 0)).save(file)
                encoded.append(file.read_bytes())
                labels.append(label)
        (tmp_path / "parquet").mkdir(exist_ok=True)
        pq.write_table(pa.table({"image": encoded, "label": labels}), tmp_path / "parquet" / f"{split}.parquet")
    return tmp_path


@pytest.mark.parametrize("classes", [0, 3])
def test_experts_and_finals_count_the_images_of_the_kept_classes(classes: int) -> None:
    kept = classes or 10
    images = round(round(1437 * kept / 10) * 0.75)
    # Two blocks of 32 channels at 8 × 8 and 4 × 4 pixels, then 2 · 2 · 32 features.
    forward = 2 * 9 * 1 * 32 * 64 + 2 * 9 * 32 * 32 * 16 + 2 * 128 * kept
    few: dict[str, Any] = {"classes": classes, "expert_count": 4, "final_networks": 2, "final_seeds": 2, "trials": 5}
    made = plan(**few, baselines="none")
    assert made.operations["experts"] == 4 * 25 * images * forward * 6
    # Winner, reference and random images; winner and reference again with two seeds, each a distillation first.
    networks = 2 * forward * 3 * ((3 + 4) * kept * 1001 + images * 60)
    # Four experts' losses from 25 start epochs, for three sets: 20 gradients each on the chunk of trial 0.
    diagnostics = 3 * 4 * 25 * made.work.iteration.matched * forward * 3
    distilled = 4 * made.operations["search"] / 5
    assert made.operations["finals"] == pytest.approx(networks + diagnostics + distilled, rel=1e-12)
    assert made.expert_bytes == 4 * 26 * 4 * (9 * 32 + 96 + 9 * 32 * 32 + 96 + 128 * kept + kept)
    # Two coresets and what they are chosen by; these, random images and the winner, in two regimes.
    more = plan(**few, baselines="random,k_center,rded", regimes="hard,soft", regime_epochs=300)
    coresets = 2 * forward * 3 * (2 * kept * 1001 + 2 * 4 * kept * 300) + forward * 3 * images * (60 + 100)
    assert more.operations["finals"] - made.operations["finals"] == pytest.approx(coresets, rel=1e-12)


def test_whitening_costs_a_matrix_product_whenever_a_real_image_is_read() -> None:
    plain, whitened = plan(), plan(zca=True)
    images = round(1437 * 0.75)
    added = {stage: whitened.operations[stage] - plain.operations[stage] for stage in plain.operations}
    assert added["search"] == 0
    assert added["experts"] == pytest.approx(8 * 25 * images * 2 * 64**2, rel=1e-9)
    assert added["finals"] == pytest.approx(5 * 60 * images * 2 * 64**2, rel=1e-9)


@pytest.mark.parametrize("dataset", ["folder", "parquet", "own"])
def test_a_dataset_of_ones_own_is_counted_from_its_files(folders: Path, dataset: str) -> None:
    place = folders / ("parquet" if dataset == "own" else dataset)
    made = plan(dataset, place, expert_count=1, validation_share=0.5)
    forward = 2 * 9 * 3 * 32 * 256 + 2 * 9 * 32 * 32 * 64 + 2 * 512 * 2
    assert made.operations["experts"] == 25 * 6 * forward * 6


def test_a_catalogued_dataset_is_counted_from_its_files_where_they_are_given(tmp_path: Path) -> None:
    cifar10_parquet(tmp_path)  # 40 training images
    whole, given = plan("cifar10", expert_count=1), plan("cifar10", tmp_path, expert_count=1)
    assert whole.operations["experts"] / given.operations["experts"] == 50_000 / 40


@pytest.mark.parametrize("size", [16, 32])
def test_resized_images_cost_what_their_size_costs(size: int) -> None:
    forward = 2 * 9 * 1 * 32 * size**2 + 2 * 9 * 32 * 32 * (size // 2) ** 2 + 2 * 32 * (size // 4) ** 2 * 10
    made = plan(image_size=size, expert_count=1)
    assert made.operations["experts"] == 25 * round(1437 * 0.75) * forward * 6
    assert made.image_bytes == 1797 * size**2


def test_a_network_that_is_too_deep_for_the_images_is_refused(folders: Path) -> None:
    for given in (plan, lambda **values: plan("folder", folders / "folder", **values)):
        with pytest.raises(ConfigError, match="at least 16 pixels, not 8; use net_depth ≤ 3, or image_size ≥ 16"):
            given(image_size=8, net_depth=4)
    with pytest.raises(ConfigError, match=r"not 1; use image_size ≥ 4$"):
        plan(image_size=1)


def test_the_command_plans_it_too_or_refuses_in_a_line(folders: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.py"
    space.write_text(SPACE.format("folder"))
    planned = run("orchestrator.sweep", "--space", space, "--plan", "--data", folders / "folder")
    assert planned.returncode == 0, planned.stderr
    assert "total" in planned.stdout and "Note:" not in planned.stdout
    resized = run(
        "orchestrator.sweep", "--space", space, "--plan", "--data", folders / "folder", "--set", "image_size=2"
    )
    assert_refused(resized, "net_depth ≤ 1, or image_size ≥ 4")
    shutil.rmtree(folders / "folder" / "test")
    (folders / "folder" / "train" / ".DS_Store").write_bytes(b"")
    noted = run("orchestrator.sweep", "--space", space, "--plan", "--data", folders / "folder")
    assert "Note: The files have no test split: 0.2 of each class's training images became it" in noted.stdout
    assert "Note: Files or folders that were left out: 1 hidden" in noted.stdout
    chosen = ["--space", space, "--plan", "--data", folders / "folder", "--set", "test_split=validation"]
    assert_refused(run("orchestrator.sweep", *chosen), "has no validation split, only train: leave test_split out")
    assert_refused(run("orchestrator.sweep", "--space", space, "--plan"), "folder needs its files", "--data")
    assert_refused(
        run("orchestrator.sweep", "--space", "digits", "--plan", "--set", "classes=11"), "2 to 10 for digits, not 11"
    )
