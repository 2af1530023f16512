"""Decoding of images into arrays, with one thread per core."""

import io
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from trainables.data.source import FoundSplit, Picture
from trainables.errors import DatasetError
from trainables.machine import Machine

__all__ = ["Meter", "Progress", "decode", "image_errors", "side_of"]

Progress = Callable[[int, int], None]
"""Called about once per percent, with the number of images decoded and the total number."""

_BLOCK, _PART = 2048, 64  # images whose encoded bytes are in memory at once; images per task of a thread


class Meter:
    """Counts images over both splits and calls back about once per percent."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        """Count up to `total` images."""
        self.progress, self.total, self.done, self.percent = progress, total, 0, -1

    def add(self, count: int) -> None:
        """Add `count` images."""
        self.done += count
        percent = 100 * self.done // self.total
        if self.progress and percent > self.percent:
            self.percent = percent
            self.progress(self.done, self.total)


@contextmanager
def image_errors(where: str) -> Iterator[None]:
    """Turn Pillow's errors on damaged bytes into a DatasetError that names the image."""
    try:
        yield
    except Exception as error:  # Pillow raises many types for damaged bytes
        raise DatasetError(f"{where} cannot be decoded as an image ({error}): fetch the files again") from error


def side_of(picture: Picture) -> int:
    """Return the width of an encoded image in pixels.

    Raises:
        DatasetError: The image is damaged.
    """
    from PIL import Image

    where, content = picture
    assert not isinstance(content, np.ndarray), "only encoded images have a header"
    with image_errors(where), Image.open(content if isinstance(content, Path) else io.BytesIO(content or b"")) as image:
        return int(image.width)


def decode(split: FoundSplit, channels: int, size: int, meter: Meter) -> np.ndarray:
    """Decode a split with one thread per core, 2 to 16; Pillow releases the interpreter's lock while it decodes.

    Args:
        split: The split.
        channels: 1 or 3; images of other modes are converted.
        size: Height and width that every image must have, in pixels.
        meter: Counts the decoded images.

    Returns:
        uint8 [n, channels, size, size].

    Raises:
        DatasetError: An image is damaged or has another size.
    """
    pixels = np.empty((len(split.labels), channels, size, size), dtype=np.uint8)

    def decode_part(first: int, part: list[Picture]) -> int:
        for row, picture in enumerate(part, first):
            pixels[row] = _decode(picture, channels, size)
        return len(part)

    first, pictures = 0, split.pictures()
    with ThreadPoolExecutor(min(16, max(2, Machine().cores().amount))) as pool:
        while block := list(itertools.islice(pictures, _BLOCK)):
            starts = range(0, len(block), _PART)
            parts = [block[start : start + _PART] for start in starts]
            for done in pool.map(decode_part, (first + start for start in starts), parts):
                meter.add(done)
            first += len(block)
    return pixels


def _decode(picture: Picture, channels: int, size: int) -> np.ndarray:
    """Return the pixels of an image, uint8 [channels, size, size]."""
    from PIL import Image

    where, content = picture
    if isinstance(content, np.ndarray):
        return content
    with (
        image_errors(where),
        Image.open(content if isinstance(content, Path) else io.BytesIO(content or b"")) as image,
    ):
        (width, height), mode = image.size, image.mode
        array = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(height, width, channels)
    if (width, height) != (size, size) or mode.startswith(("I", "F")):
        raise DatasetError(
            f"images must have {size} × {size} pixels of 8 bits, but {where} has {width} × {height} "
            f"(mode {mode}): resize it, or name another dataset"
        )
    return array.transpose(2, 0, 1)
