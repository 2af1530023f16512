"""Sources of image folders: the same fingerprints as before this reader, and one listing of every folder."""

import collections
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import WNIDS, picture
from trainables.data import datasets
from trainables.data.published import find

YEAR_2024_NS = 1_704_067_200 * 10**9


def dated(folder: Path) -> Path:
    """Give every file a time that follows from its name."""
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        os.utime(path, ns=(YEAR_2024_NS + number, YEAR_2024_NS + number))
    return folder


FOLDER_FINGERPRINT = "90fb482665b6708746a308654556bf53442845d9a8158c815ef4352b124ac783"
FOLDER_FILE = "d44bd5b2e8f18b8a18af.arrow"
FOLDER_DIGEST = "7d0ae9214366a64cba9d7f344fa8413173b3166271e2c4265592bbb4e56eade4"
TINY_FINGERPRINT = "77a0c60bed1c7ad3b9fa0a3dc99048d6c30b973ec4a34712932d066f82d51098"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Three classes, images in folders of folders, of several suffixes, and files that are no images."""
    folder = tmp_path / "images"
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(("ant", "Bee", "cow")):
            for number in range(count):
                place = folder / split / name / ("deep/er" if number == 1 else "")
                place.mkdir(parents=True, exist_ok=True)
                pixels = picture(60 * label, 12, number)
                Image.fromarray(pixels).save(place / f"{9 - number}.{'BMP' if number else 'ppm'}")
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    (folder / "train" / "notes.png").write_text("in no class")
    (folder / "train" / "ant" / "a folder.png").mkdir()
    return dated(folder)


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    """One training and one validation file per class, which no test decodes."""
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    for number, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        (images / f"{wnid}_0.JPEG").write_text(wnid)
        (images / "notes.txt").write_text("no image")
        (folder / "val" / "images" / f"val_{number}.JPEG").write_text("validation")
    rows = [f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63" for number, wnid in enumerate(WNIDS)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows))
    return dated(folder)


class TestPreparedDatasetsThatExist:
    """Fingerprints and digests were computed by the version before; a file under another name is decoded again."""

    def test_of_an_image_folder_are_found_again(self, image_folder: Path, tmp_path: Path) -> None:
        assert find("folder", image_folder).fingerprint == FOLDER_FINGERPRINT
        path = datasets.prepare("folder", cache=tmp_path / "cache", data=image_folder, validation_share=0.25)
        assert path.name == FOLDER_FILE
        assert datasets.load(path).digest == FOLDER_DIGEST

    def test_of_tiny_imagenet_are_found_again(self, tiny_imagenet: Path) -> None:
        assert find("tiny_imagenet", tiny_imagenet).fingerprint == TINY_FINGERPRINT
        assert find("tiny_imagenet", tiny_imagenet.parent).fingerprint == TINY_FINGERPRINT


_counted: list[str] | None = None
"""The folders that are listed while a test counts them."""


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if _counted is not None and event in ("os.scandir", "os.listdir"):
        _counted.append(str(arguments[0]))


sys.addaudithook(_count)


@contextmanager
def listings() -> Iterator[list[str]]:
    """Collect the folders that Python lists, from its audit events, which no listing can bypass."""
    global _counted
    listed: list[str] = []
    _counted = listed
    try:
        yield listed
    finally:
        _counted = None


class TestOneWalk:
    @pytest.mark.parametrize("name", ["folder", "tiny_imagenet"])
    def test_no_folder_is_listed_twice(self, name: str, request: pytest.FixtureRequest) -> None:
        data = request.getfixturevalue("image_folder" if name == "folder" else name)
        with listings() as listed:
            find(name, data)
        counts = collections.Counter(listed)
        assert len(counts) > 6 and set(counts.values()) == {1}

    def test_a_source_is_prepared_without_another_look(self, image_folder: Path, tmp_path: Path) -> None:
        source = find("folder", image_folder)
        with listings() as listed:
            path = datasets.prepare_source(source, cache=tmp_path, validation_share=0.25)
        assert [place for place in listed if place.startswith(str(image_folder))] == []
        assert np.bincount(datasets.load(path, ("test",)).labels("test")).tolist() == [2, 2, 2]
