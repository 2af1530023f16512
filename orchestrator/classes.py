"""Class by class: what the networks of the best set get right, and what they take for what. From finals.parquet."""

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow.parquet as pq
from pyarrow import compute

mpl.use("Agg")

from matplotlib import pyplot as plt

from orchestrator.finals import CHALLENGE, RANDOM_REAL
from orchestrator.tables import markdown_table

__all__ = ["class_parts", "draw_confusion", "read_confusions"]

SHOWN = 20
"""Classes that are shown one by one; of more, the best and the worst, half of them each."""
MISTAKES = 5
"""Pairs of classes that are told as the most frequent mistakes."""


def read_confusions(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the classes' names, and by set of the finals its networks' confusions, int64 [networks, C, C].

    Those of the label regimes are left out.
    """
    table = pq.read_table(path)
    names: list[str] = json.loads(table.schema.metadata[b"class_names"])
    confusions: dict[str, list[np.ndarray]] = {}
    for row in table.filter(compute.field("protocol") == CHALLENGE).to_pylist():
        counts = np.array(row["confusion"]).reshape(len(names), len(names))
        confusions.setdefault(row["set"], []).append(counts)
    return names, {name: np.stack(each) for name, each in confusions.items()}


def draw_confusion(path: Path, names: list[str], confusion: np.ndarray) -> None:
    """Draw what the images of each class are taken for, as shares of the class over all networks.

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
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlabel="predicted class", ylabel="actual class")
    figure.savefig(path)
    plt.close(figure)


def class_parts(names: list[str], confusions: dict[str, np.ndarray], best: str) -> list[str]:
    """Return what a report says class by class.

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
            names[k], str(int(ours[0, k].sum())), f"{accuracy[:, k].mean():.3f} ± {accuracy[:, k].std(ddof=1):.3f}",
            f"{of_real[k]:.3f}",
        ]
        for k in order
    ]  # fmt: skip
    which = "all classes" if shown == len(names) else f"the {half} best and the {half} worst of {len(names)} classes"
    return [
        "## Class by class",
        f"Accuracy on a class's own images (its recall), mean ± standard deviation over {len(ours)} networks trained "
        f"on the best set; {which}. {_mistakes(names, ours)}",
        markdown_table(["class", "test images", "best trial", "random real images"], rows),
        "![Confusion of the classes](figures/confusion.png)",
    ]


def _class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Return each network's share of right predictions by actual class, [networks, C]."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    shares: np.ndarray = hits / confusion.sum(axis=2).clip(1)
    return shares


def _shares(confusion: np.ndarray) -> np.ndarray:
    """Return the share of each class that is taken for each, over all networks, [C, C]."""
    counts = confusion.sum(axis=0)
    shares: np.ndarray = counts / counts.sum(axis=1, keepdims=True).clip(1)
    return shares


def _mistakes(names: list[str], confusion: np.ndarray) -> str:
    """Say which classes are most often taken for which."""
    shares = _shares(confusion)
    np.fill_diagonal(shares, 0)
    largest = [divmod(int(place), len(names)) for place in np.argsort(-shares, axis=None, kind="stable")[:MISTAKES]]
    told = [f"{names[actual]} for {names[taken]} ({shares[actual, taken]:.0%})" for actual, taken in largest]
    return f"Taken most often for another: {', '.join(told)}."
