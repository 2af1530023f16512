"""Decodes found images in blocks, with one thread per core, and in bounded memory."""

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trainables.data.image_files import UnreadableImage, Wanted, read_pixels, size_of
from trainables.data.source import FoundImages, Picture
from trainables.errors import DatasetError
from trainables.machine import Machine

__all__ = ["Block", "Damaged", "Meter", "Progress", "decode_blocks", "side_of", "silence_pillow", "sizes_found"]

Progress = Callable[[int, int], None]
"""Called about once per percent, with the number of images decoded and the total number."""

_BLOCK_BYTES = 32 * 2**20  # of decoded images
_PART, _PART_BYTES = 64, 8 * 2**20  # images, and about so many encoded bytes, per task of a thread


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


class Damaged(NamedTuple):
    """An image that could not be read."""

    row: int
    """Its number among all images, those of the test split after those of the training split."""
    where: str
    reason: str


@dataclass(frozen=True)
class Block:
    """Images that follow each other."""

    images: np.ndarray
    """uint8 [b, ch, H, W]; overwritten by the next block. Rows of damaged images hold anything."""
    damaged: Sequence[Damaged]


def side_of(pictures: Iterable[Picture]) -> int:
    """Return the width of the first readable image in pixels; decoding tells all that are damaged.

    Raises:
        DatasetError: No image is readable.
    """
    told = "there is no image: put some into it"
    for number, picture in enumerate(pictures):
        try:
            return size_of(picture)[0]
        except UnreadableImage as error:
            if not number:
                told = f"{picture.where} cannot be decoded as an image ({error}), and neither can any other: fetch them"
    raise DatasetError(told)


def decode_blocks(pictures: Iterator[Picture], first: int, wanted: Wanted, meter: Meter) -> Iterator[Block]:
    """Decode images with one thread per core, 2 to 16; Pillow releases the interpreter's lock while it decodes.

    In memory at once: a block of decoded images, some MiB of encoded bytes a thread, and the images that the threads
    decode, less than a GiB (`image_files.MOST_PIXELS`).

    Args:
        pictures: The images.
        first: The first one's number among all images.
        wanted: What they become.
        meter: Counts the decoded images.

    Yields:
        Blocks of the same number of images, but for the last.

    Raises:
        OtherSize: An image has another size, and images are not resized.
        DatasetError: A file cannot be read.
    """
    rows = max(1, _BLOCK_BYTES // (wanted.channels * wanted.size**2))
    images = np.empty((rows, *wanted.shape), dtype=np.uint8)
    threads = _threads()
    silence_pillow()
    with ThreadPoolExecutor(threads) as pool:
        while True:
            filled = 0
            damaged: list[Damaged] = []
            for count, unreadable in _in_parts(pool, threads, pictures, images, wanted):
                filled += count
                damaged += [Damaged(first + row, where, reason) for row, where, reason in unreadable]
                meter.add(count)
            if not filled:
                return
            yield Block(images[:filled], damaged)
            first += filled


def _in_parts(
    pool: ThreadPoolExecutor, threads: int, pictures: Iterator[Picture], images: np.ndarray, wanted: Wanted
) -> Iterator[tuple[int, list[Damaged]]]:
    """Fill rows of `images`, uint8 [b, ch, H, W], in parts; yield each part's number of images and the damaged rows."""

    def decode_part(place: int, part: Sequence[Picture]) -> list[Damaged]:
        damaged = []
        for row, picture in enumerate(part, place):
            try:
                images[row] = read_pixels(picture, wanted)
            except UnreadableImage as error:
                damaged.append(Damaged(row, picture.where, str(error)))
        return damaged

    most = max(1, min(_PART, len(images) // (4 * threads)))
    running: deque[tuple[int, Future[list[Damaged]]]] = deque()
    place = 0
    while part := _next_part(pictures, min(most, len(images) - place)):
        running.append((len(part), pool.submit(decode_part, place, part)))
        place += len(part)
        if len(running) > 2 * threads:  # so that no more encoded bytes are in memory
            count, future = running.popleft()
            yield count, future.result()
    for count, future in running:
        yield count, future.result()


def sizes_found(found: FoundImages) -> list[tuple[int, int]]:
    """Return the widths and heights of all readable images in pixels, each once, the smallest area first."""

    def size_or_none(picture: Picture) -> tuple[int, int] | None:
        try:
            return size_of(picture)
        except UnreadableImage:  # told where images are decoded
            return None

    def sizes_in(part: Sequence[Picture]) -> set[tuple[int, int] | None]:
        return set(map(size_or_none, part))

    sizes: set[tuple[int, int] | None] = set()
    pictures = itertools.chain(found.train.pictures(), found.test.pictures())
    threads = _threads()
    silence_pillow()
    with ThreadPoolExecutor(threads) as pool:
        parts = iter(lambda: _next_part(pictures, _PART), [])
        while some := list(itertools.islice(parts, threads)):
            sizes.update(*pool.map(sizes_in, some))
    return sorted((size for size in sizes if size), key=lambda size: (size[0] * size[1], size))


def _threads() -> int:
    return min(16, max(2, Machine().cores().amount))


def _next_part(pictures: Iterator[Picture], most: int) -> list[Picture]:
    """Return the next images, at most `most`, and no more than one beyond `_PART_BYTES` of encoded bytes."""
    part: list[Picture] = []
    encoded = 0
    while len(part) < most and encoded < _PART_BYTES:
        picture = next(pictures, None)
        if picture is None:
            break
        part.append(picture)
        if isinstance(picture.content, bytes):
            encoded += len(picture.content)
        elif isinstance(picture.content, np.ndarray):
            encoded += picture.content.nbytes
    return part


def silence_pillow() -> None:
    """Silence Pillow's warnings about files that it reads all the same; too many pixels are refused, not warned of.

    For good: filters belong to the process, and threads that restored them would do so in any order.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
