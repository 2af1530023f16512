"""Datasets as people have them, drawn by hypothesis: folders and Parquet files with everything that occurs in them."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

__all__ = ["Drawn", "draw_folder", "draw_options", "draw_parquet"]

NAMES = (
    "cat", "Dog", "two words", "crème brûlée", "$0_to_$10", "a|b", "<b>bold</b>", '"quoted"', "line\nbreak", "猫",
    "قطة", "🐈", "x" * 120, "train", "0", "-1", "images",
)  # fmt: skip
SPLITS = ("train", "test", "val", "valid", "validation")
MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16")
KINDS = {"RGB": ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF"), "RGBA": ("PNG", "WEBP"), "L": ("PNG", "JPEG"),
         "CMYK": ("JPEG", "TIFF"), "P": ("PNG", "GIF")}  # fmt: skip
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif"}
CLUTTER = (
    ".DS_Store", "Thumbs.db", "._a.png", ".hidden/a.png", "__MACOSX/a.png", ".ipynb_checkpoints/a-checkpoint.png",
    "notes.txt", "desktop.ini",
)  # fmt: skip
DAMAGES = ("truncated", "empty", "text")


@dataclass(frozen=True)
class Drawn:
    """A dataset that was written."""

    images: int
    """Images with content, whether in a split that is used or not."""
    ordinary: bool
    """Whether nothing in it may be refused if images are resized: readable images of several classes."""


def encode_odd(draws: np.random.Generator, mode: str, kind: str, size: tuple[int, int], orientation: int) -> bytes:
    """Return a picture of noise in a mode and file format."""
    width, height = size
    bands = {"RGBA": 4, "CMYK": 4, "LA": 2}.get(mode, 1 if mode in ("L", "P", "1", "I;16") else 3)
    pixels = draws.integers(0, 256, (height, width, bands), dtype=np.uint8).squeeze(-1 if bands == 1 else ())
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 257)
    elif mode in ("1", "P"):
        image = Image.fromarray(pixels).convert(mode)
    else:
        image = Image.fromarray(pixels, mode if mode in ("LA", "CMYK", "RGBA") else None)
    options: dict[str, Any] = {}
    if kind in ("JPEG", "PNG", "WEBP", "TIFF") and orientation > 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def damage(content: bytes, how: str) -> bytes:
    """Return the content of a file that was not copied whole."""
    return {"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>404</html>"}[how]


@st.composite
def pictures(draw: st.DrawFn, sizes: list[tuple[int, int]]) -> tuple[bytes, str]:
    """Draw an encoded picture and the suffix of its file."""
    mode = draw(st.sampled_from(MODES))
    kind = draw(st.sampled_from(KINDS.get(mode, ("PNG",))))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    content = encode_odd(generator, mode, kind, draw(st.sampled_from(sizes)), draw(st.sampled_from((1, 1, 3, 6, 8))))
    return content, SUFFIXES[kind]


def sides() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Draw the sizes that occur in a dataset: one square size, or several."""
    side = st.integers(1, 20)
    return st.one_of(st.sampled_from([[(8, 8)], [(16, 16)]]), st.lists(st.tuples(side, side), min_size=1, max_size=4))


@st.composite
def draw_folder(draw: st.DrawFn, folder: Path) -> Drawn:
    """Write folders of image files below a folder that does not exist."""
    sizes = draw(sides())
    classes = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    splits = draw(st.one_of(st.just([""]), st.lists(st.sampled_from(SPLITS), min_size=1, max_size=3, unique=True)))
    inner = draw(st.sampled_from(("", "", "", "images")))
    wrapper = folder / draw(st.sampled_from(("", "", "wrapper")))
    images, damaged = 0, 0
    counts: list[int] = []
    for split in splits:
        for name in classes:
            place = wrapper / split / name / inner
            count = draw(st.integers(0, 6))
            counts.append(count)
            if count or draw(st.booleans()):
                place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                content, suffix = draw(pictures(sizes))
                images += 1
                if draw(st.integers(0, 19)) == 0:
                    content = damage(content, draw(st.sampled_from(DAMAGES)))
                    damaged += 1
                (place / f"{number}{draw(st.sampled_from((suffix, suffix, suffix.upper(), '.jpg')))}").write_bytes(
                    content
                )
    for clutter in draw(st.lists(st.sampled_from(CLUTTER), max_size=3, unique=True)):
        file = draw(st.sampled_from((folder, wrapper))) / clutter
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"clutter")
    if draw(st.integers(0, 9)) == 0 and wrapper.is_dir():
        (wrapper / "loop").symlink_to(wrapper, target_is_directory=True)
    folder.mkdir(parents=True, exist_ok=True)
    plain = not {"train", "images", "0", "-1"} & set(classes) and splits in ([""], ["train"], ["train", "test"])
    return Drawn(images, plain and not damaged and len(classes) > 1 and min(counts) >= 4)


