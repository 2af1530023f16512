"""One parameter of a space: searched between bounds, searched among options, or fixed. Bounds are inclusive."""

import math
import re
import sys
from dataclasses import KW_ONLY, dataclass
from typing import TypeGuard

__all__ = ["Choice", "Dimension", "Fixed", "Integer", "Real", "SpaceError", "Value"]

Value = int | float | str | bool


class SpaceError(ValueError):
    """A space, or a change to one, is invalid; the message is one line with the rule, the value and the remedy."""


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether `value` is an int that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a finite int or float that is not a bool."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -sys.float_info.max <= value <= sys.float_info.max  # False for NaN and infinities too
    )


def is_word(text: str) -> bool:
    """Return whether `text` may be part of a path and of a metric name."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text) is not None


def _require_scalar(value: object, what: str) -> None:
    if not (isinstance(value, str | bool) or is_number(value)):
        raise SpaceError(f"{what} must be a finite number, a string or a bool, not {value!r}")


def _as_options(options: object) -> tuple[Value, ...]:
    if not isinstance(options, tuple | list) or not options:
        raise SpaceError(f"Choice: options must be a tuple of at least one value, not {options!r}")
    return tuple(options)


def _require_order(dimension: "Integer | Real", smallest_log: float, rule_log: str) -> None:
    low, high, first = dimension.low, dimension.high, dimension.first
    kind = type(dimension).__name__
    if low > high:
        raise SpaceError(f"{kind}: low must not be larger than high, but low={low} and high={high}; swap them")
    if not low <= first <= high:
        raise SpaceError(
            f"{kind}: first must lie within the bounds {low} to {high}, both included, not {first}; "
            "widen the bounds or choose another first value"
        )
    if dimension.log and low < smallest_log:
        raise SpaceError(f"{kind}: low must be {rule_log} where log=True, not {low}; raise low or leave log out")


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds, both included."""

    low: int
    """Smallest value."""
    high: int
    """Largest value."""
    _: KW_ONLY
    first: int
    """Value in trial 0."""
    log: bool = False
    """Whether the parameter is searched on a logarithmic scale."""
    source: str = ""
    """Source of the values."""

    def __post_init__(self) -> None:
        for field in ("low", "high", "first"):
            if not is_whole(getattr(self, field)):
                raise SpaceError(
                    f"Integer: {field} must be a whole number, not {getattr(self, field)!r}; else use Real"
                )
        _require_order(self, 1, "at least 1")

    @property
    def values(self) -> tuple[int, ...]:
        """The values that checks test: the bounds and the first value."""
        return self.low, self.high, self.first

    def contains(self, value: object) -> bool:
        """Return whether a trial may use `value`."""
        return is_whole(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low} … {self.high}" + (", log" if self.log else "")


@dataclass(frozen=True)
class Real:
    """A real number between two bounds, both included."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    _: KW_ONLY
    first: float
    """Value in trial 0."""
    log: bool = False
    """Whether the parameter is searched on a logarithmic scale."""
    source: str = ""
    """Source of the values."""

    def __post_init__(self) -> None:
        for field in ("low", "high", "first"):
            value = getattr(self, field)
            if not is_number(value):
                raise SpaceError(f"Real: {field} must be a finite number, not {value!r}")
            object.__setattr__(self, field, float(value))
        _require_order(self, math.ulp(0.0), "larger than 0")

    @property
    def values(self) -> tuple[float, ...]:
        """The values that checks test: the bounds and the first value."""
        return self.low, self.high, self.first

    def contains(self, value: object) -> bool:
        """Return whether a trial may use `value`; a sampler on a log scale may exceed a bound by a rounding error."""
        return is_number(value) and (
            self.low <= value <= self.high or math.isclose(value, self.low) or math.isclose(value, self.high)
        )

    def __str__(self) -> str:
        return f"{self.low:.12g} … {self.high:.12g}" + (", log" if self.log else "")


@dataclass(frozen=True)
class Choice:
    """One of several values that have no order."""

    options: tuple[Value, ...]
    """The values."""
    _: KW_ONLY
    first: Value
    """Value in trial 0."""
    source: str = ""
    """Source of the values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", _as_options(self.options))
        for option in (*self.options, self.first):
            _require_scalar(option, "Choice: an option")
        if len(set(self.options)) < len(self.options):
            raise SpaceError(f"Choice: options must differ, not {self.options!r}; leave out the repeated one")
        if self.first not in self.options:
            raise SpaceError(f"Choice: first must be one of the options {self.options!r}, not {self.first!r}")

    @property
    def values(self) -> tuple[Value, ...]:
        """The values that checks test: all options."""
        return self.options

    def contains(self, value: object) -> bool:
        """Return whether a trial may use `value`."""
        return value in self.options

    def __str__(self) -> str:
        return ", ".join(str(option) for option in self.options)


@dataclass(frozen=True)
class Fixed:
    """The same value in every trial."""

    value: Value
    """The value."""
    source: str = ""
    """Source of the value."""

    def __post_init__(self) -> None:
        _require_scalar(self.value, "Fixed: the value")

    @property
    def values(self) -> tuple[Value, ...]:
        """The values that checks test: the only value."""
        return (self.value,)

    def __str__(self) -> str:
        return str(self.value)


Dimension = Integer | Real | Choice | Fixed
