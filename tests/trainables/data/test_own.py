"""Folders and Parquet files drawn from what people have: every image gets its own class, or a DatasetError says why."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.pictures import encode, image_folder, write_parquet
from trainables.config.reading import Reading
from trainables.data.published import find
from trainables.data.source import FoundSplit
from trainables.errors import DatasetError

CLASSES = ("cat", "dog", "\u732b", "a b", "$0_to_$10", "train")
HIDDEN = (".DS_Store", "Thumbs.db", "._0.png", ".ipynb_checkpoints/0.png", "__MACOSX/cat/0.png")
TEST_NAMES = {"test": ("test", "Testing"), "validation": ("val", "valid", "validation")}
READINGS = st.builds(
    Reading, test_split=st.sampled_from(("auto", "auto", "auto", "test", "validation")), test_share=st.floats(0.05, 0.5)
)


@dataclass
class Drawn:
    """What a folder holds: of every split the class of each image."""

    splits: dict[str, list[str | None]] = field(default_factory=dict)
    sound: bool = True
    """Whether it must be read; else it may be refused."""


def unique(number: int) -> bytes:
    """Return a PNG that no other number has."""
    return encode(np.full((2, 2, 3), [number % 256, number // 256, 7], np.uint8))


def check(data: Path, drawn: Drawn, reading: Reading, of_content: dict[bytes, str | None]) -> None:
    """Every image is in one split, with its own class; or the refusal is one line, and it is not of a sound dataset."""
    try:
        source = find("own", data, reading)
        found = source.open()
    except DatasetError as error:
        assert "\n" not in str(error)
        assert not drawn.sound or chosen(drawn, reading) is None, str(error)
        return
    read = [classes_of(split, found.class_names) for split in (found.train, found.test)]
    for content, name in (*read[0], *read[1]):
        assert of_content[content] == name
    assert len({content for split in read for content, _ in split}) == len(read[0]) + len(read[1])
    test = source.findings.test_from
    train = Counter(name for _, name in read[0])
    if test == "carved from train":
        train += Counter(name for _, name in read[1])
    else:
        assert Counter(name for _, name in read[1]) == Counter(drawn.splits[test])
    assert train == Counter(drawn.splits["train"])
    assert (source.facts.train_images, source.facts.test_images) == (len(read[0]), len(read[1]))
    assert source.facts.classes == len(found.class_names) == len(set(found.class_names)) >= 2
    if drawn.sound:
        assert test == chosen(drawn, reading)


def chosen(drawn: Drawn, reading: Reading) -> str | None:
    """Return where the test split of a sound dataset comes from; None: the one that is set is not there."""
    labelled = [
        split for split in ("test", "validation") if any(name is not None for name in drawn.splits.get(split, ()))
    ]
    if reading.test_split != "auto":
        return reading.test_split if reading.test_split in labelled else None
    return labelled[0] if labelled else "carved from train"


def classes_of(split: FoundSplit, names: Sequence[str]) -> list[tuple[bytes, str]]:
    contents = [each.content for each in split.pictures()]
    read = [each.read_bytes() if isinstance(each, Path) else bytes(each or b"") for each in contents]
    return list(zip(read, [names[label] for label in split.labels], strict=True))


@st.composite
def class_counts(draw: st.DrawFn, names: Sequence[str], fewest: int, most: int) -> dict[str, int]:
    """Draw how many images each of some classes has."""
    some = draw(st.lists(st.sampled_from(names), min_size=min(fewest, 2) or 1, max_size=4, unique=True))
    return {name: draw(st.integers(fewest, most)) for name in some}


@st.composite
def folders(draw: st.DrawFn) -> Callable[[Path], tuple[Drawn, dict[bytes, str | None]]]:
    """Draw a folder of image files, which the returned function writes."""
    healthy = draw(st.integers(0, 3)) > 0
    train = draw(class_counts(CLASSES, 4, 6) if healthy else class_counts(CLASSES, 0, 4))
    splits: dict[str, dict[str, int]] = {}
    for split in ("test", "validation"):
        if draw(st.booleans()):
            splits[split] = draw(class_counts(list(train), 1, 2) if healthy else class_counts(CLASSES, 0, 2))
    bare = not splits and draw(st.booleans())
    loose = draw(st.sampled_from(("", "", *splits)))  # images of no class
    wrapper = draw(st.sampled_from(("", "", "images/", "x/y/")))
    around = draw(st.sampled_from(("", "", "DATASET/")))
    deep = draw(st.booleans())
    clutter = draw(st.lists(st.sampled_from(HIDDEN), unique=True))
    loop = draw(st.booleans())

    def write(data: Path) -> tuple[Drawn, dict[bytes, str | None]]:
        drawn, of_content = Drawn(), dict[bytes, str | None]()
        for split, counts in {"train": train, **splits}.items():
            place = "" if bare else f"{TEST_NAMES[split][-1] if split in TEST_NAMES else 'train'}/"
            drawn.splits[split] = []
            for name, count in counts.items():
                folder = data / f"{around}{place}{wrapper}" / ("" if split == loose else name)
                folder.mkdir(parents=True, exist_ok=True)
                for _ in range(count):
                    inside = folder / ("deep/er" if deep and len(of_content) % 2 and split != loose else "")
                    inside.mkdir(parents=True, exist_ok=True)
                    content = unique(len(of_content))
                    (inside / f"{len(of_content)}.png").write_bytes(content)
                    of_content[content] = None if split == loose else name
                    drawn.splits[split].append(of_content[content])
        some = next((path.parent for path in sorted(data.rglob("*.png"))), data)
        for hidden in clutter:
            (some / hidden).parent.mkdir(parents=True, exist_ok=True)
            (some / hidden).write_bytes(b"no image")
        if loop and some != data:
            (some / "loop").symlink_to(data)
        drawn.sound = (
            len(train) >= 2
            and all(count >= 4 for count in train.values())
            and all(name in train for split, counts in splits.items() for name, count in counts.items() if count)
            and not deep  # one class with one folder inside looks like a folder around classes
            and (not bare or "train" not in train)
            and all(sum(counts.values()) for counts in splits.values())
            and not (around and wrapper and bare)
        )
        return drawn, of_content

    return write


VALUES: tuple[st.SearchStrategy[Any], ...] = (
    st.integers(-(2**63), 2**63 - 1), st.integers(0, 5), st.text(max_size=3), st.booleans(),
)  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> Callable[[Path], tuple[Drawn, dict[bytes, str | None]]]:
    """Draw Parquet files, which the returned function writes."""
    named = draw(st.booleans())
    values: list[Any] = draw(
        st.permutations(["cat", "dog", "cow"]) if named else
        st.one_of(*(st.lists(each, min_size=1, max_size=4, unique=True) for each in VALUES))
    )  # fmt: skip
    sound = len(values) > 1
    splits: dict[str, list[tuple[list[Any], list[Any]]]] = {}
    for split in ("train", *draw(st.lists(st.sampled_from(("test", "validation")), unique=True))):
        splits[split] = []
        for _ in range(draw(st.integers(1, 2))):
            order = draw(st.permutations(values)) if named else values
            rows = [*values * 4] if split == "train" and draw(st.integers(0, 4)) else []
            rows += draw(
                st.lists(st.sampled_from([*values, None] if draw(st.integers(0, 9)) == 0 else values), max_size=5)
            )
            splits[split].append((list(order), rows))
    rows_of = {split: [value for _, rows in shards for value in rows] for split, shards in splits.items()}
    sound = sound and all(rows_of["train"].count(value) >= 4 for value in values)
    sound = sound and None not in [value for rows in rows_of.values() for value in rows]
    layout = draw(st.sampled_from(("{split}-{shard:05}-of-{shards:05}.parquet", "data/{split}-{shard}.parquet",
                                   "default/{split}/{shard:04}.parquet")))  # fmt: skip
    encoded = draw(st.booleans())

    def write(data: Path) -> tuple[Drawn, dict[bytes, str | None]]:
        of_content: dict[bytes, str | None] = {}
        for split, shards in splits.items():
            for shard, (order, rows) in enumerate(shards):
                contents = []
                for value in rows:
                    contents.append(unique(len(of_content)))
                    of_content[contents[-1]] = None if value is None else str(value)
                metadata = None
                if named:
                    features = {"label": {"names": order, "_type": "ClassLabel"}}
                    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
                    rows = [None if value is None else order.index(value) for value in rows]
                kind = pa.array(values).type if not named else pa.int64()
                labels = pa.array(rows, kind)
                file = data / layout.format(split=split, shard=shard, shards=len(shards))
                file.parent.mkdir(parents=True, exist_ok=True)
                table = pa.table({"image": pa.array(contents, pa.binary()), "label": labels})
                if encoded:
                    table = table.set_column(1, "label", labels.dictionary_encode())
                pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=3)
        drawn = Drawn(
            {split: [None if value is None else str(value) for value in rows] for split, rows in rows_of.items()}
        )
        drawn.sound = sound and all(drawn.splits.values())
        return drawn, of_content

    return write


def holds(write: Callable[[Path], tuple[Drawn, dict[bytes, str | None]]], reading: Reading) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        drawn, of_content = write(data)
        check(data, drawn, reading, of_content)


FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(FEW, max_examples=500)


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.rare)], ids=["few", "many"])
@pytest.mark.parametrize("forms", [folders(), tables()], ids=["folders", "Parquet"])
def test_every_image_gets_its_class_or_a_line_says_why_not(examples: settings, forms: st.SearchStrategy[Any]) -> None:
    examples(given(write=forms, reading=READINGS)(holds))()


class TestForms:
    def test_packed_files_come_before_pictures_of_their_description(self, tmp_path: Path) -> None:
        image_folder(tmp_path / "assets")
        write_parquet(
            tmp_path / "data" / "train.parquet", [np.eye(8, dtype=np.uint8) * row for row in range(8)], [0, 1] * 4
        )
        source = find("own", tmp_path)
        assert source.findings.layout.startswith("Parquet") and source.facts.image_size == 8
        assert source.findings.skipped == {"of another kind": 18}
        assert find("folder", tmp_path).facts.image_size == 12
        assert find("parquet", tmp_path).fingerprint == source.fingerprint

    def test_nothing_is_refused_with_what_a_folder_may_hold(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no image")
        with pytest.raises(
            DatasetError,
            match="does not hold own images in a form that is known: pass --data DIR, where",
        ):
            find("own", tmp_path)

    def test_folders_that_never_end_are_refused(self, tmp_path: Path) -> None:
        place = tmp_path
        for _ in range(120):
            place = place / "in"
        os.makedirs(place)  # noqa: PTH103  # pathlib recurses
        with pytest.raises(DatasetError, match="is below 100 folders: name a folder further down"):
            find("own", tmp_path)
