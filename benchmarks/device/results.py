"""What the jobs of a device's measurement return, and how a job can end without all of its results."""

import statistics
from dataclasses import dataclass

__all__ = ["Check", "Fact", "JobStopped", "Measurement", "Result", "TooLittleTime"]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that is known of the machine or of a run."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """The deviation of something computed on the device from its reference on the CPU."""

    name: str
    precision: str
    error: float
    """Relative error; not finite if a result was not."""
    limit: float
    """The largest error that counts as correct."""

    @property
    def passed(self) -> bool:
        """Whether the error is finite and within the limit."""
        return self.error <= self.limit


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Samples of one quantity."""

    name: str
    unit: str
    samples: tuple[float, ...]
    """One at least."""
    peak_bytes: int | None = None
    """Peak memory while the samples were taken: allocated tensors on a GPU, the resident set on a CPU."""
    note: str = ""

    @property
    def median(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples)


Result = Fact | Check | Measurement


class TooLittleTime(Exception):
    """A job does not fit into the time that it has; the message says what it takes and what is left."""


class JobStopped(Exception):
    """A job ended without all of its results."""

    def __init__(self, how: str, reason: str) -> None:
        """`how` is "skipped" (no time), "refused" (the product does not offer it) or "failed"."""
        super().__init__(reason)
        self.how, self.reason = how, reason
