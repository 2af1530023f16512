"""`inspect`: what it says about folders as people have them, and the space that it writes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from benchmarks.photographs import CLASSES, write_photographs
from orchestrator.inspect import main
from orchestrator.sweep import main as sweep
from search_spaces import load
from tests.support.pictures import encode, image_folder, picture, write_parquet
from trainables.config.reading import Reading
from trainables.data import datasets


def inspect(tmp_path: Path, *options: object, data: Path | None = None) -> Result:
    places = ["--workdir", tmp_path / "runs", *(["--data", data or tmp_path / "data"])]
    return CliRunner().invoke(main, [*map(str, places), *map(str, options)])


def described(tmp_path: Path, *options: object, data: Path | None = None) -> dict[str, Any]:
    done = inspect(tmp_path, "--json", tmp_path / "found.json", *options, data=data)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    return found


def refused(done: Result, *words: str) -> None:
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    for word in words:
        assert word in line, line


class TestDescribed:
    def test_counts_sizes_and_means_of_a_folder(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        found = described(tmp_path, "--set", "validation_share=0.25")
        assert found["version"] == 1 and found["test_from"] == "test" and found["skipped"] == {}
        assert found["classes"] == [
            {"name": name, "train": 3, "validation": 1, "test": 2} for name in ("Bee", "ant", "cow")
        ]
        assert (found["image_size"], found["channels"]) == (12, 3)
        assert found["sizes"] == [{"width": 12, "height": 12, "count": 18}] and found["modes"] == {"RGB": 18}
        assert found["settings"] == {"validation_share": 0.25}
        # The dataset that a sweep prepares from the same folder.
        path = datasets.prepare("own", cache=tmp_path / "other", data=tmp_path / "data", validation_share=0.25)
        prepared = datasets.load(path, datasets.SPLITS)
        assert (found["mean"], found["std"]) == (list(prepared.mean), list(prepared.std))
        assert found["digest"] == prepared.digest
        train = prepared.split("train")
        for label, name in enumerate(prepared.class_names):
            expected = train.images[train.labels == label].mean(axis=(0, 2, 3)) / 255
            assert found["class_means"][name] == pytest.approx(expected)

    def test_photographs_of_all_sizes_are_resized_and_damaged_ones_named(self, tmp_path: Path) -> None:
        write_photographs(tmp_path / "data", each=20)
        done = inspect(tmp_path, "--json", tmp_path / "found.json")
        assert done.exit_code == 0, done.output
        for words in ("resized to 64 × 64 with image_size=64", "2 damaged", "IMG_0000.jpg", "IMG_0001.jpg"):
            assert words in done.output
        found = json.loads((tmp_path / "found.json").read_text())
        assert found["skipped"] == {"hidden": 8, "damaged": 2} and found["test_from"] == "carved from train"
        assert found["image_size"] == 64 and found["settings"] == {"image_size": 64, "damaged": "skip"}
        totals = {each["name"]: each["train"] + each["validation"] + each["test"] for each in found["classes"]}
        assert totals == {CLASSES[0]: 19, CLASSES[1]: 19, CLASSES[2]: 20}
        assert len(found["damaged"]) == 2 and found["modes"]["RGBA"] == 6

    def test_exif_and_fit_are_applied_as_in_a_sweep(self, tmp_path: Path) -> None:
        write_photographs(tmp_path / "data", each=10)
        options = {"image_size": 16, "fit": "pad", "background": "#102030", "damaged": "skip", "test_share": 0.3}
        found = described(tmp_path, *[word for pair in options.items() for word in ("--set", "{}={}".format(*pair))])
        reading = Reading.from_settings(options)
        path = datasets.prepare(
            "own", cache=tmp_path / "other", data=tmp_path / "data", validation_share=0.1, reading=reading
        )
        assert found["digest"] == datasets.load(path).digest and found["settings"] == options

    def test_only_the_first_classes(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        found = described(tmp_path, "--set", "classes=2")
        assert [each["name"] for each in found["classes"]] == ["Bee", "ant"] == list(found["class_means"])

    def test_a_known_dataset(self, tmp_path: Path) -> None:
        done = CliRunner().invoke(main, ["--dataset", "digits", "--workdir", str(tmp_path)])
        assert done.exit_code == 0, done.output
        assert "python -m orchestrator.sweep --space digits\n" in done.output and "resized" not in done.output

    def test_a_damaged_first_picture_does_not_hide_the_size(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        (tmp_path / "data" / "train" / "Bee" / "0.png").write_bytes(b"")
        found = described(tmp_path)
        assert (found["image_size"], found["settings"]["damaged"]) == (12, "skip")


class TestLeaks:
    def test_test_images_among_the_training_images_are_warned_of(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        for number in (0, 1):
            shutil.copy(tmp_path / "data/train/cow/0.png", tmp_path / f"data/test/ant/copy {number}.png")
        shutil.copy(tmp_path / "data/train/cow/1.png", tmp_path / "data/train/Bee/copy.png")
        done = inspect(tmp_path, "--json", tmp_path / "found.json")
        assert "Warning: 2 of 8 test images are also training images" in done.output
        found = json.loads((tmp_path / "found.json").read_text())
        assert found["duplicates"] == {"test_in_train": 2, "within_train": 1}

    def test_none(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        assert "Warning" not in inspect(tmp_path).output
        assert described(tmp_path)["duplicates"] == {"test_in_train": 0, "within_train": 0}


class TestSheets:
    def test_a_sheet_of_each_class_shows_its_training_images(self, tmp_path: Path) -> None:
        colors = {"red": (250, 0, 0), "blue/green": (0, 200, 200)}
        for label, color in enumerate(colors.values()):
            for split in ("train", "test"):
                for number in range(4):
                    file = tmp_path / "data" / split / f"{label}\n|" / f"{number}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(encode(np.full((8, 8, 3), (*color[:2], color[2] + number), np.uint8)))
        done = inspect(tmp_path, "--out", tmp_path / "sheets")
        assert done.exit_code == 0 and "Contact sheets: " in done.output
        sheets = sorted((tmp_path / "sheets").iterdir())
        assert [sheet.name for sheet in sheets] == ["000-0_.png", "001-1_.png"]
        for sheet, color in zip(sheets, colors.values(), strict=True):
            with Image.open(sheet) as image:
                pixels = np.asarray(image).reshape(-1, 3)
            shown = (np.abs(pixels.astype(int) - color).max(axis=1) < 5).sum()
            assert shown == 3 * 96 * 96  # one of four is the validation split's

    def test_they_are_in_the_workdir_otherwise(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        found = described(tmp_path)
        folder = tmp_path / "runs" / "inspect" / f"own-{found['digest'][:8]}"
        assert len(list(folder.glob("*.png"))) == 3


class TestSpace:
    def test_a_written_space_is_planned_as_it_is(self, tmp_path: Path) -> None:
        write_photographs(tmp_path / "data", each=20)
        file = tmp_path / "my_space.py"
        done = inspect(tmp_path, "--write-space", file)
        assert done.exit_code == 0, done.output
        command = f"python -m orchestrator.sweep --space {file} --data {tmp_path / 'data'}"
        assert f"  {command}\n" in done.output and command in file.read_text(encoding="utf-8")
        space = load(file)
        values = {name: space.fixed[name].value for name in ("image_size", "damaged", "ipc", "fit")}
        assert values == {"image_size": 64, "damaged": "skip", "ipc": 1, "fit": "crop"}
        assert (space.name, space.dataset) == ("my_space", "own")
        assert "2 damaged files" in file.read_text(encoding="utf-8")
        planned = CliRunner().invoke(sweep, [*command.split()[3:], "--plan", "--workdir", str(tmp_path / "runs")])
        assert planned.exit_code == 0 and "total" in planned.output, planned.output

    def test_it_names_no_damage_where_there_is_none_and_keeps_what_was_set(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        file = tmp_path / "mine.py"
        done = inspect(tmp_path, "--write-space", file, "--set", "ipc=2", "--set", "validation_share=0.4")
        assert done.exit_code == 0, done.output
        space = load(file)
        assert (space.fixed["ipc"].value, space.fixed["validation_share"].value) == (2, 0.4)
        assert "damaged" not in file.read_text(encoding="utf-8") and space.fixed["image_size"].value == 0

    def test_the_commands_are_told_without_one(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "my data")
        output = inspect(tmp_path, "--set", "image_size=8", data=tmp_path / "my data").output
        inspected = f"python -m orchestrator.inspect --data '{tmp_path}/my data' --set image_size=8 --write-space"
        assert f"{inspected} my_space.py\n" in output
        assert f"python -m orchestrator.sweep --space my_space.py --data '{tmp_path}/my data'\n" in output


class TestRefused:
    def test_a_space_that_exists_or_cannot_be_one_before_any_work(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        (tmp_path / "mine.py").write_text("kept")
        for name, words in (
            ("mine.py", "exists; name a new file"), ("mine.txt", "end its name in .py"), ("no/mine.py", "create"),
            ("my space.py", "letters, digits"),
        ):  # fmt: skip
            refused(inspect(tmp_path, "--write-space", tmp_path / name), words)
        assert (tmp_path / "mine.py").read_text() == "kept" and not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("setting", "words"),
        [
            ("image_size=big", "image_size must be a whole number"),
            ("fit=stretch", "fit must be a word (crop or pad or squash)"),
            ("imagesize=8", "did you mean image_size?"),
            ("N=5", "inspect does not read N"),
            ("classes=4", "2 to 3 for own, not 4"),
            ("ipc=9", "fewer than ipc = 9"),
            ("test_split=validation", "has no validation split, only train and test"),
        ],
    )
    def test_settings_as_in_a_sweep(self, tmp_path: Path, setting: str, words: str) -> None:
        image_folder(tmp_path / "data")
        refused(inspect(tmp_path, "--set", setting, "--json", tmp_path / "found.json"), words)
        assert not (tmp_path / "found.json").exists()

    def test_damage_that_is_to_be_refused(self, tmp_path: Path) -> None:
        write_photographs(tmp_path / "data", each=10)
        refused(inspect(tmp_path, "--set", "damaged=refuse"), "2 of 30 images cannot be decoded", "IMG_0000.jpg")

    def test_no_folder_nothing_in_it_and_one_class(self, tmp_path: Path) -> None:
        refused(inspect(tmp_path), "is not a folder")
        (tmp_path / "data").mkdir()
        refused(inspect(tmp_path), "does not hold own")
        refused(CliRunner().invoke(main, ["--workdir", str(tmp_path)]), "pass --data DIR")
        write_parquet(tmp_path / "data" / "train.parquet", [picture(1, 8, seed) for seed in range(5)], [3] * 5)
        refused(inspect(tmp_path), "two classes")
