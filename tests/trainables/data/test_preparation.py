"""The file that splits are written to: byte by byte Arrow's own, from blocks, whatever their size."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trainables.data import preparation
from trainables.data.preparation import SPLITS, StoredSplit, check_disk, statistics, write
from trainables.errors import DatasetError

SHAPE = (3, 5, 5)
METADATA: dict[str, Any] = {"format_version": 1, "shape": SHAPE, "mean": (0.5,), "std": (0.25,), "levels": 255}


def stored(images: np.ndarray) -> dict[str, StoredSplit]:
    """Splits of images in a made order: every third is validation, and the last ten are test."""
    rows = np.arange(len(images) - 10)
    parts = (rows[rows % 3 != 0], rows[rows % 3 == 0], np.arange(len(rows), len(images)))
    return {
        name: StoredSplit(
            shape=SHAPE, rows=part, labels=part % 7, read=lambda first, count: images[first : first + count]
        )
        for name, part in zip(SPLITS, parts, strict=True)
    }


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (100, *SHAPE), dtype=np.uint8)


class TestBlocks:
    @pytest.mark.parametrize("rows", [1, 4, 1000])
    def test_together_they_are_the_split(self, images: np.ndarray, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preparation, "_BLOCK_BYTES", rows * math.prod(SHAPE))
        for split in stored(images).values():
            for _ in range(2):
                blocks = list(split.blocks())
                assert max(map(len, blocks)) <= rows
                assert np.array_equal(np.concatenate(blocks), images[split.rows])

    @pytest.mark.parametrize("rows", [1, 4, 1000])
    def test_statistics_of_blocks_are_those_of_all_pixels(self, images: np.ndarray, rows: int) -> None:
        mean, std = statistics((images[first : first + rows] for first in range(0, len(images), rows)), 255)
        np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(std, (images / 255).std(axis=(0, 2, 3)), rtol=1e-9)
        assert (mean, std) == statistics([images], 255)


class TestWrite:
    @pytest.mark.parametrize("rows", [3, 1000])
    def test_the_file_is_what_arrow_writes_of_whole_arrays(
        self, images: np.ndarray, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preparation, "_BLOCK_BYTES", rows * math.prod(SHAPE))
        splits = stored(images)
        write(tmp_path / "ours.arrow", splits, METADATA)
        with pa.memory_map(str(tmp_path / "ours.arrow")) as file:
            schema = pa.ipc.open_file(file).schema
        with pa.OSFile(str(tmp_path / "arrow.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for split in splits.values():
                column = pa.FixedSizeListArray.from_arrays(images[split.rows].ravel(), type=schema.field("image").type)
                writer.write_batch(pa.record_batch([column, pa.array(split.labels)], schema=schema))
        assert (tmp_path / "ours.arrow").read_bytes() == (tmp_path / "arrow.arrow").read_bytes()

    def test_rows_and_digests_are_added(self, images: np.ndarray, tmp_path: Path) -> None:
        write(tmp_path / "ours.arrow", stored(images), METADATA)
        with pa.memory_map(str(tmp_path / "ours.arrow")) as file:
            metadata = {
                key.decode(): json.loads(value) for key, value in pa.ipc.open_file(file).schema.metadata.items()
            }
        assert metadata["rows"] == {"train": 60, "validation": 30, "test": 10}
        assert len({*metadata["split_digests"].values(), metadata["digest"]}) == 4

    def test_a_split_may_be_empty(self, images: np.ndarray, tmp_path: Path) -> None:
        splits = stored(images)
        nothing = np.arange(0)
        splits["test"] = StoredSplit(shape=SHAPE, rows=nothing, labels=nothing, read=splits["test"].read)
        write(tmp_path / "ours.arrow", splits, METADATA)
        with pa.memory_map(str(tmp_path / "ours.arrow")) as file:
            assert [pa.ipc.open_file(file).get_batch(number).num_rows for number in range(3)] == [60, 30, 0]


class TestDisk:
    def test_what_does_not_fit_is_refused_with_both_amounts(self, tmp_path: Path) -> None:
        place = tmp_path / "none" / "file"
        check_disk(place, 1, "one byte")
        with pytest.raises(DatasetError, match=r"^much needs 1,048,576.00 GiB in .*, where [\d,]+\.\d\d GiB are free"):
            check_disk(place, 2**50, "much")
        assert list(tmp_path.iterdir()) == []
