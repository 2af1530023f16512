"""From a found source to the prepared file: sizes, damage, interruptions, memory."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.paths import ROOT
from tests.support.pictures import cifar10_parquet, encode, image_folder, picture, prepare, tiny_folder, write_parquet
from trainables.config.reading import AS_IT_IS, Reading
from trainables.data import catalog, datasets, decoding
from trainables.data.catalog import own_facts
from trainables.data.image_files import Wanted, read_pixels
from trainables.data.published import find
from trainables.data.source import FoundImages, FoundSplit, Picture, Source
from trainables.errors import ConfigError, DatasetError

FOUR = Reading(image_size=4)
SKIP = Reading(damaged="skip")


def mixed_folder(folder: Path) -> list[Path]:
    """A folder like `image_folder`'s whose images have sizes from 8 × 8 to 9 × 12; returns its files."""
    image_folder(folder)
    files = sorted(folder.rglob("*.png"))
    for number, file in enumerate(files):
        width, height = ((8, 8), (9, 12), (12, 8))[number % 3]
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    return files


class TestSizes:
    @pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
    def test_any_sizes_become_one(self, tmp_path: Path, fit: str) -> None:
        files = mixed_folder(tmp_path / "data")
        dataset = prepare("folder", tmp_path, tmp_path / "data", reading=Reading(image_size=6, fit=fit))
        assert (dataset.image_size, dataset.levels) == (6, 255)
        made = {
            "crop": lambda image: ImageOps.fit(image, (6, 6)),
            "pad": lambda image: ImageOps.pad(image, (6, 6), color="white"),
            "squash": lambda image: image.resize((6, 6)),
        }[fit]
        expected = [np.asarray(made(Image.open(file))).transpose(2, 0, 1) for file in files if "test" in file.parts]
        order = sorted((file for file in files if "test" in file.parts), key=lambda file: (file.parent.name, file.name))
        assert [file for file in files if "test" in file.parts] == order
        assert np.array_equal(dataset.split("test").images, np.stack(expected))

    def test_without_a_size_the_range_and_the_key_are_told(self, tmp_path: Path) -> None:
        mixed_folder(tmp_path / "data")
        with pytest.raises(DatasetError) as caught:
            prepare("folder", tmp_path, tmp_path / "data")
        assert "have 8 × 8 to 9 × 12: resize them with --set image_size=8" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "cache").exists()

    def test_one_size_that_is_not_square_is_told_too(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "data")
        for file in (tmp_path / "data").rglob("*.png"):
            Image.new("RGB", (10, 20)).save(file)
        with pytest.raises(DatasetError, match=r"has 10 × 20 pixels, and all have 10 × 20 to 10 × 20: resize"):
            prepare("folder", tmp_path, tmp_path / "data")

    def test_catalogued_datasets_are_shrunk(self, tmp_path: Path) -> None:
        tiny_folder(tmp_path / "data")
        source = find("tiny_imagenet", tmp_path / "data", Reading(image_size=32))
        assert source.facts.image_size == 32
        dataset = prepare("tiny_imagenet", tmp_path, tmp_path / "data", share=0.34, reading=Reading(image_size=32))
        assert dataset.image_size == 32 and dataset.mean == catalog.facts("tiny_imagenet").mean
        file = tmp_path / "data" / "val" / "images" / "val_0.JPEG"
        expected = np.asarray(Image.open(file).convert("RGB").resize((32, 32))).transpose(2, 0, 1)
        assert np.array_equal(dataset.split("test").images[0], expected)

    def test_so_are_arrays_whose_levels_become_255(self, tmp_path: Path) -> None:
        plain, small = prepare("digits", tmp_path), prepare("digits", tmp_path, reading=FOUR)
        assert (small.image_size, small.levels, plain.levels) == (4, 255, 16)
        assert np.array_equal(small.split("train").labels, plain.split("train").labels)
        # Bicubic weights sum to 1, so the mean stays but for the border's clipping.
        assert small.mean[0] == pytest.approx(plain.mean[0], abs=0.02)

    def test_reading_changes_digest_and_file_only_where_it_differs(self, tmp_path: Path) -> None:
        made = [prepare("digits", tmp_path, reading=reading) for reading in (AS_IT_IS, Reading(), FOUR)]
        assert made[0].path == made[1].path != made[2].path
        assert made[0].digest != made[2].digest


