"""WebDataset's tar files: samples by key, labels of every kind, shards, and what is left out or refused."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.support.pictures import encode, picture, prepare
from trainables.data.published import find
from trainables.errors import DatasetError

PIXELS = [picture(20 * row, 8, row) for row in range(6)]
ENCODED = [encode(each) for each in PIXELS]


def write(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def samples(labels: Iterable[object], suffix: str = "cls", first: int = 0) -> list[tuple[str, bytes]]:
    files = []
    for row, label in enumerate(labels, first):
        files += [(f"{row:06}.png", ENCODED[row % 6]), (f"{row:06}.{suffix}", str(label).encode())]
    return files


@pytest.mark.parametrize(
    ("suffix", "labels", "names"),
    [
        ("cls", [10, 9, 10, 9], ("9", "10")),
        ("txt", ["dog\n", "cat", "dog", " cat"], ("cat", "dog")),
        ("json", [json.dumps({"id": row, "label": row % 2}) for row in range(4)], ("0", "1")),
        ("json", [json.dumps({"cls": "ab"[row % 2], "label": "no"}) for row in range(4)], ("a", "b")),
    ],
)
def test_labels_of_every_kind(tmp_path: Path, suffix: str, labels: list[object], names: tuple[str, ...]) -> None:
    for split in ("train", "test"):
        write(tmp_path / "data" / f"{split}-0000.tar", samples(labels, suffix))
    dataset = prepare("own", tmp_path, tmp_path / "data")
    assert dataset.class_names == names
    assert np.array_equal(dataset.split("test").images, np.stack(PIXELS[:4]).transpose(0, 3, 1, 2))
    first = 1 if suffix in ("cls", "txt") else 0
    assert dataset.split("test").labels.tolist() == [first, 1 - first] * 2


def test_shards_are_one_split(tmp_path: Path) -> None:
    for shard in range(3):
        write(tmp_path / "wds" / f"train-{shard:04}.tar", samples([0, 1], first=2 * shard))
    write(tmp_path / "wds" / "val-0000.tar", samples([1, 0]))
    source = find("own", tmp_path)
    assert (source.facts.train_images, source.facts.test_images) == (6, 2)
    assert source.open().train.labels.tolist() == [0, 1] * 3
    assert [each.content for each in source.open().train.pictures()] == ENCODED
    assert source.findings.test_from == "validation"


def test_what_is_no_sample_is_left_out_and_counted(tmp_path: Path) -> None:
    files = [
        *samples([0, 1, 0, 1, 0, 1]), ("._000000.png", b"macOS"), ("__MACOSX/000001.png", b"macOS"),
        ("000000.seg.png", b"a mask"), ("000001.txt", b"a caption"), ("README.md", b"text"),
    ]  # fmt: skip
    write(tmp_path / "train.tar", files)
    source = find("own", tmp_path)
    assert (source.facts.train_images, source.facts.test_images) == (4, 2)
    assert source.findings.skipped == {"neither image nor label, in a tar file": 4}


def test_an_image_without_a_label_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", [*samples([0, 1, 0, 1]), ("a.png", ENCODED[0])])
    with pytest.raises(DatasetError, match=r"train.tar has 1 of 5 images without a label"):
        find("own", tmp_path)


@pytest.mark.parametrize("label", ['{"class_of": 3}', "{", '{"label": [1]}', '{"label": null}', "[1]"])
def test_json_without_a_label_is_refused(tmp_path: Path, label: str) -> None:
    write(tmp_path / "train.tar", samples([label] * 4, "json"))
    with pytest.raises(
        DatasetError, match=r"000000\.json holds no label: write a whole number or a name as cls, label"
    ):
        find("own", tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.tar", samples([0, 1] * 3))
    whole = (tmp_path / "train.tar").read_bytes()
    for content in (whole[:700], b"no tar" * 300):
        (tmp_path / "train.tar").write_bytes(content)
        with pytest.raises(DatasetError, match=r"train.tar is damaged or no tar file"):
            find("own", tmp_path)


def test_several_datasets_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / f"{name}-train-000.tar", samples([0, 1]))
    with pytest.raises(
        DatasetError, match=r"one-train and .*two-train of the train split: give --data the folder of one"
    ):
        find("own", tmp_path)
