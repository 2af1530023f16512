"""The data card of an exported set, and what is said of the rounding of its images."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from orchestrator.reporting.templating import render
from orchestrator.reporting.words import mean_std, method_name, number_text
from trainables.data.names import one_line
from trainables.data.synthetic import SyntheticSet

__all__ = ["Accuracies", "Rounding", "clipped_text", "data_card", "rounding_text"]

Accuracies = Mapping[str, Mapping[str, Any]]
"""Accuracies on the test split by set of the finals, as `summarize` returns them."""


class Rounding(NamedTuple):
    """Accuracies on the test split, as `summarize` returns them, of networks that start from the same parameters."""

    as_trained: dict[str, Any]
    """Trained on the floats that were distilled."""
    eight_bits: dict[str, Any]
    """Trained on the pictures of 8 bits."""


def rounding_text(rounding: Rounding | str) -> str:
    """Return in a sentence what rounding to 8 bits does to the accuracy, or why it was not measured."""
    if isinstance(rounding, str):
        return f"Accuracy before and after rounding was not measured: {one_line(rounding)}."
    before, after = rounding
    networks = f"{before['n']} network{'' if before['n'] == 1 else 's'}"
    return (
        f"Test accuracy of {networks}: {mean_std(before)} with the images as they were distilled, {mean_std(after)} "
        f"with the pictures of 8 bits ({after['mean'] - before['mean']:+.4f})."
    )


def clipped_text(share: float | None, *, whitened: bool) -> str:
    """Return in a sentence which share of the intensities was clipped, and that whitened images are not shown."""
    text = "How many intensities were clipped to [0, 1] is not known without the dataset."
    if share is not None:
        text = f"{share:.2%} of the intensities were outside of [0, 1] and were clipped."
    if not whitened:
        return text
    return f"{text} The pictures are not what networks were trained on: those images were ZCA-whitened."


def data_card(synthetic: SyntheticSet, about: Mapping[str, Any], finals: Accuracies, rounding: Rounding | str) -> str:
    """Return the README.md of a hub's folder: a header in YAML, then what the set is, from what, how, and how good.

    Args:
        synthetic: The set.
        about: The facts in the set's file.
        finals: Accuracies of the sweep's finals; empty if they are not known.
        rounding: The accuracies before and after rounding, or why they were not measured.
    """
    images = len(synthetic.images)
    sizes = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K"}
    return render(
        "card.md.j2",
        synthetic=synthetic,
        about=about,
        images=images,
        pretty_name=json.dumps(one_line(f"{synthetic.dataset}, distilled by {synthetic.method}"), ensure_ascii=False),
        size=next((name for least, name in sizes.items() if images < least), "100K<n<1M"),
        side=synthetic.images.shape[-1],
        soft=synthetic.labels.is_floating_point(),
        rows=[_row(name, summary) for name, summary in finals.items()],
        rounding=rounding_text(rounding),
        clipped=""
        if about["clipped_share"] is None and not about["whitened"]
        else clipped_text(about["clipped_share"], whitened=about["whitened"]),
        settings=[[f"`{key}`", f"`{number_text(value)}`"] for key, value in sorted(synthetic.config.items())],
    )


def _row(name: str, summary: Mapping[str, Any]) -> list[str]:
    interval = summary["interval_95"]
    span = "{:.3f} … {:.3f}".format(*interval) if interval else "–"
    return [method_name(name), mean_std(dict(summary)), span, str(summary["n"])]
