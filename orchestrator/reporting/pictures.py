"""The picture of several synthetic sets."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from torch import Tensor

from orchestrator.reporting.figure_text import figure_names, figure_text
from trainables.data.pictures import MAX_CLASSES, MAX_IPC

__all__ = ["draw_sets"]


def draw_sets(path: Path, sets: dict[str, Tensor], class_names: Sequence[str]) -> None:
    """Draw several sets in default order below each other, each under its title, with one column per class.

    Args:
        path: PNG to write.
        sets: Displayable images by title, float [ipc·C, ch, H, W] in [0, 1], of which the first classes are drawn.
        class_names: Names of the C classes.
    """
    classes = min(len(class_names), MAX_CLASSES)
    rows = [min(len(images) // len(class_names), MAX_IPC) for images in sets.values()]
    size, names = 0.75, figure_names(class_names, longest=10)
    figure = plt.figure(figsize=(size * classes + 0.3, sum(size * count + 0.45 for count in rows)), dpi=120)
    parts = figure.subfigures(len(sets), 1, height_ratios=[size * count + 0.45 for count in rows], squeeze=False)
    for (title, images), count, part in zip(sets.items(), rows, parts[:, 0], strict=True):
        ipc = len(images) // len(class_names)
        part.suptitle(figure_text(title), fontsize=9, y=0.99)
        axes = part.subplots(count, classes, squeeze=False)
        part.subplots_adjust(
            left=0.01, right=0.99, bottom=0.02, top=1 - 0.36 / (size * count + 0.45), wspace=0.06, hspace=0.06
        )
        for label in range(classes):
            axes[0, label].set_title(names[label], fontsize=6, pad=2)
            for row in range(count):
                image = images[label * ipc + row]
                axes[row, label].imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
                axes[row, label].axis("off")
    figure.savefig(path, facecolor="white")
    plt.close(figure)
