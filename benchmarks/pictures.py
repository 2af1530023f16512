"""The pictures of `benchmarks.headline`: images by Pillow, the curve by matplotlib if it is installed."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["draw_before_and_after", "draw_curve", "draw_curve_plainly"]

MOST_CLASSES, MOST_PER_CLASS = 20, 5
TILE = 48
"""Least side of a drawn image, in pixels."""
GAP, MARGIN, LINE = 3, 12, 26
INK, PAPER, ACCENT, FAINT = "#222222", "white", "#1f5fa8", "#cccccc"


def draw_before_and_after(path: Path, before: Tensor, after: Tensor, classes: int, title: str) -> None:
    """Draw images of evenly spread classes before and after distillation, a column a class.

    Args:
        path: The PNG file.
        before: Intensities in [0, 1], float32 [ipc·C, ch, H, W], in default order.
        after: Likewise, after distillation.
        classes: C.
        title: The second block's title after the word "after".
    """
    shown = torch.linspace(0, classes - 1, min(classes, MOST_CLASSES)).round().long()
    blocks = [_tiled(images.view(classes, -1, *images.shape[1:])[shown, :MOST_PER_CLASS]) for images in (before, after)]
    width = max(blocks[0].width, 360)
    picture = Image.new("RGB", (width + 2 * MARGIN, 2 * (blocks[0].height + LINE) + 3 * MARGIN), PAPER)
    pen, top = ImageDraw.Draw(picture), MARGIN
    for block, text in zip(blocks, ("before", f"after {title}"), strict=True):
        pen.text((MARGIN, top), text, fill=INK, font=ImageFont.load_default(15))
        picture.paste(block, (MARGIN, top + LINE))
        top += LINE + block.height + MARGIN
    picture.save(path)


def _tiled(images: Tensor) -> Image.Image:
    """Return images [columns, rows, ch, H, W] side by side, with pixels enlarged to squares of whole size."""
    columns, rows, side = *images.shape[:2], images.shape[-1]
    scale = -(-TILE // side)
    enlarged = images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    tile = side * scale
    canvas = torch.ones(3, rows * (tile + GAP) - GAP, columns * (tile + GAP) - GAP)
    for column in range(columns):
        for row in range(rows):
            top, left = row * (tile + GAP), column * (tile + GAP)
            canvas[:, top : top + tile, left : left + tile] = enlarged[column, row].expand(3, -1, -1)
    pixels = (255 * canvas).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def draw_curve(path: Path, seconds: Sequence[float], accuracies: Sequence[float], title: str, began: float) -> str:
    """Draw accuracy against time; return the library that drew it: matplotlib, or Pillow if that is missing.

    Args:
        path: The PNG file.
        seconds: Wall time of the points since the run began, s.
        accuracies: Validation accuracies of the points, in [0, 1].
        title: The curve's title.
        began: End of the expert stage, s since the run began.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        draw_curve_plainly(path, seconds, accuracies, title, began)
        return "Pillow"
    figure = Figure(figsize=(6.4, 4), dpi=120, layout="constrained")
    axis = figure.subplots()
    axis.axvspan(0, began, color=FAINT, alpha=0.5, lw=0, label="experts")
    axis.plot(seconds, [100 * value for value in accuracies], "o-", color=ACCENT)
    axis.set(xlabel="seconds since the start", ylabel="validation accuracy, %", title=title, xlim=(0, None))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", frameon=False)
    figure.savefig(path)
    return "matplotlib"


def draw_curve_plainly(
    path: Path, seconds: Sequence[float], accuracies: Sequence[float], title: str, began: float
) -> None:
    """Draw the same curve as `draw_curve`, with Pillow alone."""
    left, top, right, bottom = 70, 50, 740, 410
    most_seconds, most = max(*seconds, began, 1e-9), max(*accuracies, 1e-9)
    picture = Image.new("RGB", (right + 40, bottom + 60), PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)

    def place(second: float, accuracy: float) -> tuple[float, float]:
        return left + (right - left) * second / most_seconds, bottom - (bottom - top) * accuracy / most

    pen.rectangle((*place(0, most), *place(began, 0)), fill="#eeeeee")
    for tick in range(5):
        x, y = place(tick * most_seconds / 4, tick * most / 4)
        pen.line((left, y, right, y), fill=FAINT)
        pen.text((left - 8, y), f"{100 * tick * most / 4:.1f}", fill=INK, font=font, anchor="rm")
        pen.text((x, bottom + 8), f"{tick * most_seconds / 4:,.0f}", fill=INK, font=font, anchor="mt")
    pen.line([(left, top), (left, bottom), (right, bottom)], fill=INK)
    points = [place(*point) for point in zip(seconds, accuracies, strict=True)]
    pen.line(points, fill=ACCENT, width=3)
    for x, y in points:
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=ACCENT)
    pen.text((left, 20), f"{title}: validation accuracy, %", fill=INK, font=font)
    caption = "seconds since the start; grey: experts"
    pen.text(((left + right) / 2, bottom + 36), caption, fill=INK, font=font, anchor="mt")
    picture.save(path)
