"""Samples are taken as often as there is time for, and not at all where one does not fit."""

import time

import pytest

from benchmarks.device.results import TooLittleTime
from benchmarks.device.timing import require, sample


def test_a_measurement_warms_up_with_a_part_and_has_as_many_samples_as_it_may() -> None:
    calls: list[str] = []
    taken = sample(
        lambda: calls.append("whole"), lambda: calls.append("part"), 2, device="cpu",
        deadline=time.monotonic() + 600, most=3,
    )  # fmt: skip
    assert calls == ["part", "part", "whole", "whole", "whole"]
    assert len(taken.seconds) == 3 and taken.first_seconds > 0 and taken.peak_bytes > 0


def test_a_sample_that_does_not_fit_is_not_taken() -> None:
    calls: list[str] = []
    with pytest.raises(TooLittleTime, match="a sample would take about"):
        sample(
            lambda: calls.append("whole"), lambda: calls.append("part"), 1e12, device="cpu",
            deadline=time.monotonic() + 600, most=3,
        )  # fmt: skip
    assert calls == ["part", "part"]


def test_what_takes_longer_than_is_left_is_refused_with_both_figures() -> None:
    require(1, time.monotonic() + 600, "compiling")
    with pytest.raises(TooLittleTime, match=r"compiling would take about 60\.0 s, and 0\.0 s are left for it"):
        require(60, time.monotonic() - 1, "compiling")
