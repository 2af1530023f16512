"""Recall and confusion by class, of networks trained on the best set. Source of the data: finals.parquet."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.reporting.figure_text import figure_names
from orchestrator.reporting.templating import escape_markdown, render
from orchestrator.results.entries import RANDOM_REAL
from trainables.data.names import shortened

__all__ = ["class_section", "draw_confusion"]

SHOWN = 20
"""Classes that are shown one by one; of more, the best and the worst, half of them each."""
LONGEST = 60
"""Characters of a class name in a table; longer names are shortened."""
MISTAKES = 5
"""Pairs of classes that are listed as the most frequent mistakes."""


def draw_confusion(path: Path, names: list[str], confusion: np.ndarray) -> None:
    """Draw the predicted classes of the images of each class, as shares of the class over all networks.

    Args:
        path: PNG to write.
        names: The C classes.
        confusion: int64 [networks, C, C], actual class by predicted.
    """
    shares = _shares(confusion)
    figure, axis = plt.subplots(figsize=(5.6, 5.2), dpi=120, layout="constrained")
    picture = axis.imshow(shares, cmap="viridis", vmin=0, vmax=shares.max())
    figure.colorbar(picture, label="share of the class's images", shrink=0.8)
    if len(names) <= SHOWN:
        labels = figure_names(names)
        axis.set_xticks(range(len(names)), labels, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), labels, fontsize=8)
    axis.set(xlabel="predicted class", ylabel="actual class")
    figure.savefig(path)
    plt.close(figure)


def class_section(names: list[str], confusions: dict[str, np.ndarray], best: str) -> str:
    """Return the section about the single classes in Markdown.

    Args:
        names: The C classes.
        confusions: By set of the finals, int64 [networks, C, C].
        best: Name of the best set.
    """
    ours, real = confusions[best], confusions[RANDOM_REAL]
    accuracy, of_real = _class_accuracy(ours), _class_accuracy(real).mean(axis=0)
    order = np.argsort(-accuracy.mean(axis=0), kind="stable")
    half, shown = SHOWN // 2, len(names)
    if shown > SHOWN:
        order, shown = np.concatenate([order[:half], order[-half:]]), SHOWN
    rows = [
        [
            escape_markdown(shortened(names[k], LONGEST)),
            str(int(ours[0, k].sum())),
            *(
                (f"{accuracy[:, k].mean():.3f} ± {accuracy[:, k].std(ddof=1):.3f}", f"{of_real[k]:.3f}")
                if ours[0, k].sum()
                else ("–", "–")
            ),
        ]
        for k in order
    ]
    return render(
        "sections/classes.md.j2",
        networks=len(ours),
        classes=len(names),
        shown=shown,
        mistakes=_mistakes(names, ours),
        rows=rows,
    )


def _class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return each network's share of right predictions by actual class, [networks, C]."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    shares: np.ndarray = hits / confusion.sum(axis=2).clip(1)
    return shares


def _shares(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class's images by predicted class, over all networks, float64 [C, C]."""
    counts = confusion.sum(axis=0)
    shares: np.ndarray = counts / counts.sum(axis=1, keepdims=True).clip(1)
    return shares


class _Mistake(NamedTuple):
    """Images of one class that are classified as another."""

    actual: str
    predicted: str
    share: str
    """Of the actual class's images, over all networks, in percent."""


def _mistakes(names: list[str], confusion: np.ndarray) -> list[_Mistake]:
    """Return the most frequent mistakes, the largest share first."""
    shares = _shares(confusion)
    np.fill_diagonal(shares, 0)
    largest = [divmod(int(place), len(names)) for place in np.argsort(-shares, axis=None, kind="stable")[:MISTAKES]]
    shown = [shortened(name, LONGEST) for name in names]
    return [
        _Mistake(shown[actual], shown[predicted], f"{shares[actual, predicted]:.0%}") for actual, predicted in largest
    ]
