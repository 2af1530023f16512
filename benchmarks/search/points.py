"""Points of a space: settings as coordinates in [0, 1], and the points whose curves are recorded.

Half of them are a Sobol set. The other half lie around the best of those, because searches spend most of their trials
there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import qmc

from search_spaces import Integer, Real, Space
from trainables.seeding import seed_of

__all__ = ["Box", "points_around", "sobol_points"]

SPREAD = 0.12
"""Standard deviation of a point around a good one, in every coordinate."""
GOOD_SHARE = 0.1
"""Share of the Sobol points that are good."""


@dataclass(frozen=True)
class Box:
    """The searched dimensions of a space, each scaled to [0, 1] as it is searched: by its logarithm where it is log."""

    names: tuple[str, ...]
    dimensions: tuple[Integer | Real, ...]

    @classmethod
    def of(cls, space: Space) -> "Box":
        """Return the box of a space.

        Raises:
            ValueError: A searched dimension is a choice, which has no coordinate.
        """
        searched = {name: space.parameters[name] for name in space.first()}
        for name, dimension in searched.items():
            if not isinstance(dimension, Integer | Real):
                raise ValueError(f"{name} is a {type(dimension).__name__}, which has no coordinate")
        return cls(tuple(searched), tuple(searched.values()))  # type: ignore[arg-type] # checked above

    def settings(self, point: Sequence[float]) -> dict[str, int | float]:
        """Return the settings at coordinates in [0, 1]; every whole number has an equal share of its coordinate."""
        return {
            name: _value(dimension, float(at))
            for name, dimension, at in zip(self.names, self.dimensions, point, strict=True)
        }

    def point(self, settings: Mapping[str, Any]) -> list[float]:
        """Return the coordinates of settings; a whole number lies in the middle of its share."""
        return [
            _coordinate(dimension, settings[name]) for name, dimension in zip(self.names, self.dimensions, strict=True)
        ]


def sobol_points(box: Box, count: int) -> list[dict[str, int | float]]:
    """Return the settings of the first points of a scrambled Sobol sequence, the same at every call."""
    sequence = qmc.Sobol(len(box.names), seed=np.random.default_rng(seed_of(0, "recorded settings")))
    drawn = sequence.random(2 ** math.ceil(math.log2(count)))[:count]
    return [box.settings(point) for point in drawn]


def points_around(
    box: Box, settings: Sequence[Mapping[str, Any]], accuracies: Sequence[float], count: int
) -> list[dict[str, int | float]]:
    """Return settings around the best of those given: a normal step from one of them in every coordinate.

    A step that leaves [0, 1] is reflected at the bound.

    Args:
        box: The space's.
        settings: The recorded settings.
        accuracies: Their accuracies; NaN where none was reached.
        count: How many to return.
    """
    ranked = sorted(
        (number for number, accuracy in enumerate(accuracies) if math.isfinite(accuracy)),
        key=lambda number: (-accuracies[number], number),
    )
    good = [np.array(box.point(settings[number])) for number in ranked[: max(1, round(GOOD_SHARE * len(settings)))]]
    draws = np.random.default_rng(seed_of(0, "recorded settings", "around"))
    steps = [good[number % len(good)] + SPREAD * draws.standard_normal(len(box.names)) for number in range(count)]
    return [box.settings(1 - np.abs(1 - np.mod(step, 2))) for step in steps]


def _value(dimension: Integer | Real, at: float) -> int | float:
    low, high = _bounds(dimension)
    value = low + at * (high - low)
    if dimension.log:
        value = math.exp(value)
    if isinstance(dimension, Integer):
        return min(dimension.high, max(dimension.low, math.floor(value + 0.5)))
    return min(dimension.high, max(dimension.low, value))


def _coordinate(dimension: Integer | Real, value: float) -> float:
    low, high = _bounds(dimension)
    return min(1.0, max(0.0, ((math.log(value) if dimension.log else value) - low) / (high - low)))


def _bounds(dimension: Integer | Real) -> tuple[float, float]:
    """Return the bounds of the scale; those of whole numbers are half a number wider, so that all have equal shares."""
    half = 0.5 if isinstance(dimension, Integer) else 0.0
    low, high = dimension.low - half, dimension.high + half
    return (math.log(low), math.log(high)) if dimension.log else (low, high)
