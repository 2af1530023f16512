"""Pictures: synthetic sets, the trials of a search, the variants of a study."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import torch

mpl.use("Agg")

from matplotlib import pyplot as plt
from PIL import Image, ImageDraw
from torch import Tensor

__all__ = ["draw_set", "draw_sets"]

MAX_CLASSES, MAX_IPC = 20, 10
CELL, GAP, HEADING = 72, 4, 18
"""In pixels: side of an image, gap between two, height of the line with the names of the classes."""


def draw_set(path: Path, images: Tensor, class_names: Sequence[str], *, longest: int | None = None) -> None:
    """Draw a set in default order, one column per class, wrapped to about a square; of a large set the first classes.

    Args:
        path: PNG to write.
        images: Displayable, float [ipc·C, ch, H, W] in [0, 1].
        class_names: Names of the C classes.
        longest: Pixels of the longer side at most; None: no limit.
    """
    ipc = len(images) // len(class_names)
    classes, rows = min(len(class_names), MAX_CLASSES), min(ipc, MAX_IPC)
    across = min(classes, math.ceil(math.sqrt(classes * rows)))
    line = HEADING + rows * (CELL + GAP)
    # Not by matplotlib, which takes a third of a second: this is drawn at every rung of every trial.
    sheet = Image.new("RGB", (across * (CELL + GAP) + GAP, math.ceil(classes / across) * line), "white")
    pen = ImageDraw.Draw(sheet)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).squeeze(-1).numpy()
    for label in range(classes):
        left, top = GAP + label % across * (CELL + GAP), label // across * line
        middle = (left + CELL / 2, top + HEADING / 2)
        pen.text(middle, class_names[label][:10], fill="black", anchor="mm", font_size=9)
        for row in range(rows):
            image = Image.fromarray(pixels[label * ipc + row]).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top + HEADING + row * (CELL + GAP)))
    if longest is not None:
        sheet.thumbnail((longest, longest))
    sheet.save(path)


def draw_sets(path: Path, sets: dict[str, Tensor], class_names: Sequence[str]) -> None:
    """Draw several sets below each other, each under its title; see `draw_set`."""
    classes = min(len(class_names), MAX_CLASSES)
    rows = [min(len(images) // len(class_names), MAX_IPC) for images in sets.values()]
    size = 0.75
    figure = plt.figure(figsize=(size * classes + 0.3, sum(size * count + 0.45 for count in rows)), dpi=120)
    parts = figure.subfigures(len(sets), 1, height_ratios=[size * count + 0.45 for count in rows], squeeze=False)
    for (title, images), count, part in zip(sets.items(), rows, parts[:, 0], strict=True):
        ipc = len(images) // len(class_names)
        part.suptitle(title, fontsize=9, y=0.99)
        axes = part.subplots(count, classes, squeeze=False)
        part.subplots_adjust(
            left=0.01, right=0.99, bottom=0.02, top=1 - 0.36 / (size * count + 0.45), wspace=0.06, hspace=0.06
        )
        for label in range(classes):
            axes[0, label].set_title(class_names[label][:10], fontsize=6, pad=2)
            for row in range(count):
                image = images[label * ipc + row]
                axes[row, label].imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
                axes[row, label].axis("off")
    figure.savefig(path, facecolor="white")
    plt.close(figure)
