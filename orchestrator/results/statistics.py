"""Statistics of repeated measurements: summaries with intervals, tests of differences, correction for many tests.

The test that decides is fixed before the measurement, by the number of values and of comparisons. Where the values pair
(the same seed on both sides), it is the exact paired permutation test, which assumes only that the sign of a difference
is random under the null. With few pairs this test cannot reach 5 %, corrected for all comparisons, whatever the values.
Then, and for values that do not pair, it is Welch's t test, which assumes nearly normal values, but no common variance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["ALPHA", "Comparison", "compare", "holm", "rank_correlation", "summarize"]

ALPHA = 0.05
"""Level of tests; intervals have 1 − ALPHA."""
LEAST = 3
"""Least number of values a side for a test."""
ALL_SIGNS = 20
"""Most pairs for which all assignments of signs are enumerated; with more pairs a fixed sample is."""


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, sample standard deviation (n − 1; 0 for one value), n, the values, and the mean's 95 % interval.

    The interval is Student's, None for one value.
    """
    mean = float(np.mean(values))
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    half = _quantile(len(values) - 1) * std / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "mean": mean,
        "std": std,
        "n": len(values),
        "values": [float(value) for value in values],
        "interval_95": None if half is None else [mean - half, mean + half],
    }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference of two means, with its interval, effect size and tests."""

    difference: float
    """Mean of the first less mean of the second."""
    interval_95: tuple[float, float] | None
    """The difference's interval: of Student's t on the pairs, or Welch's; None where there are too few values."""
    effect_size: float | None
    """In standard deviations: of the differences where the values pair (Cohen's d_z), else pooled, with Hedges'
    correction; None where there are too few values, or none differ."""
    welch_p: float | None
    """Two-sided p of Welch's t test."""
    permutation_p: float | None
    """Two-sided p of the paired permutation test."""
    test: str | None
    """The test that decides."""
    p: float | None
    """The deciding test's p; None if there are too few values."""
    p_holm: float | None = None
    """p corrected for all comparisons of a family; see `holm`."""
    note: str
    """Reason for this test, or for none."""

    @property
    def significant(self) -> bool:
        """Whether the difference is significant, corrected if it was."""
        p = self.p if self.p_holm is None else self.p_holm
        return p is not None and p <= ALPHA


def compare(ours: Sequence[float], theirs: Sequence[float], *, paired: bool, family: int = 1) -> Comparison:
    """Return the difference of two means with its test.

    Args:
        ours: Independent measurements.
        theirs: Independent measurements to compare with.
        paired: Whether the k-th values of both sides share a seed; then both sides are equally long.
        family: Number of comparisons in the family; see `holm`.

    Raises:
        ValueError: The sides are paired and not equally long.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if paired and len(a) != len(b):
        raise ValueError(f"values that pair are equally many, not {len(a)} and {len(b)}")
    difference = float(a.mean() - b.mean())
    least = min(len(a), len(b))
    if least < LEAST:
        return Comparison(
            difference=difference, interval_95=None, effect_size=None, welch_p=None, permutation_p=None, test=None,
            p=None, note=f"no test: n = {least}, and fewer than {LEAST} values say too little of chance",
        )  # fmt: skip
    welch_p, half = _welch(a, b)
    if paired:
        half = _quantile(len(a) - 1) * float((a - b).std(ddof=1)) / math.sqrt(len(a))
    permutation_p = _permutation(a - b) if paired else None
    smallest = 2 * 0.5 ** len(a)  # of all assignments of signs, the measured one and its mirror image
    if permutation_p is not None and smallest * family <= ALPHA:
        test, p, note = "paired permutation", permutation_p, f"the seeds pair, n = {len(a)}"
    elif paired:
        needed = math.ceil(math.log2(2 * family / ALPHA))
        note = (
            f"{len(a)} pairs cannot reach p ≤ {ALPHA:g} in the permutation test, corrected for {family} "
            f"{'comparison' if family == 1 else 'comparisons'} (at best {smallest * family:g}): {needed} can"
        )
        test, p = "Welch", welch_p
    else:
        test, p, note = "Welch", welch_p, f"no seeds pair, n = {len(a)} and {len(b)}"
    return Comparison(
        difference=difference, interval_95=(difference - half, difference + half),
        effect_size=_effect(a, b, paired=paired), welch_p=welch_p, permutation_p=permutation_p,
        test=test, p=p, note=note,
    )  # fmt: skip


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return a family's comparisons with p corrected by Holm's step-down: the chance of any false alarm stays at ALPHA.

    Comparisons without a test are not counted. Holm (1979).
    """
    tested = [(comparison.p, number) for number, comparison in enumerate(comparisons) if comparison.p is not None]
    corrected = list(comparisons)
    largest = 0.0
    for rank, (p, number) in enumerate(sorted(tested)):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[number] = replace(comparisons[number], p_holm=largest)
    return corrected


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float] | None:
    """Return Spearman's ρ of two sequences and its two-sided p, by permutation; None if either is constant or short."""
    if len(x) < 2 * LEAST or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    ranks = stats.rankdata(y)
    test = stats.permutation_test(
        (stats.rankdata(x),), lambda row, axis: _correlation(row, ranks), permutation_type="pairings", vectorized=True,
        n_resamples=9999, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.statistic), float(test.pvalue)


def _correlation(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of every row [..., n] with a vector [n]."""
    centred, other = rows - rows.mean(axis=-1, keepdims=True), vector - vector.mean()
    spread = np.sqrt((centred**2).sum(axis=-1) * (other**2).sum())
    return np.asarray((centred * other).sum(axis=-1) / spread)


def _quantile(degrees: float) -> float:
    return float(stats.t.ppf(1 - ALPHA / 2, degrees))


def _welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Return the two-sided p of Welch's t test, and half the interval's width. Welch (1947).

    SciPy's test is not used: it warns where values are equal up to rounding, as accuracies of a few images are.
    """
    difference = abs(float(a.mean() - b.mean()))
    shares = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    if not shares.any():
        return (0.0 if difference else 1.0), 0.0
    degrees = shares.sum() ** 2 / (shares**2 / [len(a) - 1, len(b) - 1]).sum()
    error = math.sqrt(shares.sum())
    return float(2 * stats.t.sf(difference / error, degrees)), _quantile(degrees) * error


def _permutation(differences: np.ndarray) -> float:
    """Return the two-sided p of the paired permutation test.

    SciPy's test is not used: it has the same result, but takes some eight times as long: 13 s, not 1.6 s, for 20 pairs.
    """
    if len(differences) <= ALL_SIGNS:
        signs = 1 - 2 * ((np.arange(2 ** len(differences))[:, None] >> np.arange(len(differences))) & 1)
        extra = 0  # the measured signs are among them
    else:
        signs = 1 - 2 * np.random.default_rng(0).integers(0, 2, (100_000, len(differences)))
        extra = 1
    measured = abs(differences.sum())
    sums = np.abs(signs @ differences)
    as_far = np.count_nonzero(sums >= measured * (1 - 1e-12))  # sums of the same numbers may differ by a rounding
    return float((as_far + extra) / (len(signs) + extra))


def _effect(a: np.ndarray, b: np.ndarray, *, paired: bool) -> float | None:
    if paired:
        spread, correction = float((a - b).std(ddof=1)), 1.0
    else:
        degrees = len(a) + len(b) - 2
        spread = math.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / degrees)
        correction = 1 - 3 / (4 * degrees - 1)
    return float(a.mean() - b.mean()) / spread * correction if spread else None
