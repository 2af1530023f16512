"""Parquet files of one's own: columns of images and labels of every kind, shards, layouts, and what is refused."""

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.pictures import encode, picture, prepare, write_parquet
from trainables.config.reading import Reading
from trainables.data.published import find
from trainables.data.source import Source
from trainables.errors import DatasetError

PIXELS = [picture(20 * row, 8, row) for row in range(9)]
ENCODED = [encode(each) for each in PIXELS]
THREE = [0, 1, 2] * 3


def write(path: Path, images: Any, labels: Any, metadata: dict[str, str] | None = None, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": images, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(table, path, **options)


def names_of(names: list[str]) -> dict[str, str]:
    """The hub's metadata of class names."""
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def both(folder: Path, images: Any, labels: Any, **options: Any) -> Path:
    for split in ("train", "test"):
        write(folder / f"{split}.parquet", images, labels, **options)
    return folder


def labels_of(source: Source) -> list[int]:
    labels: list[int] = source.open().test.labels.tolist()
    return labels


class TestImages:
    @pytest.mark.parametrize("of", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
    @pytest.mark.parametrize("struct", [False, True])
    def test_encoded_bytes(self, tmp_path: Path, of: pa.DataType, struct: bool) -> None:
        bytes_ = pa.array(ENCODED, of)
        groups = {} if struct and of == pa.binary_view() else {"row_group_size": 2}  # Arrow does not write both
        images = pa.StructArray.from_arrays([bytes_, pa.array(["a.png"] * 9)], ["bytes", "path"]) if struct else bytes_
        dataset = prepare("own", tmp_path, both(tmp_path / "data", images, pa.array(THREE), **groups))
        assert np.array_equal(dataset.split("test").images, np.stack(PIXELS).transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("column", ["path", "struct"])
    def test_paths_are_resolved_beside_the_file(self, tmp_path: Path, column: str) -> None:
        data = tmp_path / "data"
        (data / "images").mkdir(parents=True)
        for row, content in enumerate(ENCODED):
            (data / "images" / f"{row}.png").write_bytes(content)
        paths = pa.array([f"images/{row}.png" for row in range(9)])
        nothing = pa.nulls(9, pa.binary())
        images = paths if column == "path" else pa.StructArray.from_arrays([nothing, paths], ["bytes", "path"])
        both(data, images, pa.array(THREE))
        dataset = prepare("own", tmp_path, data)
        assert np.array_equal(dataset.split("test").images, np.stack(PIXELS).transpose(0, 3, 1, 2))
        before = find("own", data).fingerprint
        (data / "images" / "3.png").write_bytes(encode(picture(1, 8, 77)))
        assert find("own", data).fingerprint != before
        (data / "images" / "5.png").unlink()
        with pytest.raises(
            DatasetError, match=r"row 5 holds no image but only the path 'images/5\.png', and .* has no"
        ):
            prepare("own", tmp_path, data)

    @pytest.mark.parametrize("of", [pa.uint8(), pa.int64()], ids=str)
    @pytest.mark.parametrize("fixed", [False, True])
    @pytest.mark.parametrize("shape", [(64,), (8, 8), (8, 8, 1), (8, 8, 3), (3, 8, 8)], ids=str)
    def test_lists_of_pixels(self, tmp_path: Path, shape: tuple[int, ...], fixed: bool, of: pa.DataType) -> None:
        pixels = np.random.default_rng(len(shape)).integers(0, 256, (9, *shape), np.uint8)
        kind = of
        for length in reversed(shape):
            kind = pa.list_(kind, length) if fixed else pa.list_(kind)
        images = pa.array(pixels.astype(np.uint8 if of == pa.uint8() else np.int64).tolist(), kind)
        dataset = prepare("own", tmp_path, both(tmp_path / "data", images, pa.array(THREE), row_group_size=4))
        expected = pixels.reshape(9, -1, 8, 8) if shape != (8, 8, 3) else pixels.transpose(0, 3, 1, 2)
        if shape == (8, 8, 1):  # lists of three levels may be coloured in other rows
            expected = np.repeat(expected, 3, axis=1)
        assert dataset.channels == (1 if len(shape) < 3 else 3)
        assert np.array_equal(dataset.split("test").images, expected)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([[1, 2], [3]], "rows of equal length"),
            ([[1, 256], [3, 4]], "pixels 0 to 255"),
            ([[1, -1], [3, 4]], "pixels 0 to 255"),
            ([[0.5, 1.0], [1.0, 1.0]], "whole numbers, not double"),
            ([[[1, 2], [3, 4]]] * 2, "2 × 2 × 2 pixels: write lists of"),
            ([1] * 12, "12 pixels: write lists of"),
            ([[1, None], [3, 4]], "not int64|pixels 0 to 255"),
        ],
    )
    def test_lists_that_are_no_pixels_are_refused(self, tmp_path: Path, value: Any, message: str) -> None:
        both(tmp_path / "data", pa.array([value] * 9), pa.array(THREE))
        with pytest.raises(DatasetError, match=message):
            prepare("own", tmp_path, tmp_path / "data")

    @pytest.mark.parametrize("name", ["img", "Picture", "pixels"])
    @pytest.mark.parametrize("label", ["labels", "target", "Y", "fine_label", "class"])
    def test_the_columns_are_found(self, tmp_path: Path, name: str, label: str) -> None:
        for split in ("train", "test"):
            write_parquet(tmp_path / "data" / f"{split}.parquet", PIXELS, THREE, image=name, label=label)
        assert labels_of(find("own", tmp_path / "data")) == THREE

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"image": "blob"}, "has no column image or img or .*, only blob, label: rename"),
            ({"label": "x"}, "has no column label or labels or .*, only image, x: rename"),
        ],
    )
    def test_columns_of_other_names_are_listed(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        write_parquet(tmp_path / "data" / "train.parquet", PIXELS, THREE, **options)
        with pytest.raises(DatasetError, match=message):
            find("own", tmp_path / "data")


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "names"),
        [
            (pa.array([-3, 7, 3_000_000_000] * 3), ("-3", "7", "3000000000")),
            (pa.array([1, 2**63, 2**64 - 1] * 3, pa.uint64()), ("1", str(2**63), str(2**64 - 1))),
            (pa.array([10, 9, 100] * 3, pa.int8()), ("9", "10", "100")),
            (pa.array(["dog", "cat", "\u732b"] * 3), ("cat", "dog", "\u732b")),
            (pa.array(["dog", "cat", "a"] * 3, pa.string_view()), ("a", "cat", "dog")),
            (pa.array(["dog", "cat", "a"] * 3).dictionary_encode(), ("a", "cat", "dog")),
            (pa.array([5, 3, 4] * 3).dictionary_encode(), ("3", "4", "5")),
            (pa.array([True, False, True] * 3), ("False", "True")),
        ],
        ids=["large", "uint64", "numbers", "strings", "views", "dictionary", "dictionary of numbers", "booleans"],
    )
    def test_they_are_numbered_in_sorted_order_and_their_values_are_the_names(
        self, tmp_path: Path, labels: pa.Array, names: tuple[str, ...]
    ) -> None:
        source = find("own", both(tmp_path / "data", pa.array(ENCODED), labels, row_group_size=2))
        assert source.open().class_names == names
        assert [names[label] for label in labels_of(source)] == [str(label) for label in labels.to_pylist()]
        assert source.facts.classes == len(names)

    def test_large_labels_take_no_memory(self, tmp_path: Path) -> None:
        both(tmp_path / "data", pa.array(ENCODED), pa.array([7, 2**62, -(2**62)] * 3))
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))
        try:
            source = find("own", tmp_path / "data")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert source.facts.classes == 3

    def test_names_match_the_labels_of_every_shard_and_split(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        shards = {
            "train-00000-of-00002": (["cat", "dog", "cow"], [0, 1, 2]),
            "train-00001-of-00002": (["dog", "cow", "cat"], [0, 1, 2]),
            "test-00000-of-00001": (["cow", "dog", "cat"], [0, 1, 2]),
        }  # fmt: skip
        for name, (names, labels) in shards.items():
            write(data / f"{name}.parquet", pa.array(ENCODED[:3]), pa.array(labels), names_of(names))
        found = find("own", data).open()
        assert found.class_names == ("cat", "dog", "cow")
        assert found.train.labels.tolist() == [0, 1, 2, 1, 2, 0]
        assert found.test.labels.tolist() == [2, 1, 0]

    def test_strings_match_names(self, tmp_path: Path) -> None:
        write(tmp_path / "data" / "train.parquet", pa.array(ENCODED), pa.array(THREE), names_of(["cow", "dog", "cat"]))
        write(tmp_path / "data" / "test.parquet", pa.array(ENCODED[:2]), pa.array(["cat", "dog"]))
        found = find("own", tmp_path / "data").open()
        assert (found.class_names, found.test.labels.tolist()) == (("cow", "dog", "cat"), [2, 1])

    @pytest.mark.parametrize(
        ("train", "test", "message"),
        [
            ([0, 1, None] * 3, THREE, "train.parquet has 3 of 9 images without a label"),
            (THREE, [0, None, 2] * 3, "test.parquet has 3 of 9 images without a label"),
            ([None] * 9, THREE, "train.parquet has 9 of 9 images without a label"),
            (THREE, [0, 1, 7] * 3, "test.parquet has class '7', of which .*train.parquet has no image"),
            ([4] * 9, [4] * 9, "needs two classes, but .*train.parquet has only class '4'"),
            ([0.5, 1.5, 2.5] * 3, THREE, "one whole number, string or boolean per row, not double"),
            ([[0], [1], [2]] * 3, THREE, "one whole number, string or boolean per row, not list"),
            ([*range(9)], [*range(9)], "every class needs 2 training images"),
        ],
    )
    def test_what_cannot_be_learned_is_refused(self, tmp_path: Path, train: Any, test: Any, message: str) -> None:
        write(tmp_path / "data" / "train.parquet", pa.array(ENCODED), pa.array(train))
        write(tmp_path / "data" / "test.parquet", pa.array(ENCODED), pa.array(test))
        with pytest.raises(DatasetError, match=message) as caught:
            find("own", tmp_path / "data")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 1, 3] * 3, "labels must be 0 to 2, as .*train.parquet names 3 classes, but it has 3"),
            ([0, 1, -2] * 3, "labels must be 0 to 2, .* but it has -2"),
            ([0, 1, -1] * 3, "3 of 9 images without a label"),
            ([0, 1, 1] * 3, "has none of class 'cow'"),
        ],
    )
    def test_labels_beside_their_names_are_refused(self, tmp_path: Path, labels: list[int], message: str) -> None:
        both(tmp_path / "data", pa.array(ENCODED), pa.array(labels), metadata=names_of(["cat", "dog", "cow"]))
        with pytest.raises(DatasetError, match=message):
            find("own", tmp_path / "data")

    def test_one_name_for_two_classes_is_refused(self, tmp_path: Path) -> None:
        both(tmp_path / "data", pa.array(ENCODED), pa.array(THREE), metadata=names_of(["cat", "dog", "cat"]))
        with pytest.raises(DatasetError, match=r"train\.parquet names two classes 'cat': rename one"):
            find("own", tmp_path / "data")

    @pytest.mark.parametrize("metadata", [{"huggingface": "{"}, {"huggingface": "[]"}, {"huggingface": '{"info": 3}'}])
    def test_metadata_of_another_kind_is_ignored(self, tmp_path: Path, metadata: dict[str, str]) -> None:
        source = find("own", both(tmp_path / "data", pa.array(ENCODED), pa.array(THREE), metadata=metadata))
        assert source.open().class_names == ("0", "1", "2")

    @pytest.mark.parametrize("unlabelled", [pa.array([-1] * 9), pa.nulls(9, pa.int64()), pa.nulls(9)], ids=str)
    @pytest.mark.parametrize("metadata", [None, names_of(["cat", "dog", "cow"])], ids=["numbers", "names"])
    def test_an_unlabelled_test_split_gives_way(
        self, tmp_path: Path, unlabelled: pa.Array, metadata: dict[str, str] | None
    ) -> None:
        data = tmp_path / "data"
        for split, labels in (("train", THREE), ("validation", THREE[:6]), ("test", unlabelled)):
            write(data / f"{split}.parquet", pa.array(ENCODED[: len(labels)]), pa.array(labels), metadata)
        source = find("own", data)
        assert (source.findings.test_from, source.facts.test_images) == ("validation", 6)
        assert "test.parquet has no labels, so it is not the test split" in source.findings.notes[0]
        (data / "validation.parquet").unlink()
        write(data / "train.parquet", pa.array(ENCODED), pa.array(THREE), metadata)
        carved = find("own", data, Reading(test_share=0.3))
        assert (carved.findings.test_from, carved.facts.test_images) == ("carved from train", 3)