LABELS: dict[str, Any] = {
    "ordinary": (pa.int64(), lambda label: label),
    "large": (pa.int64(), lambda label: (7, 3_000_000_000, -5, 12)[label]),
    "unsigned": (pa.uint64(), lambda label: (0, 2**64 - 1, 1, 2**63)[label]),
    "strings": (pa.string(), lambda label: NAMES[label]),
    "booleans": (pa.bool_(), lambda label: bool(label % 2)),
    "floats": (pa.float64(), lambda label: label / 2),
}
COLUMNS = ("binary", "large_binary", "struct", "path", "list")


@st.composite
def draw_parquet(draw: st.DrawFn, folder: Path) -> Drawn:
    """Write Parquet files into a folder that does not exist."""
    folder.mkdir(parents=True)
    sizes = draw(sides())
    kind, labels = draw(st.sampled_from(COLUMNS)), draw(st.sampled_from(list(LABELS)))
    classes, nulls = draw(st.integers(1, 4)), draw(st.integers(0, 9)) == 0
    splits = draw(st.sampled_from((["train"], ["train", "test"], ["train", "validation"], ["train", "test", "val"])))
    named = draw(st.sampled_from((False, False, True)))
    images, damaged = 0, 0
    for split in splits:
        count = draw(st.integers(0, 5)) * classes
        contents = []
        for _ in range(count):
            content, _ = draw(pictures(sizes))
            if damage_it := draw(st.integers(0, 19)) == 0:
                content = damage(content, draw(st.sampled_from(DAMAGES)))
            damaged += damage_it
            contents.append(content)
        images += count
        type_, value = LABELS[labels]
        column = [None if nulls and number == 0 else value(number % classes) for number in range(count)]
        table = pa.table({"image": _image_column(kind, contents), "label": pa.array(column, type_)})
        if named and labels == "ordinary":
            words = list(draw(st.permutations(NAMES[:classes])))
            features = {"label": {"_type": "ClassLabel", "names": words}}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(
            table, folder / f"{split}{draw(st.sampled_from(('', '-00000-of-00001')))}.parquet", row_group_size=3
        )
    ordinary = kind in ("binary", "struct", "large_binary") and labels == "ordinary"
    return Drawn(images, ordinary and not named and not nulls and not damaged and classes > 1 and images > 40)


def _image_column(kind: str, contents: list[bytes]) -> pa.Array:
    match kind:
        case "binary":
            return pa.array(contents, pa.binary())
        case "large_binary":
            return pa.array(contents, pa.large_binary())
        case "struct":
            return pa.array([{"bytes": content, "path": None} for content in contents],
                            pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # fmt: skip
        case "path":
            return pa.array([{"bytes": None, "path": f"{number}.png"} for number in range(len(contents))],
                            pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # fmt: skip
        case _:
            return pa.array([list(content[:12]) for content in contents], pa.list_(pa.int64()))


def draw_options() -> st.SearchStrategy[list[str]]:
    """Draw the `--set` options of a command, most of them valid."""
    values = {
        "image_size": ("0", "4", "8", "16", "-1", "big"),
        "fit": ("crop", "pad", "squash", "stretch"),
        "background": ("white", "#102030", "nocolour"),
        "damaged": ("skip", "skip", "refuse"),
        "test_share": ("0.2", "0.5", "0.01", "1.5"),
        "test_split": ("auto", "test", "validation"),
        "validation_share": ("0.1", "0.4", "0"),
        "classes": ("0", "2", "3", "1"),
        "ipc": ("1", "2", "50"),
    }
    pairs = [f"{name}={value}" for name, options in values.items() for value in options]
    chosen = st.lists(st.sampled_from(pairs), max_size=3, unique_by=lambda pair: pair.split("=")[0])
    return chosen.map(lambda pairs: [word for pair in pairs for word in ("--set", pair)])
