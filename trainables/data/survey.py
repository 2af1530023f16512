"""Sizes and modes of a dataset's pictures, from their headers: what is there before anything is decoded."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainables.data.decoding import Meter, Progress, silence_pillow
from trainables.data.image_files import UnreadableImage, header_of
from trainables.data.source import FoundSplit

__all__ = ["Survey", "survey"]

SMALLEST_SIDE, LARGEST_SIDE = 8, 64
"""Bounds of a suggested image size, in pixels: the ConvNet halves it three times; a larger one makes long sweeps."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Sizes and modes of pictures."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Number of pictures by width and height in pixels, as they are shown: EXIF orientation is applied."""
    modes: Counter[str] = field(default_factory=Counter)
    """Number of pictures by Pillow's mode: L, RGB, RGBA …"""

    @property
    def range_text(self) -> str:
        """The range of the sizes, in words; there must be one."""
        widths, heights = zip(*self.sizes, strict=True)
        if len(self.sizes) == 1:
            return f"{widths[0]} × {heights[0]} pixels"
        return f"{min(widths)} to {max(widths)} pixels wide, {min(heights)} to {max(heights)} high"

    @property
    def square_side(self) -> int | None:
        """Height and width of all pictures with a readable header; None: they differ, or are not square."""
        sides = {side for size in self.sizes for side in size}
        return sides.pop() if len(sides) == 1 else None

    @property
    def suggested_size(self) -> int:
        """Height and width to resize to: the largest power of two that no side falls below, from 8 to 64 pixels."""
        side = min((min(size) for size in self.sizes), default=LARGEST_SIDE)
        return min(max(1 << side.bit_length() - 1, SMALLEST_SIDE), LARGEST_SIDE)


def survey(splits: Iterable[FoundSplit], progress: Progress | None = None) -> Survey:
    """Read the header of every picture; decode none, and leave out those without a readable header.

    Memory: one picture's encoded bytes, or a batch of rows of a Parquet file.

    Args:
        splits: The pictures.
        progress: See `decoding.Progress`.

    Raises:
        DatasetError: A file cannot be read.
    """
    splits = tuple(splits)
    silence_pillow()
    meter = Meter(progress, sum(len(split.labels) for split in splits))
    sizes, modes = Counter[tuple[int, int]](), Counter[str]()
    for picture in itertools.chain.from_iterable(split.pictures() for split in splits):
        try:
            size, mode = header_of(picture)
            sizes[size] += 1
            modes[mode] += 1
        except UnreadableImage:
            pass  # decoding tells which
        meter.add(1)
    return Survey(sizes=sizes, modes=modes)