class TestDamage:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        """Ten classes, 4 training and 2 test images each; 13 of the training images are damaged or not there."""
        image = encode(picture(0, 12))
        labels = np.tile(np.arange(10), 4)
        pictures: list[Any] = [picture(int(label), 12, row) for row, label in enumerate(labels)]
        pictures[:13] = [image[:50] if row % 2 else None for row in range(13)]
        write_parquet(tmp_path / "data" / "train.parquet", pictures, labels.tolist())
        write_parquet(tmp_path / "data" / "test.parquet", [picture(label, 12, 99) for label in range(10)], range(10))
        return tmp_path / "data"

    def test_all_are_told_at_once(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(DatasetError) as caught:
            prepare("parquet", tmp_path, data, reading=AS_IT_IS)
        text = str(caught.value)
        assert text.startswith("13 of 50 images cannot be decoded: ") and "\n" not in text
        named = [f"train.parquet row {row} (" for row in range(10)]
        assert all(name in text for name in named) and "row 10 (" not in text
        assert "and 3 more: fetch them again, or leave them out with --set damaged=skip" in text
        assert not (tmp_path / "cache").exists()

    def test_left_out_they_are_counted_and_the_digest_knows(self, data: Path, tmp_path: Path) -> None:
        dataset = prepare("parquet", tmp_path, data, reading=SKIP)
        assert dataset.damage is not None and dataset.damage.count == 13 and len(dataset.damage.first) == 10
        kept = np.arange(13, 40)
        assert len(dataset.split("train")) + len(dataset.split("validation")) == len(kept)
        both = np.concatenate([dataset.split(split).labels for split in ("train", "validation")])
        assert np.array_equal(np.bincount(both), np.bincount(kept % 10))
        shown = {image.tobytes() for split in ("train", "validation") for image in dataset.split(split).images}
        assert shown == {picture(row % 10, 12, row).transpose(2, 0, 1).tobytes() for row in range(13, 40)}
        few = prepare("parquet", tmp_path, data, reading=SKIP, classes=4)
        assert few.damage == dataset.damage

    def test_without_damage_nothing_is_said(self, tmp_path: Path) -> None:
        cifar10_parquet(tmp_path / "data")
        whole, skipping = (prepare("cifar10", tmp_path, tmp_path / "data", reading=each) for each in (AS_IT_IS, SKIP))
        assert whole.damage is skipping.damage is None
        assert whole.digest == skipping.digest

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_class_that_loses_all_its_images_is_refused(self, tmp_path: Path, split: str) -> None:
        image_folder(tmp_path / "data")
        for file in (tmp_path / "data" / split / "cow").iterdir():
            file.write_bytes(b"no image")
        with pytest.raises(DatasetError, match=rf"all images of the class 'cow' in .*{split} are damaged, as .*cow/0"):
            prepare("folder", tmp_path, tmp_path / "data", reading=SKIP)


def made_source(images: list[np.ndarray], began: list[int], stop_at: int | None = None) -> Source:
    """A source of arrays of two classes; it is interrupted before image `stop_at`, and says where reading began."""

    def pictures(first: int, last: int) -> Iterator[Picture]:
        for row in range(first, last):
            if row == stop_at:
                raise KeyboardInterrupt
            began.append(row)
            yield Picture(f"image {row}", images[row])

    def split(first: int, last: int) -> FoundSplit:
        return FoundSplit(where="it", labels=np.arange(first, last) % 2, pictures=lambda: pictures(first, last))

    size = images[0].shape[1]
    half = len(images) // 2
    return Source(
        facts=own_facts(
            "folder",
            classes=2,
            channels=len(images[0]),
            image_size=size,
            train_images=half,
            test_images=len(images) - half,
        ),
        fingerprint="made",
        open=lambda: FoundImages(train=split(0, half), test=split(half, len(images)), class_names=("a", "b")),
    )


class TestInterruption:
    def test_it_goes_on_and_ends_with_the_same_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decoding, "_BLOCK_BYTES", 7 * 3 * 4 * 4)
        decoded: list[int] = []

        def counted(given: Picture, wanted: Wanted) -> np.ndarray:
            decoded.append(1)
            return read_pixels(given, wanted)

        monkeypatch.setattr(decoding, "read_pixels", counted)
        images = list(np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8))
        options: dict[str, Any] = {"validation_share": 0.25, "reading": AS_IT_IS}
        whole = datasets.prepare_source(made_source(images, []), cache=tmp_path / "whole", **options)
        assert len(decoded) == 40
        for stop_at in (10, 33):  # in the training images, and in the test images
            with pytest.raises(KeyboardInterrupt):
                datasets.prepare_source(made_source(images, [], stop_at), cache=tmp_path / "again", **options)
        assert not list((tmp_path / "again").glob("*.arrow"))
        decoded.clear()
        done: list[tuple[int, int]] = []
        again = datasets.prepare_source(
            made_source(images, []), cache=tmp_path / "again", progress=lambda *call: done.append(call), **options
        )
        assert len(decoded) == 40 - 28  # four blocks of seven were whole
        assert done[0] == (28, 40) and done[-1] == (40, 40)
        assert again.read_bytes() == whole.read_bytes()
        assert list((tmp_path / "again").iterdir()) == [again]

    def test_a_finder_that_gives_fewer_images_than_labels_is_told(self, tmp_path: Path) -> None:
        images = [np.zeros((3, 4, 4), np.uint8)] * 10
        source = made_source(images, [])
        found = source.open()
        short = FoundSplit(where="it", labels=found.test.labels, pictures=lambda: iter([Picture("one", images[0])]))
        broken = Source(
            facts=source.facts, fingerprint="made",
            open=lambda: FoundImages(train=found.train, test=short, class_names=("a", "b")),
        )  # fmt: skip
        with pytest.raises(DatasetError, match="must have an image for each of 10 labels, but have 6 images"):
            datasets.prepare_source(broken, cache=tmp_path, validation_share=0.25)


