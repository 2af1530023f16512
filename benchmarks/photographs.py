"""A folder of made photographs as people have them, for trying out `docs/how-to/use-your-own-pictures.md`.

python -m benchmarks.photographs --out PHOTOS

Three classes with spaces and accents in their names, many sizes, portraits that only EXIF turns upright, transparent
PNGs, hidden files, two damaged files, and no test split.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["CLASSES", "write_photographs"]

CLASSES = ("crème brûlée", "piña colada", "jalapeño pepper")
EACH = 100
"""Photographs of a class."""
DAMAGED = 2
PORTRAITS, TRANSPARENT = 8, 9
"""One photograph in so many is stored lying with EXIF's orientation 6; one in so many is a PNG with transparency."""
_ORIENTATION = 0x0112


def write_photographs(folder: Path, each: int = EACH, seed: int = 0) -> None:
    """Write `each` photographs of each class to FOLDER/CLASS, of which two files are damaged.

    Args:
        folder: A new folder.
        each: Photographs of a class.
        seed: Draws what they show.
    """
    for label, name in enumerate(CLASSES):
        place = folder / name
        place.mkdir(parents=True)
        for number in range(each):
            draws = np.random.default_rng([seed, label, number])
            width, height = (int(draws.integers(90, 260)) for _ in range(2))
            if portrait := number % PORTRAITS == PORTRAITS - 1:
                width, height = min(width, height), max(width, height)
            picture = _photograph(label, width, height, draws)
            if number % TRANSPARENT == TRANSPARENT - 1:
                picture.putalpha(_ellipse(picture.size))
                picture.save(place / f"cutout {number}.png")
            elif portrait:
                exif = Image.Exif()
                exif[_ORIENTATION] = 6  # a viewer turns it clockwise by a quarter
                picture.transpose(Image.Transpose.ROTATE_90).save(place / f"IMG_{number:04}.JPG", quality=90, exif=exif)
            else:
                picture.save(place / f"IMG_{number:04}.jpg", quality=90)
        (place / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (place / "._IMG_0000.jpg").write_bytes(b"\0\5\x16\7")
    truncated, wrong = folder / CLASSES[0] / "IMG_0000.jpg", folder / CLASSES[1] / "IMG_0001.jpg"
    truncated.write_bytes(truncated.read_bytes()[:900])
    wrong.write_bytes(b"<html>404 Not Found</html>")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "IMG_0000-checkpoint.jpg").write_bytes(truncated.read_bytes())
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")


def _photograph(label: int, width: int, height: int, draws: np.random.Generator) -> Image.Image:
    """Return a blurred, noisy picture of a disc, a triangle or a bar in front of a gradient."""
    ramp = np.linspace(0, 1, height)[:, None, None] * draws.uniform(-80, 80, 3)
    pixels = np.clip(draws.uniform(60, 200, 3) + ramp + np.zeros((height, width, 3)), 0, 255)
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen, side = ImageDraw.Draw(picture), min(width, height)
    x, y = (float(draws.uniform(0.4, 0.6)) * extent for extent in (width, height))
    radius = float(draws.uniform(0.25, 0.4)) * side
    base = ((190, 140, 60), (240, 220, 90), (60, 140, 50))[label]
    color = tuple(int(value) for value in np.clip(draws.normal(base, 25), 0, 255))
    if label == 0:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    elif label == 1:
        pen.polygon([(x - radius, y - radius), (x + radius, y - radius), (x, y + radius)], fill=color)
    else:
        pen.rectangle((x - radius / 3, y - radius, x + radius / 3, y + radius), fill=color)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)), dtype=float)
    return Image.fromarray(np.clip(blurred + draws.normal(0, 12, blurred.shape), 0, 255).astype(np.uint8))


def _ellipse(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, size[0] - 1, size[1] - 1), fill=255)
    return mask


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the photographs.")
@click.option("--each", type=click.IntRange(10), default=EACH, show_default=True, help="Photographs of a class.")
def main(out: Path, each: int) -> None:
    """Write the photographs."""
    write_photographs(out, each)


if __name__ == "__main__":
    main()
