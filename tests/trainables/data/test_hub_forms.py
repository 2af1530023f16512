"""Forms that the Hugging Face library writes, read as that library reads them."""

import io
from pathlib import Path
from typing import Any

import datasets as hub
import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import picture
from trainables.config.reading import Reading
from trainables.data.published import find
from trainables.data.source import FoundSplit
from trainables.errors import DatasetError


def made(labels: list[int], names: list[str], seed: int) -> Any:
    """A dataset of the hub's features: images, and labels with names."""
    pixels = [Image.fromarray(picture(50 * label, 8, 100 * seed + row)) for row, label in enumerate(labels)]
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=names)})
    return hub.Dataset.from_dict({"image": pixels, "label": labels}, features=features)


@pytest.fixture
def splits() -> Any:
    return hub.DatasetDict(
        train=made([0, 1, 2] * 4, ["cat", "dog", "cow"], 1), test=made([2, 1, 0, 0], ["cow", "dog", "cat"], 2)
    )


def pixels_of(split: FoundSplit) -> list[np.ndarray]:
    return [
        np.asarray(
            Image.open(each.content if isinstance(each.content, Path) else io.BytesIO(bytes(each.content or b"")))
        )
        for each in split.pictures()
    ]


def check(data: Path, expected: Any) -> None:
    """Compare our reading with the library's, class by class by name."""
    source = find("own", data)
    found = source.open()
    assert source.facts.image_size == 8
    assert found.class_names == tuple(expected["train"].features["label"].names)
    for ours, theirs in ((found.train, expected["train"]), (found.test, expected["test"])):
        names = theirs.features["label"].int2str(theirs["label"][:])
        assert [found.class_names[label] for label in ours.labels] == names
        for mine, image in zip(pixels_of(ours), theirs["image"][:], strict=True):
            assert np.array_equal(mine, np.asarray(image))


class TestParquet:
    def test_what_the_library_writes(self, tmp_path: Path, splits: Any) -> None:
        (tmp_path / "data").mkdir()
        for split, dataset in splits.items():
            for shard in range(2):
                part = dataset.shard(2, shard, contiguous=True)
                part.to_parquet(str(tmp_path / "data" / f"{split}-0000{shard}-of-00002.parquet"), batch_size=2)
        check(tmp_path, splits)


class TestSavedToDisk:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_splits(self, tmp_path: Path, splits: Any, shards: int) -> None:
        splits.save_to_disk(str(tmp_path / "saved"), num_shards={"train": shards, "test": 1})
        check(tmp_path / "saved", hub.load_from_disk(str(tmp_path / "saved")))
        assert "save_to_disk" in find("own", tmp_path / "saved").findings.layout

    def test_one_dataset_is_train(self, tmp_path: Path, splits: Any) -> None:
        splits["train"].save_to_disk(str(tmp_path / "saved"))
        source = find("own", tmp_path / "saved", Reading(test_share=0.25))
        assert (source.facts.train_images, source.facts.test_images) == (9, 3)

    def test_columns_of_pixels(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
        features = hub.Features({"img": hub.Array3D((6, 6, 3), "uint8"), "label": hub.Value("string")})
        dataset = hub.Dataset.from_dict({"img": list(pixels), "label": ["b", "a"] * 4}, features=features)
        hub.DatasetDict(train=dataset, validation=dataset).save_to_disk(str(tmp_path / "saved"))
        found = find("own", tmp_path / "saved").open()
        assert found.class_names == ("a", "b") and found.test.labels.tolist() == [1, 0] * 4
        read = np.stack([np.asarray(each.content) for each in found.train.pictures()])
        assert np.array_equal(read, pixels.transpose(0, 3, 1, 2))

    def test_a_file_that_is_missing_or_damaged_is_named(self, tmp_path: Path, splits: Any) -> None:
        splits.save_to_disk(str(tmp_path / "saved"))
        file = next((tmp_path / "saved" / "train").glob("*.arrow"))
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(DatasetError, match=r"\.arrow is damaged or not an Arrow stream"):
            find("own", tmp_path / "saved")
        file.unlink()
        with pytest.raises(DatasetError, match=r"train lacks data-.*\.arrow, which its state\.json names"):
            find("own", tmp_path / "saved")
        (tmp_path / "saved" / "train" / "state.json").write_text("[]")
        with pytest.raises(DatasetError, match=r"state\.json cannot be read"):
            find("own", tmp_path / "saved")


def test_an_image_folder_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(picture(90 * label, 8, number)).save(tmp_path / "data" / split / name / f"{number}.png")
    loaded = hub.load_dataset("imagefolder", data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    check(tmp_path / "data", loaded)
