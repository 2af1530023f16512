"""One .npz of all splits, in MedMNIST's form: grey and RGB, compressed or not, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.pictures import prepare
from trainables.config.reading import Reading
from trainables.data.published import find
from trainables.errors import DatasetError

COUNTS = {"train": 12, "val": 6, "test": 4}


def arrays(last: tuple[int, ...] = (), column: bool = True) -> dict[str, np.ndarray]:
    draws = np.random.default_rng([1, *last])
    made = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = draws.integers(0, 256, (count, 9, 9, *last), np.uint8)
        labels = (np.arange(count) % 2).astype(np.uint8)
        made[f"{split}_labels"] = labels[:, None] if column else labels
    return made


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("last", [(), (1,), (3,)])
def test_images_and_labels(tmp_path: Path, last: tuple[int, ...], column: bool, save: Callable[..., None]) -> None:
    (tmp_path / "data").mkdir()
    made = arrays(last, column)
    save(tmp_path / "data" / "pathmnist.npz", **made)
    dataset = prepare("own", tmp_path, tmp_path / "data")
    assert (dataset.channels, dataset.image_size, dataset.class_names) == (3 if last == (3,) else 1, 9, ("0", "1"))
    expected = made["test_images"].reshape(4, 9, 9, -1).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.split("test").images, expected)
    assert dataset.split("test").labels.tolist() == made["test_labels"].reshape(-1).tolist()
    assert len(dataset.split("train")) + len(dataset.split("validation")) == 12


def test_the_split_is_chosen_and_told_apart_in_one_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())  # type: ignore[arg-type]
    test, validation = (find("own", tmp_path, Reading(test_split=split)) for split in ("auto", "validation"))
    assert (test.facts.test_images, validation.facts.test_images) == (4, 6)
    assert test.fingerprint != validation.fingerprint
    without = {name: array for name, array in arrays().items() if name.startswith("train")}
    np.savez(tmp_path / "a.npz", **without)  # type: ignore[arg-type]
    carved = find("own", tmp_path)
    assert (carved.facts.train_images, carved.facts.test_images) == (10, 2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "train_labels .* only one label an image is supported"),
        ({"train_labels": np.zeros(12)}, "train_labels .* not float64"),
        ({"train_images": np.zeros((12, 9, 9, 9), np.uint8)}, r"train_images .* not uint8 \[12, 9, 9, 9\]"),
        ({"train_images": np.zeros((12, 9, 9))}, "train_images .* not float64"),
        ({"test_images": np.asfortranarray(np.ones((4, 9, 9), np.uint8))}, "test_images"),
        ({"train_labels": np.array([object()] * 12)}, "damaged or no .npz file"),
        ({"test_labels": np.array([[2]] * 4, np.uint8)}, "test_images of .* has class '2', of which"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **{**arrays(), **changed})
    with pytest.raises(DatasetError, match=message):
        find("own", tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays())  # type: ignore[arg-type]
    whole = bytearray((tmp_path / "a.npz").read_bytes())
    (tmp_path / "a.npz").write_bytes(whole[:500])
    with pytest.raises(DatasetError, match=r"a.npz is damaged or no .npz file"):
        find("own", tmp_path)
    whole[150:160] = b"\xff" * 10  # in the middle of the first array
    (tmp_path / "a.npz").write_bytes(whole)
    with pytest.raises(DatasetError, match=r"a.npz is damaged or no .npz file"):
        prepare("own", tmp_path / "cache", tmp_path)


def test_several_datasets_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", **arrays())  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=r"several datasets \(a\.npz, b\.npz\): give --data a folder"):
        find("own", tmp_path)
