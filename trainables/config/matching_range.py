"""The expert epochs from which an iteration may sample its start. docs/method.md, "Matching range", step 2."""

from dataclasses import dataclass

from trainables.errors import ConfigError

__all__ = ["MatchingRange"]


@dataclass(frozen=True, kw_only=True)
class MatchingRange:
    """A matching range whose upper bound grows by one epoch every `interval` iterations, from T to T_plus.

    U(it) = min(T + ⌊it / interval⌋, T_plus). With T = T_plus the range is fixed, as in MTT and FTD.
    """

    T_minus: int
    """First start epoch."""
    T: int
    """Upper bound at iteration 0."""
    T_plus: int
    """Largest upper bound."""
    interval: int
    """Iterations for each +1 of the upper bound."""
    range_end: str
    """Whether the upper bound itself is a start epoch: DATM's code excludes it, M-DATM's eq. 4 includes it."""

    def __post_init__(self) -> None:
        """Refuse a range without a start epoch."""
        for name in ("T_minus", "T", "T_plus", "interval"):
            if type(getattr(self, name)) is not int:
                raise ConfigError(f"{name} must be a whole number, not {getattr(self, name)!r}")
        if not 0 <= self.T_minus < self.T <= self.T_plus:
            raise ConfigError(
                f"a matching range needs 0 ≤ T_minus < T ≤ T_plus, not {self.T_minus}, {self.T}, {self.T_plus}"
            )
        if self.interval < 1:
            raise ConfigError(f"interval is a number of iterations of at least 1, not {self.interval}")
        if self.range_end not in ("exclusive", "inclusive"):
            raise ConfigError(f"range_end is exclusive or inclusive, not {self.range_end}")

    def upper(self, iteration: int) -> int:
        """Return the upper bound U at an iteration, in epochs."""
        return min(self.T + iteration // self.interval, self.T_plus)

    def starts(self, iteration: int) -> range:
        """Return the start epochs of an iteration: T_minus to U − 1 or, with `range_end` inclusive, to U."""
        return range(self.T_minus, self.upper(iteration) + (self.range_end == "inclusive"))