class TestLayouts:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001-0123456789abcdef.parquet"),
            ("default/train/0000.parquet", "default/test/0000.parquet"),
            ("some config/train/0000.parquet", "some config/validation/0000.parquet"),
            ("train/a.parquet", "test/b.parquet"),
            ("default/train-part0/0000.parquet", "default/test/0000.parquet"),
            ("mine_train.parquet", "mine_test.parquet"),
        ],
    )
    def test_of_the_hub(self, tmp_path: Path, train: str, test: str) -> None:
        for file in (train, test):
            write(tmp_path / "data" / file, pa.array(ENCODED), pa.array(THREE))
        (tmp_path / "data" / "README.md").write_text("a data card")
        source = find("own", tmp_path / "data")
        assert (source.facts.train_images, source.facts.test_images) == (9, 9)
        assert source.findings.skipped == {"of another kind": 1}

    def test_shards_are_read_in_order_and_must_be_complete(self, tmp_path: Path) -> None:
        for shard in (2, 0, 1):
            rows = slice(3 * shard, 3 * shard + 3)
            file = tmp_path / "data" / f"train-0000{shard}-of-00003.parquet"
            write(file, pa.array(ENCODED[rows]), pa.array([shard, (shard + 1) % 3, (shard + 2) % 3]))
        found = find("own", tmp_path / "data", Reading(test_share=0.3)).open()
        wheres = [each.where for split in (found.train, found.test) for each in split.pictures()]
        assert len(set(wheres)) == 9
        file.unlink()
        with pytest.raises(
            DatasetError, match=r"must hold all the 3 files that .* counts, but has 2 of the train split"
        ):
            find("own", tmp_path / "data")

    def test_parts_of_a_split_are_one_split(self, tmp_path: Path) -> None:
        for part in range(2):
            file = tmp_path / "data" / "default" / f"train-part{part}" / "0000.parquet"
            write(file, pa.array(ENCODED), pa.array(THREE))
        source = find("own", tmp_path / "data")
        assert source.facts.train_images + source.facts.test_images == 18

    def test_files_without_a_split_are_train(self, tmp_path: Path) -> None:
        write(tmp_path / "data" / "0000.parquet", pa.array(ENCODED * 2), pa.array(THREE * 2))
        source = find("own", tmp_path / "data")
        assert (source.facts.train_images, source.facts.test_images) == (15, 3)

    def test_several_configurations_are_refused(self, tmp_path: Path) -> None:
        for name in ("small", "large"):
            write(tmp_path / "data" / name / "train" / "0000.parquet", pa.array(ENCODED), pa.array(THREE))
        with pytest.raises(
            DatasetError, match=r"in 2 folders \(large/train, small/train\): give --data the folder of one"
        ):
            find("own", tmp_path / "data")

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 99])
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "train.parquet").write_bytes(content)
        with pytest.raises(DatasetError, match=r"train.parquet is damaged or not a Parquet file"):
            find("own", tmp_path)
