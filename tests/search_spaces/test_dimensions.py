"""What a single parameter accepts, at construction and from a trial."""

import math
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import Choice, Fixed, Integer, Real, SpaceError

whole = st.integers(-(10**6), 10**6)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(whole, min_size=3, max_size=3).map(sorted))
def test_integer_takes_its_bounds_and_nothing_beyond(numbers: list[int]) -> None:
    low, first, high = numbers
    dimension = Integer(low, high, first=first)
    assert all(dimension.contains(value) for value in (low, first, high))
    assert not dimension.contains(low - 1)
    assert not dimension.contains(high + 1)
    assert not dimension.contains(float(low))


@given(st.lists(finite, min_size=3, max_size=3).map(sorted))
def test_real_takes_its_bounds(numbers: list[float]) -> None:
    low, first, high = numbers
    dimension = Real(low, high, first=first)
    assert all(dimension.contains(value) for value in (low, first, high))
    assert not dimension.contains(math.nan)
    assert not dimension.contains(math.inf)


def test_real_forgives_the_rounding_of_a_logarithm_and_no_more() -> None:
    dimension = Real(1e-5, 1e-3, first=1e-4, log=True)
    assert dimension.contains(math.exp(math.log(1e-5)))
    assert dimension.contains(1e-5 * (1 - 1e-12))
    assert not dimension.contains(0.999e-5)
    assert not dimension.contains(1.001e-3)


def test_real_keeps_floats_even_when_given_whole_numbers() -> None:
    dimension = Real(1, 100, first=10)
    assert [type(value) for value in dimension.values] == [float] * 3


def test_choice_takes_a_list_and_keeps_a_tuple() -> None:
    assert Choice([1, 2], first=2).options == (1, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Integer(3, 1, first=2), "low=3 and high=1; swap"),
        (lambda: Integer(1, 3, first=4), "first must lie within the bounds 1 to 3, both included, not 4"),
        (lambda: Integer(1, 3, first=0), "not 0"),
        (lambda: Integer(True, 3, first=2), "low must be a whole number, not True"),
        (lambda: Integer(1, 3.0, first=2), "high must be a whole number, not 3.0"),  # type: ignore[arg-type]
        (lambda: Integer(0, 3, first=2, log=True), "low must be at least 1 where log=True, not 0"),
        (lambda: Real(3.0, 1.0, first=2.0), "low=3.0 and high=1.0; swap"),
        (lambda: Real(1.0, 3.0, first=3.1), "both included, not 3.1"),
        (lambda: Real(0.0, 3.0, first=1.0, log=True), "low must be larger than 0 where log=True, not 0.0"),
        (lambda: Real(1.0, math.inf, first=1.0), "high must be a finite number, not inf"),
        (lambda: Real(1.0, 3.0, first=math.nan), "first must be a finite number, not nan"),
        (lambda: Real(1.0, 10**400, first=1.0), "high must be a finite number"),
        (lambda: Real(False, 3.0, first=1.0), "low must be a finite number, not False"),
        (lambda: Real("1", 3.0, first=1.0), "low must be a finite number, not '1'"),  # type: ignore[arg-type]
        (lambda: Choice((), first=1), "a tuple of at least one value, not ()"),
        (lambda: Choice("abc", first="a"), "a tuple of at least one value, not 'abc'"),  # type: ignore[arg-type]
        (lambda: Choice((1, 2), first=3), "first must be one of the options (1, 2), not 3"),
        (lambda: Choice((1, 2, 1), first=1), "options must differ"),
        (lambda: Choice((1.0, math.nan), first=1.0), "must be a finite number, a string or a bool, not nan"),
        (lambda: Choice(([1],), first=[1]), "must be a finite number, a string or a bool, not [1]"),  # type: ignore[arg-type]
        (lambda: Fixed(math.inf), "must be a finite number, a string or a bool, not inf"),
        (lambda: Fixed(None), "must be a finite number, a string or a bool, not None"),  # type: ignore[arg-type]
    ],
)
def test_bad_dimensions_say_the_rule_and_the_value(build: Callable[[], object], said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        build()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Integer, Real])
def test_first_log_and_source_are_keywords(kind: Callable[..., object]) -> None:
    with pytest.raises(TypeError):
        kind(1, 3, 2)


@pytest.mark.parametrize(
    "dimension",
    [Integer(1, 3, first=2, source="a"), Real(1, sys.float_info.max, first=2), Choice((1, 2), first=1), Fixed("x")],
)
def test_dimensions_are_frozen_and_survive_pickling(dimension: Any) -> None:
    assert pickle.loads(pickle.dumps(dimension)) == dimension
    with pytest.raises(AttributeError):
        dimension.source = "b"
