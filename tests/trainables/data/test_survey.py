"""Sizes and modes from headers, and the size that they suggest."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.source import FoundSplit, Picture
from trainables.data.survey import Survey, survey


def split(*contents: bytes | Path | np.ndarray | None) -> FoundSplit:
    pictures = [Picture(f"picture {number}", content) for number, content in enumerate(contents)]
    return FoundSplit(where="made", labels=np.zeros(len(contents), np.int64), pictures=lambda: iter(pictures))


def encoded(width: int, height: int, mode: str = "RGB", kind: str = "PNG", orientation: int | None = None) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new(mode, (width, height)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_sizes_and_modes_of_bytes_files_and_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(7, 5, "L", "JPEG"))
    pixels, grey = np.zeros((3, 4, 6), np.uint8), np.zeros((1, 8, 8), np.uint8)
    counted: list[tuple[int, int]] = []
    splits = split(encoded(9, 5), tmp_path / "a.jpg"), split(encoded(9, 5, "RGBA"), encoded(2, 2, "P"), pixels, grey)
    found = survey(splits, lambda done, total: counted.append((done, total)))
    assert found.sizes == Counter({(9, 5): 2, (7, 5): 1, (2, 2): 1, (6, 4): 1, (8, 8): 1})
    assert found.modes == Counter({"RGB": 2, "L": 2, "RGBA": 1, "P": 1})
    assert counted == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(("orientation", "size"), [(None, (9, 5)), (1, (9, 5)), (3, (9, 5)), (6, (5, 9)), (8, (5, 9))])
def test_sizes_are_those_that_a_viewer_shows(orientation: int | None, size: tuple[int, int]) -> None:
    found = survey([split(encoded(9, 5, kind="JPEG", orientation=orientation))])
    assert list(found.sizes) == [size]


def test_damaged_headers_are_left_to_decoding() -> None:
    found = survey([split(b"", None, b"no picture", encoded(4, 4))])
    assert found.sizes == Counter({(4, 4): 1})


@pytest.mark.parametrize(
    ("sizes", "suggested", "side"),
    [
        ([(32, 32)], 32, 32),
        ([(33, 40)], 32, None),
        ([(28, 28)], 16, 28),
        ([(28, 28), (32, 32)], 16, None),
        ([(640, 480), (90, 200)], 64, None),
        ([(640, 480), (200, 31)], 16, None),
        ([(640, 480), (200, 3)], 8, None),
        ([], 64, None),
    ],
)
def test_the_suggested_size(sizes: list[tuple[int, int]], suggested: int, side: int | None) -> None:
    found = Survey(sizes=Counter(sizes))
    assert (found.suggested_size, found.square_side) == (suggested, side)
