"""The distillation correlation score of measured sets. docs/method.md, "DCS"."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from orchestrator.results.statistics import LEAST, rank_correlation, summarize

__all__ = ["MeasuredSet", "corrected_correlation", "dcs_records", "set_record"]

ALL = "all"
LEAST_SETS = 2 * LEAST
"""Least number of sets of one size for a correlation, as in `statistics.rank_correlation`."""
RESAMPLES = 9999
"""Random permutations for a p, as in `statistics.rank_correlation`."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """A set of the collection, and its measurements."""

    name: str
    ipc: int
    losses: Mapping[str, float]
    """Distillation losses by name; not finite where the loss diverged."""
    test_losses: Sequence[float]
    """Mean cross-entropy on the test split of every network trained on the set; not finite where training diverged."""
    accuracies: Sequence[float]

    @property
    def test_loss(self) -> float:
        """Mean test loss over networks."""
        return math.fsum(self.test_losses) / len(self.test_losses)


def corrected_correlation(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float] | None:
    """Return Spearman's ρ of pairs within their groups, pooled, and its two-sided p by permutation within groups.

    Within a group both sides' ranks are standardised (mean 0, sample variance 1) and then pooled: their correlation
    is Σ (n_g − 1) ρ_g / Σ (n_g − 1), the mean of the groups' own ρ_g weighted by the inverse of their
    variance under the null. What differs only between groups, such as the sets' size, cannot contribute.
    docs/design/dcs.md.

    Args:
        groups: The two sides of every group, equally long; groups of one pair, or with a constant side, are left out.

    Returns:
        ρ and p; None where Σ (n_g − 1) is smaller than for one group of `LEAST_SETS` sets.
    """
    ranked = [(_standard_ranks(x), _standard_ranks(y)) for x, y in groups if len(set(x)) > 1 and len(set(y)) > 1]
    weight = sum(len(x) - 1 for x, _ in ranked)
    if weight < LEAST_SETS - 1:
        return None
    rho = sum(float(x @ y) for x, y in ranked) / weight
    draws = np.random.default_rng(0)
    orders = np.zeros(RESAMPLES)
    for x, y in ranked:
        orders += draws.permuted(np.tile(x, (RESAMPLES, 1)), axis=1) @ y / weight
    slack = 1e-12  # sums of the same numbers may differ by a rounding
    as_far = min(np.count_nonzero(orders >= rho - slack), np.count_nonzero(orders <= rho + slack))
    return rho, min(1.0, float(2 * (as_far + 1) / (RESAMPLES + 1)))


def _standard_ranks(values: Sequence[float]) -> np.ndarray:
    ranks = stats.rankdata(values)
    return np.asarray((ranks - ranks.mean()) / ranks.std(ddof=1))


def dcs_records(sets: Sequence[MeasuredSet], losses: Sequence[str]) -> list[dict[str, Any]]:
    """Return the scores of every loss: at every size, and of several sizes over all sets, corrected for size and not.

    Returns:
        Records of loss, ipc (a size, or "all"), corrected (of "all": whether for size; of a size None), rho and p (None
        where there are too few sets, or all are equal), n (sets that are counted; in the corrected score those whose
        size has other sets), left_out (sets where either side is not finite), and loss_mean, loss_std,
        test_loss_mean and test_loss_std (None where n is 0).
    """
    records = []
    for loss in losses:
        by_size: dict[int, list[tuple[float, float]]] = {ipc: [] for ipc in sorted({entry.ipc for entry in sets})}
        for entry in sets:
            by_size[entry.ipc].append((entry.losses[loss], entry.test_loss))
        groups = {ipc: [pair for pair in pairs if all(map(math.isfinite, pair))] for ipc, pairs in by_size.items()}
        for ipc, pairs in groups.items():
            out = len(by_size[ipc]) - len(pairs)
            records.append(_record(loss, ipc, None, pairs, rank_correlation(*_sides(pairs)), out))
        if len(groups) > 1:
            everything = [pair for pairs in groups.values() for pair in pairs]
            comparable = [pair for pairs in groups.values() if len(pairs) > 1 for pair in pairs]
            corrected = corrected_correlation([_sides(pairs) for pairs in groups.values()])
            out = len(sets) - len(everything)
            records.append(_record(loss, ALL, True, comparable, corrected, out))
            records.append(_record(loss, ALL, False, everything, rank_correlation(*_sides(everything)), out))
    return records


def _sides(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _record(
    loss: str,
    ipc: int | str,
    corrected: bool | None,
    pairs: Sequence[tuple[float, float]],
    correlation: tuple[float, float] | None,
    left_out: int,
) -> dict[str, Any]:
    rho, p = correlation or (None, None)
    spreads = {
        f"{name}_{figure}": summarize(side)[figure] if side else None
        for name, side in zip(("loss", "test_loss"), _sides(pairs), strict=True)
        for figure in ("mean", "std")
    }
    score = {"loss": loss, "ipc": ipc, "corrected": corrected, "rho": rho, "p": p}
    return {**score, "n": len(pairs), "left_out": left_out, **spreads}


def set_record(entry: MeasuredSet) -> dict[str, Any]:
    """Return the JSON record of a set; values that are not finite are None."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "name": entry.name,
        "ipc": entry.ipc,
        "losses": {loss: plain(value) for loss, value in entry.losses.items()},
        "test_loss": plain(entry.test_loss),
        "test_losses": [plain(value) for value in entry.test_losses],
        "accuracy": math.fsum(entry.accuracies) / len(entry.accuracies),
        "accuracies": list(entry.accuracies),
    }
