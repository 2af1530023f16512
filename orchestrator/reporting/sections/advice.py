"""The section on what to try next, as far as the trials of a search show it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.reporting.templating import render
from orchestrator.results.trials import TrialRecord, best_trial
from search_spaces import Space
from search_spaces.dimensions import Choice, Integer, Real
from search_spaces.vocabulary import key

__all__ = ["advice_section"]

NEAR = 0.05
"""Share of a range, in logarithms where it is searched in logarithms, that counts as at its bound."""


class _AtBound(NamedTuple):
    """A searched setting of which the best trial's value lies at a bound of its range."""

    name: str
    value: float
    side: str
    """"lower" or "upper"."""
    bound: float
    dimension: Integer | Real


def advice_section(space: Space, records: Sequence[TrialRecord]) -> str:
    """Return the section on what to try next in Markdown; "" for a grid and where no trial has a value.

    It names the ranges at whose bound the best trial lies, frequent failures, and an accuracy that still rises.

    Args:
        space: The space that was searched.
        records: Its trials that ended.
    """
    best = best_trial(list(records))
    if best is None or space.is_grid:
        return ""
    failed = sum(record.status == "failed" for record in records)
    return render(
        "sections/advice.md.j2",
        at_bounds=_at_bounds(space, best),
        failed=failed if failed > len(records) / 4 else 0,
        trials=len(records),
        rise=_last_rise(best),
    )


def _at_bounds(space: Space, best: TrialRecord) -> list[_AtBound]:
    """Return the settings at a bound beyond which there are further values, in the order of the space."""
    return [
        _AtBound(name, best.settings[name], side, bound, dimension)
        for name, dimension in space.searched.items()
        if not isinstance(dimension, Choice)
        for side, bound in (("lower", dimension.low), ("upper", dimension.high))
        if _at(dimension, best.settings[name], bound) and _has_values_beyond(name, dimension, bound)
    ]


def _last_rise(best: TrialRecord) -> tuple[float, float] | None:
    """Return the accuracies at the last two rungs if the last is the trial's highest and above the one before."""
    if not best.iterations or not best.rungs or len(best.rungs) < 2:
        return None
    *_, before, last = best.rungs.values()
    return (before, last) if last == max(best.rungs.values()) and last > before else None


def _has_values_beyond(name: str, dimension: Integer | Real, bound: float) -> bool:
    """Return whether the rule of the setting allows values beyond a bound: no epoch is before the first."""
    step = 1 if isinstance(dimension, Integer) else 0.1 * bound
    return bool(key(name).rule.holds(bound - step if bound == dimension.low else bound + step))


def _at(dimension: Integer | Real, value: float, bound: float) -> bool:
    if dimension.low == dimension.high:
        return False
    scale = math.log if dimension.log else float
    reach = NEAR * (scale(dimension.high) - scale(dimension.low))
    return abs(scale(value) - scale(bound)) <= reach