PREPARE = """
import resource, sys
from pathlib import Path
import numpy as np
from trainables.data import datasets
from trainables.data.catalog import own_facts
from trainables.data.source import FoundImages, FoundSplit, Picture, Source

count, size = int(sys.argv[2]), 128
kinds = np.random.default_rng(0).integers(0, 256, (7, 3, size, size), dtype=np.uint8)

def split(count):
    pictures = lambda: (Picture(f"image {row}", kinds[row % 7]) for row in range(count))
    return FoundSplit(where="it", labels=np.arange(count) % 2, pictures=pictures)

def source(count):
    return Source(
        facts=own_facts("folder", classes=2, image_size=size, train_images=count, test_images=20),
        fingerprint=f"made {count}",
        open=lambda: FoundImages(train=split(count), test=split(20), class_names=("a", "b")),
    )

for images in (50, count):  # the first loads the libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = datasets.prepare_source(
        source(images), cache=Path(sys.argv[1]), validation_share=0.1,
        progress=lambda *done: print(*done, flush=True),
    )
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
class TestProcess:
    def test_memory_does_not_grow_with_the_dataset(self, tmp_path: Path) -> None:
        """Twelve thousand images take 590 MB; a preparation holds some blocks of 32 MiB."""
        command = [sys.executable, "-c", PREPARE, str(tmp_path / "cache"), "12000"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert int(done.stdout.split()[-1]) * 1024 < 250 * 2**20
        shutil.rmtree(tmp_path / "cache")

    def test_a_killed_process_leaves_its_whole_blocks(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", PREPARE, str(tmp_path / "cache"), "6000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                done, total = map(int, line.split())
                if total > 6000 and done > 3000:
                    break
            os.kill(process.pid, signal.SIGKILL)
        again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        first = next(line for line in again.stdout.splitlines() if line.endswith(" 6020"))
        assert int(first.split()[0]) > 1000
        assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".arrow"] * 2
        shutil.rmtree(tmp_path / "cache")


class TestReading:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"image_size": -1}, "image_size must be a whole number of at least 0"),
            ({"fit": "stretch"}, "fit is crop, pad or squash, not stretch"),
            ({"background": "whitish"}, "background is a colour's name, as in CSS, or #rrggbb, not whitish"),
            ({"damaged": "keep"}, "damaged is refuse or skip, not keep"),
        ],
    )
    def test_wrong_values_are_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Reading(**settings)

    def test_it_is_taken_out_of_settings_and_says_what_it_changes(self) -> None:
        assert Reading.from_settings({"fit": "pad", "background": "Black", "N": 3}).changed() == {
            "fit": "pad",
            "background": "Black",
        }
        assert Reading.from_settings({}) == AS_IT_IS and AS_IT_IS.changed() == {}
