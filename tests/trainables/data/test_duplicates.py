"""Images that occur more than once: counted by their pixels alone, once."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.pictures import picture, prepare, write_parquet
from trainables.data import duplicates
from trainables.data.duplicates import duplicates_of


def made(folder: Path, train: list[np.ndarray], test: list[np.ndarray], labels: list[int]) -> Path:
    """Return a prepared dataset of two classes; the test images' labels are 0, 1, 0, 1 …"""
    write_parquet(folder / "data" / "train.parquet", train, labels)
    write_parquet(folder / "data" / "test.parquet", test, [number % 2 for number in range(len(test))])
    return prepare("parquet", folder, folder / "data").path


def different(count: int, seed: int) -> list[np.ndarray]:
    return [picture(number, 8, seed) for number in range(count)]


def test_images_that_all_differ_have_none(tmp_path: Path) -> None:
    found = duplicates_of(made(tmp_path, different(8, 0), different(4, 1), [0, 1] * 4))
    assert (found.test, found.test_in_train, found.within_train, found.warning) == (4, 0, 0, "")


def test_test_images_in_train_or_validation_are_counted_whatever_their_label(tmp_path: Path) -> None:
    train = different(8, 0)
    # Every training image is a test image, so those of the validation split are too; labels differ for half of them.
    test = [*train, *train[:2], picture(99, 8)]
    found = duplicates_of(made(tmp_path, train, test, [0, 0, 0, 0, 1, 1, 1, 1]))
    assert (found.test, found.test_in_train, found.within_train) == (11, 10, 0)
    assert "10 of 11 test images are also training images" in found.warning


def test_repeats_within_train_count_all_but_the_first(tmp_path: Path) -> None:
    one, other, *rest = different(6, 0)
    found = duplicates_of(made(tmp_path, [one, one, one, other, other, *rest], different(2, 1), [0] * 5 + [1] * 4))
    assert (found.test_in_train, found.within_train) == (0, 3)


def test_one_grey_value_makes_a_difference(tmp_path: Path) -> None:
    train = different(4, 0)
    near = train[0].copy()
    near[0, 0, 0] += 1
    found = duplicates_of(made(tmp_path, train, [near, train[1]], [0, 1] * 2))
    assert found.test_in_train == 1


def test_they_are_counted_once_and_again_for_other_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = different(4, 0)
    path = made(tmp_path, train, train[:2], [0, 1] * 2)
    found = duplicates_of(path)
    kept = path.with_name(f"{path.stem}.duplicates.json")
    assert json.loads(kept.read_text())["version"] == duplicates.FORMAT_VERSION
    monkeypatch.setattr(duplicates, "pixel_keys", None)
    assert duplicates_of(path) == found
    monkeypatch.undo()
    for change in ({"digest": "another"}, {"version": 0}):
        kept.write_text(json.dumps({**json.loads(kept.read_text()), **change, "test_in_train": 77}))
        assert duplicates_of(path) == found
