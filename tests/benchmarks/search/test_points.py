"""Points of a space: there and back, equal shares of whole numbers, and the points that are recorded."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.search.points import Box, points_around, sobol_points
from search_spaces import Choice, load

DIGITS = load("digits")
BOX = Box.of(DIGITS)


def test_settings_have_the_coordinates_from_which_they_came() -> None:
    draws = np.random.default_rng(5)
    for _ in range(50):
        settings = BOX.settings(list(draws.random(len(BOX.names))))
        DIGITS.resolve(settings)  # within every bound
        assert BOX.settings(BOX.point(settings)) == pytest.approx(settings)
    lowest, highest = BOX.settings([0.0] * len(BOX.names)), BOX.settings([1.0] * len(BOX.names))
    for name, dimension in zip(BOX.names, BOX.dimensions, strict=True):
        assert (lowest[name], highest[name]) == pytest.approx((dimension.low, dimension.high))


def test_whole_numbers_have_equal_shares_of_their_coordinate() -> None:
    axis = BOX.names.index("M")
    at = np.full(len(BOX.names), 0.5)
    values = Counter(
        BOX.settings(list(np.where(np.arange(len(at)) == axis, x, at)))["M"] for x in (np.arange(300) + 0.5) / 300
    )
    assert values == {1: 100, 2: 100, 3: 100}


def test_a_choice_has_no_coordinate() -> None:
    choice = Choice(("real", "correct"), first="real", source="test")
    space = replace(DIGITS, parameters={**DIGITS.parameters, "initialization": choice})
    with pytest.raises(ValueError, match="initialization is a Choice"):
        Box.of(space)


def test_the_recorded_points_are_the_same_at_every_call_and_fill_the_box() -> None:
    points = sobol_points(BOX, 80)
    assert points == sobol_points(BOX, 80) and points[:40] == sobol_points(BOX, 40)
    coordinates = np.array([BOX.point(point) for point in points])
    axis = BOX.names.index("lr_pixel")
    counts, _ = np.histogram(coordinates[:, axis], bins=8, range=(0, 1))
    assert counts.min() >= 8 and counts.max() <= 12


def test_points_around_stay_near_the_best_and_in_the_box() -> None:
    points = sobol_points(BOX, 80)
    best = [math.nan if number % 5 == 0 else float(number in (7, 13)) for number in range(80)]
    best[7] = 2.0
    around = points_around(BOX, points[:10], best[:10], 40)  # a tenth of ten is one: number 7
    assert around == points_around(BOX, points[:10], best[:10], 40)
    for point in around:
        DIGITS.resolve(point)
    centre = np.array(BOX.point(points[7]))
    distances = [np.abs(np.array(BOX.point(point)) - centre).mean() for point in around]
    others = [np.abs(np.array(BOX.point(point)) - centre).mean() for point in points]
    assert np.mean(distances) < 0.6 * np.mean(others)
