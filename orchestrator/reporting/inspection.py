"""What `inspect` found in a dataset: tables for the terminal, and contact sheets."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from orchestrator.results.inspection import Inspection
from trainables.data.pictures import encode_picture
from trainables.storage.atomic import write_atomically

__all__ = ["print_inspection", "write_contact_sheets"]

ROWS = 50
"""Classes of the table; of a larger dataset those with the fewest training images."""
BAR = 40
"""Characters of the longest bar."""
SHEET, ACROSS, CELL, GAP, HEADING = 40, 8, 96, 4, 24
"""Of a contact sheet: images, images in a row; in pixels: largest side of an image, gap between two, height of the
heading."""


def print_inspection(console: Console, found: Inspection, sheets: Path, commands: Sequence[str]) -> None:
    """Print what was found, where the contact sheets are, and the commands that run a sweep."""
    for line in _lines(found):
        console.print(line, soft_wrap=True)
    console.print(_classes_table(found))
    console.print(f"Contact sheets: {printable(str(sheets))}", soft_wrap=True)
    for line in ("Run a sweep on it:", *(f"  {command}" for command in commands)):
        console.print(line, soft_wrap=True)
    if warning := found.duplicates.warning:
        console.print(f"Warning: {warning}", soft_wrap=True)


def _lines(found: Inspection) -> Iterator[str]:
    """Yield what was found beside the classes, a line each."""
    dataset = found.dataset
    yield f"Layout: {found.findings.layout}"
    yield f"Test split: {found.findings.test_from}"
    yield from found.findings.notes
    yield f"Sizes: {_sizes_text(found)}"
    yield f"Modes: {_counts(found.survey.modes)}"
    if left_out := found.left_out:
        yield f"Left out: {_counts(left_out)}"
    yield f"Duplicates: {_duplicates_text(found)}"
    yield f"Mean of the channels: {_numbers(dataset.mean)}; standard deviation: {_numbers(dataset.std)}"


def _sizes_text(found: Inspection) -> str:
    """Return the sizes of the files, and the size to which they are resized, in words."""
    sizes, side = found.survey.sizes, found.dataset.image_size
    (width, height), count = sizes.most_common(1)[0]
    common = f"; most often {width} × {height}, {count:,} of {sizes.total():,}" if len(sizes) > 1 else ""
    resized = f"; resized to {side} × {side} with image_size={side}" if sizes.keys() != {(side, side)} else ""
    return f"{found.survey.range_text}{common}{resized}"


def _duplicates_text(found: Inspection) -> str:
    """Return how many images repeat others, in words."""
    within = found.duplicates.within_train
    text = f"{within:,} of the training images repeat another" if within else "none among the training images"
    return f"{text}; {found.duplicates.test_in_train:,} test images are training images"


def _classes_table(found: Inspection) -> Table:
    """Return the classes with their counts, and a bar for the training images, as a table for the terminal."""
    classes = found.classes
    shown = [each for each in classes if len(classes) <= ROWS]
    title = f"{len(classes)} classes; validation_share={found.dataset.validation_share:g}"
    if not shown:
        shown = sorted(classes, key=lambda each: each.train)[:ROWS]
        title += f"; the {ROWS} with the fewest training images"
    table = Table(title=title, title_justify="left")
    table.add_column("class", overflow="fold")
    for heading in ("train", "validation", "test"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    most = max(each.train for each in classes)
    for each in shown:
        bar = "█" * max(1, round(BAR * each.train / most))
        table.add_row(printable(each.name), *(f"{n:,}" for n in (each.train, each.validation, each.test)), bar)
    totals = (sum(counts) for counts in zip(*((c.train, c.validation, c.test) for c in classes), strict=True))
    table.add_section()
    table.add_row("all", *(f"{total:,}" for total in totals), "")
    return table


def write_contact_sheets(folder: Path, found: Inspection) -> list[Path]:
    """Write a PNG for each class with training images spread over the class, and return the files.

    Memory: the images of one sheet.

    Args:
        folder: Where to write; created if it does not exist.
        found: The dataset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    split, levels = found.dataset.split("train"), found.dataset.levels
    files = []
    for label, each in enumerate(found.classes):
        rows = np.flatnonzero(split.labels == label)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), SHEET)).round().astype(int))]
        pixels = np.rint(split.images[rows] * (255 / levels)).astype(np.uint8)
        heading = f"{printable(each.name)}: {each.train:,} training images"
        content = encode_picture(draw_sheet(pixels, heading), "PNG")
        files.append(folder / f"{label:03}-{_file_name(each.name)}.png")
        write_atomically(files[-1], partial(Path.write_bytes, data=content))
    return files


def draw_sheet(pixels: np.ndarray, heading: str) -> Image.Image:
    """Draw images uint8 [n, ch, H, W] of one square size, row by row, below a heading."""
    rows, size = max(1, math.ceil(len(pixels) / ACROSS)), pixels.shape[-1]
    side = CELL // size * size or CELL  # a whole multiple of a small image's side, so that all its pixels are alike
    sheet = Image.new("RGB", (ACROSS * (side + GAP) + GAP, HEADING + rows * (side + GAP)), "white")
    ImageDraw.Draw(sheet).text((GAP, HEADING / 2), heading, fill="black", anchor="lm", font=_font())
    resampling = Image.Resampling.BICUBIC if size > side else Image.Resampling.NEAREST
    for number, image in enumerate(pixels):
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        place = GAP + number % ACROSS * (side + GAP), HEADING + number // ACROSS * (side + GAP)
        sheet.paste(picture.resize((side, side), resampling), place)
    return sheet


def printable(text: str) -> str:
    """Return a name as one line; characters that cannot be printed, such as a newline, as escapes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's font, which has more letters than Pillow's own."""
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)


def _file_name(name: str) -> str:
    """Return a name of a class as part of a file's name: letters, digits, _ and -."""
    return re.sub(r"[^\w-]+", "_", name)[:40]


def _counts(counts: Mapping[str, int]) -> str:
    """Return numbers by name as text, the largest first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
