"""What to try next, as far as a search's own trials say it."""

import math
from collections.abc import Sequence

from orchestrator.trials import TrialRecord, best_trial
from search_spaces import Space
from search_spaces.dimensions import Choice, Integer, Real
from search_spaces.vocabulary import key

__all__ = ["next_steps"]

NEAR = 0.05
"""Share of a range, of its logarithm where it is searched so, that counts as at its bound."""


def next_steps(space: Space, records: Sequence[TrialRecord]) -> list[str]:
    """Return a sentence for every range at whose bound the best trial lies, and for what else the trials show."""
    best = best_trial(list(records))
    if best is None or space.variants:
        return []
    sentences = []
    for name, dimension in space.searched.items():
        if isinstance(dimension, Choice):
            continue
        for side, bound in (("lower", dimension.low), ("upper", dimension.high)):
            if _at(dimension, best.settings[name], bound) and _goes_on(name, dimension, bound):
                sentences.append(
                    f"`{name}`: the best trial's {best.settings[name]:.4g} lies at the {side} bound, {bound:.4g} "
                    f"({dimension}); the optimum may lie beyond. Widen it in a copy of the space's file."
                )
    failed = sum(record.status == "failed" for record in records)
    if failed > len(records) / 4:
        sentences.append(f"{failed} of {len(records)} trials failed: see their reasons, and narrow the ranges.")
    if best.iterations and best.rungs and len(best.rungs) > 1:
        *_, before, last = best.rungs.values()
        if last == max(best.rungs.values()) and last > before:
            sentences.append(
                f"The best trial still rose at its last rung ({before:.3f} → {last:.3f}): try more `iterations`."
            )
    return sentences


def _goes_on(name: str, dimension: Integer | Real, bound: float) -> bool:
    """Say whether the parameter means anything beyond a bound: no epoch is before the first."""
    step = 1 if isinstance(dimension, Integer) else 0.1 * bound
    return bool(key(name).rule.holds(bound - step if bound == dimension.low else bound + step))


def _at(dimension: Integer | Real, value: float, bound: float) -> bool:
    if dimension.low == dimension.high:
        return False
    scale = math.log if dimension.log else float
    reach = NEAR * (scale(dimension.high) - scale(dimension.low))
    return abs(scale(value) - scale(bound)) <= reach
