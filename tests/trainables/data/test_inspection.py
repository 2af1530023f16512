"""Counts and means of classes against closed forms, in blocks."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.pictures import picture, prepare, write_parquet
from trainables.data import preparation
from trainables.data.inspection import class_contents


@pytest.mark.parametrize("block", [1, 400, 2**20])
def test_counts_and_means_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(preparation, "_BLOCK_BYTES", block)
    labels = [0] * 5 + [1] * 9 + [2] * 6
    pictures = [picture(60 * label, 6, number) for number, label in enumerate(labels)]
    write_parquet(tmp_path / "data" / "train.parquet", pictures, labels)
    write_parquet(
        tmp_path / "data" / "test.parquet", [picture(60 * label, 6, 99) for label in (2, 0, 1, 2)], [2, 0, 1, 2]
    )
    dataset = prepare("parquet", tmp_path, tmp_path / "data", share=0.4)
    found = class_contents(dataset.path)
    assert [(each.train, each.validation, each.test) for each in found] == [(3, 2, 1), (5, 4, 1), (4, 2, 2)]
    assert [each.name for each in found] == list(dataset.class_names)
    train = dataset.split("train")
    for label, each in enumerate(found):
        expected = train.images[train.labels == label].astype(np.float64).mean(axis=(0, 2, 3)) / 255
        assert each.mean == pytest.approx(expected, abs=1e-12)
    # The mean of the classes' means, weighted by their images, is the dataset's mean.
    weights = np.array([each.train for each in found]) / len(train)
    assert np.array([each.mean for each in found]).T @ weights == pytest.approx(np.array(dataset.mean), abs=1e-12)


def test_the_digits_are_divided_by_their_sixteen_levels(tmp_path: Path) -> None:
    dataset = prepare("digits", tmp_path)
    train = dataset.split("train")
    for label, each in enumerate(class_contents(dataset.path)):
        assert each.mean == pytest.approx([train.images[train.labels == label].mean() / 16])
