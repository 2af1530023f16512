"""A synthetic set as a picture: one column per class, in default order."""

import io
import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainables.data.names import shortened

__all__ = ["MAX_CLASSES", "MAX_IPC", "draw_set", "encode_picture", "overview"]

MAX_CLASSES, MAX_IPC = 20, 10
"""Of a large set, the first so many classes and images per class are shown."""
CELL, GAP, HEADING = 72, 4, 18
"""In pixels: side of an image, gap between two, height of the line with the names of the classes."""
OVERVIEW_PIXELS = 256
"""The longer side of an overview; MLflow shows its overview of images in their size."""


def draw_set(images: Tensor, class_names: Sequence[str]) -> Image.Image:
    """Draw a set, wrapped to about a square.

    Not by matplotlib, which takes a third of a second: a set is drawn at every rung of every trial.

    Args:
        images: Displayable, float [ipc·C, ch, H, W] in [0, 1], on the CPU.
        class_names: Names of the C classes.
    """
    ipc = len(images) // len(class_names)
    classes, rows = min(len(class_names), MAX_CLASSES), min(ipc, MAX_IPC)
    across = min(classes, math.ceil(math.sqrt(classes * rows)))
    line = HEADING + rows * (CELL + GAP)
    sheet = Image.new("RGB", (across * (CELL + GAP) + GAP, math.ceil(classes / across) * line), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=9)  # loaded once: it takes as long as a text
    for label in range(classes):
        left, top = GAP + label % across * (CELL + GAP), label // across * line
        middle = (left + CELL / 2, top + HEADING / 2)
        pen.text(middle, shortened(class_names[label], 10), fill="black", anchor="mm", font=font)
        shown = images[label * ipc : label * ipc + rows]
        pixels = (shown * 255).round().to(torch.uint8).permute(0, 2, 3, 1).squeeze(-1).numpy()
        for row in range(rows):
            image = Image.fromarray(pixels[row]).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top + HEADING + row * (CELL + GAP)))
    return sheet


def overview(picture: Image.Image) -> Image.Image:
    """Return a picture scaled down so that its longer side has at most `OVERVIEW_PIXELS`."""
    small = picture.copy()
    small.thumbnail((OVERVIEW_PIXELS, OVERVIEW_PIXELS))
    return small


def encode_picture(picture: Image.Image, kind: str) -> bytes:
    """Return a picture as the content of a file.

    Args:
        picture: The picture.
        kind: PNG or WEBP.
    """
    content = io.BytesIO()
    picture.save(content, kind)
    return content.getvalue()
