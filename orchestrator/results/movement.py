"""Whether a trial moved its images: the share of skipped updates, and how far the images are from the initial ones."""

from collections.abc import Mapping

__all__ = ["SKIPPED", "STILL", "hardly_moved"]

SKIPPED = 0.5
"""Share of skipped updates above which a report warns of a trial or a set."""
STILL = 0.01
"""Root mean square distance from the initial images, in normalised pixels whose deviation is about 1, below which the
images look and train as they did."""


def hardly_moved(measures: Mapping[str, float | None]) -> bool:
    """Return whether a trial's measures at its last rung say that it skipped most updates or left its images in place.

    Args:
        measures: `skip_rate` and `image_displacement`, where they are known.
    """
    skip_rate, displacement = (measures.get(name) for name in ("skip_rate", "image_displacement"))
    return (skip_rate or 0.0) > SKIPPED or (displacement is not None and displacement < STILL)
