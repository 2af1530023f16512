"""Pictures: synthetic sets, the trials of a search, the variants of a study."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw
from torch import Tensor

from orchestrator.statistics import summarize
from orchestrator.study import variant_range
from orchestrator.trials import TrialRecord
from search_spaces import Space

__all__ = ["draw_set", "draw_sets", "draw_study", "draw_trials"]

MAX_CLASSES, MAX_IPC = 20, 10
CELL, GAP, HEADING = 72, 4, 18
"""Pixels of an image of a set, between two, and of the line with the classes' names."""
_COLOURS = {"finished": "#1b6ca8", "pruned": "#b9c4cc", "failed": "#c0392b"}


def draw_set(path: Path, images: Tensor, class_names: Sequence[str], *, longest: int | None = None) -> None:
    """Draw a set in default order, a column a class, in lines that make about a square; of a large set the first.

    Args:
        path: PNG to write.
        images: Displayable, float [ipc·C, ch, H, W] in [0, 1].
        class_names: Names of the C classes.
        longest: Pixels of the longer side at most; None: as it comes.
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


def draw_trials(path: Path, records: Sequence[TrialRecord], best: TrialRecord) -> None:
    """Draw the search: accuracy over iterations, and each trial's matching range against its accuracy."""
    figure, (curves, ranges) = plt.subplots(2, 1, figsize=(6.4, 7.2), dpi=120, constrained_layout=True)
    for record in records:
        marked = {"linewidth": 2.5, "zorder": 3} if record.number in (0, best.number) else {"linewidth": 1.0}
        colour = "#d35400" if record.number == 0 else _COLOURS[record.status]
        if record.number == best.number:
            colour = "#1e8449"
        curves.plot(list(record.rungs), list(record.rungs.values()), marker="o", markersize=3, color=colour, **marked)
        if record.last is not None:
            settings = record.settings
            ranges.plot([settings["T_minus"], settings["T_plus"]], [record.last] * 2, color=colour, **marked)
    curves.set(xlabel="distillation iteration", ylabel="validation accuracy", title="Search")
    ranges.set(xlabel="expert epoch (matching range T⁻ to T⁺)", ylabel="validation accuracy, last rung", title="Ranges")
    if best.number == 0:
        legend = {"best, the reference (trial 0)": "#1e8449", **_COLOURS}
    else:
        legend = {"best": "#1e8449", "reference (trial 0)": "#d35400", **_COLOURS}
    statuses = {record.status for record in records}
    shown = {name: colour for name, colour in legend.items() if name not in _COLOURS or name in statuses}
    curves.legend(
        [Line2D([], [], color=colour) for colour in shown.values()], list(shown), fontsize=7, loc="lower right"
    )
    for axis in (curves, ranges):
        axis.grid(alpha=0.25)
    figure.savefig(path)
    plt.close(figure)


def draw_study(path: Path, space: Space, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw a study: each variant's accuracy over its matching range, mean ± std beside the repeats themselves."""
    figure, axis = plt.subplots(figsize=(max(4.5, 1.6 * len(space.variants) + 1.5), 4.0), dpi=120, layout="constrained")
    series = {
        "accuracy": ("test split", "#1b6ca8", -0.15),
        "validation_accuracy": ("validation split", "#95a5a6", 0.08),
    }
    for metric, (label, colour, place) in series.items():
        for position, variant in enumerate(space.variants):
            values = [row[metric] for row in rows if row["variant"] == variant]
            axis.plot([position + place + 0.1] * len(values), values, "o", markersize=4, alpha=0.55, color=colour)
            if values:
                summary = summarize(values)
                spread = summary["std"] if len(values) > 1 else None
                axis.errorbar(position + place, summary["mean"], spread, fmt="D", markersize=6, capsize=5, color=colour)
        axis.plot([], [], "D", color=colour, label=f"{label}, mean ± std; dots: repeats")
    names = [f"{variant}\n{variant_range(space, variant)}" for variant in space.variants]
    axis.set_xticks(range(len(names)), names)
    axis.set(
        xlim=(-0.5, len(names) - 0.5), xlabel="variant and matching range T⁻–T→T⁺ (expert epochs)", ylabel="accuracy"
    )
    axis.grid(alpha=0.25, axis="y")
    axis.legend(fontsize=7)
    figure.savefig(path)
    plt.close(figure)
