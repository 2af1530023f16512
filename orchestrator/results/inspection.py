"""What `inspect` found in a dataset, as one value and as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.dimensions import Value
from trainables.data.datasets import ImageDataset
from trainables.data.duplicates import Duplicates
from trainables.data.inspection import ClassContent
from trainables.data.source import Findings
from trainables.data.survey import Survey

__all__ = ["Inspection", "inspection_json"]

JSON_VERSION = 1
_LISTED = 100
"""Sizes of pictures in the JSON: the most common ones."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A dataset before any sweep."""

    dataset: ImageDataset
    """Prepared, with its three splits."""
    findings: Findings
    """What its finder saw beside the images."""
    survey: Survey
    """Sizes and modes of its files."""
    classes: list[ClassContent]
    """Its classes, by label."""
    duplicates: Duplicates
    """Its images that occur more than once."""
    settings: Mapping[str, Value]
    """The keys of a space that a sweep on it needs: those that were set, and those that its files ask for."""

    @property
    def left_out(self) -> dict[str, int]:
        """Number of files or folders that were left out, by reason."""
        damage = self.dataset.damage
        return {**self.findings.skipped, **({"damaged": damage.count} if damage else {})}


def inspection_json(found: Inspection) -> dict[str, Any]:
    """Return the content of the file that `--json` names; its form is a contract.

    `skipped` counts what was left out by reason, `damaged` names the first ten damaged images, `sizes` has the hundred
    most common ones, and `settings` are the keys that a sweep needs.
    """
    dataset = found.dataset
    sizes = found.survey.sizes
    return {
        "version": JSON_VERSION,
        "dataset": dataset.name,
        "layout": found.findings.layout,
        "test_from": found.findings.test_from,
        "notes": list(found.findings.notes),
        "skipped": found.left_out,
        "damaged": list(dataset.damage.first) if dataset.damage else [],
        "classes": [
            {"name": each.name, "train": each.train, "validation": each.validation, "test": each.test}
            for each in found.classes
        ],
        "image_size": dataset.image_size,
        "channels": dataset.channels,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "class_means": {each.name: list(each.mean) for each in found.classes},
        "sizes": [
            {"width": width, "height": height, "count": count} for (width, height), count in sizes.most_common(_LISTED)
        ],
        "modes": dict(found.survey.modes.most_common()),
        "duplicates": {
            "test_in_train": found.duplicates.test_in_train,
            "within_train": found.duplicates.within_train,
        },
        "settings": dict(found.settings),
        "digest": dataset.digest,
    }
