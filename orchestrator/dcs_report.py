"""How sets' distillation losses and test losses go together: the score by size, corrected for size, and its reading.

METHOD §6, DCS; docs/design/dcs.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from scipy import stats

from orchestrator.statistics import ALPHA, LEAST, rank_correlation, summarize

__all__ = ["MeasuredSet", "corrected_correlation", "dcs_records", "reading", "records_table", "set_record"]

ALL = "all"
LEAST_SETS = 2 * LEAST
"""Sets of one size from which on they have a correlation: `statistics.rank_correlation` has none of fewer."""
RESAMPLES = 9999
"""Random orders that a p is made of, as in `statistics.rank_correlation`."""


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """A set of the collection, and what it was measured to be."""

    name: str
    ipc: int
    losses: Mapping[str, float]
    """Distillation losses by name; not finite where something diverged."""
    test_losses: Sequence[float]
    """Mean cross-entropy of each network trained on it; likewise."""
    accuracies: Sequence[float]

    @property
    def test_loss(self) -> float:
        """Mean over networks."""
        return math.fsum(self.test_losses) / len(self.test_losses)


def corrected_correlation(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float] | None:
    """Return Spearman's ρ of pairs within their groups, pooled, and its two-sided p by permutation within groups.

    Within each group both sides' ranks are standardised (mean 0, sample variance 1) and then pooled: their correlation
    is Σ (n_g − 1) ρ_g / Σ (n_g − 1), the mean of the groups' own ρ_g weighted by the inverse of the variance that each
    has under the null. Nothing that only differs between groups, such as the sets' size, can contribute.
    docs/design/dcs.md.

    Args:
        groups: The two sides of each, equally long; groups of one pair, or with a constant side, say nothing.

    Returns:
        None where Σ (n_g − 1) is smaller than that of one group which `statistics.rank_correlation` would take.
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
    """Return the score of each loss: at each size, and of several sizes over all sets, corrected for size and not.

    Returns:
        Records of loss, ipc (a size, or "all"), corrected (of "all": whether for size; of a size None), rho and p (None
        where there are too few sets, or all are alike), n (sets that are counted; in the corrected score those that
        are not alone in their size), left_out (sets where either side is not finite), and loss_mean, loss_std,
        test_loss_mean and test_loss_std (None where n is 0).
    """
    records = []
    for loss in losses:
        told: dict[int, list[tuple[float, float]]] = {ipc: [] for ipc in sorted({each.ipc for each in sets})}
        for each in sets:
            told[each.ipc].append((each.losses[loss], each.test_loss))
        groups = {ipc: [pair for pair in pairs if all(map(math.isfinite, pair))] for ipc, pairs in told.items()}
        for ipc, pairs in groups.items():
            out = len(told[ipc]) - len(pairs)
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
    found: tuple[float, float] | None,
    left_out: int,
) -> dict[str, Any]:
    rho, p = found or (None, None)
    spreads = {
        f"{name}_{figure}": summarize(side)[figure] if side else None
        for name, side in zip(("loss", "test_loss"), _sides(pairs), strict=True)
        for figure in ("mean", "std")
    }
    score = {"loss": loss, "ipc": ipc, "corrected": corrected, "rho": rho, "p": p}
    return {**score, "n": len(pairs), "left_out": left_out, **spreads}


def records_table(records: Sequence[Mapping[str, Any]], split: str) -> Table:
    """Return the scores as a table for the terminal."""
    title = f"Distillation correlation score: Spearman's ρ of loss and cross-entropy on the {split} split"
    table = Table(title=title, title_justify="left")
    for heading in ("loss", "images a class"):
        table.add_column(heading)
    for heading in ("sets", "ρ", "p", "loss, mean ± std", "cross-entropy, mean ± std"):
        table.add_column(heading, justify="right")
    for each in records:
        size = {None: str(each["ipc"]), True: "all, corrected for size", False: "all, not corrected"}[each["corrected"]]
        told = each["rho"] is not None
        rho, p = (f"{each['rho']:+.2f}", f"{each['p']:.2g}") if told else (_why_none(each), "–")
        spreads = [
            "–" if each[f"{side}_mean"] is None else f"{each[f'{side}_mean']:.4g} ± {each[f'{side}_std']:.2g}"
            for side in ("loss", "test_loss")
        ]
        out = f" ({each['left_out']} left out: not finite)" if each["left_out"] else ""
        table.add_row(each["loss"], size, f"{each['n']}{out}", rho, p, *spreads)
    return table


def _why_none(record: Mapping[str, Any]) -> str:
    few = record["n"] < LEAST_SETS or record["corrected"]
    return f"too few: {LEAST_SETS} of a size are needed" if few else "none: all alike"


def reading(loss: str, records: Sequence[Mapping[str, Any]], split: str) -> str:
    """Return what a loss's score says in a sentence: its one size's, or that over all sizes, corrected.

    Args:
        loss: Its name.
        records: `dcs_records` of sets among whose losses it is.
        split: What tested the networks.
    """
    own = [each for each in records if each["loss"] == loss]
    score = next((each for each in own if each["corrected"]), own[0])
    if score["rho"] is None:
        return f"{loss}: no score, {_why_none(score)}."
    if score["p"] > ALPHA:
        says = f"a lower loss says nothing of the {split} loss that chance would not"
    elif score["rho"] > 0:
        says = f"a lower loss goes with a lower {split} loss"
    else:
        says = f"a lower loss goes with a higher {split} loss, the opposite of what minimising it is for"
    at = f"ρ = {score['rho']:+.2f}, permutation p = {score['p']:.2g}, n = {score['n']}"
    return f"{loss}: among sets of equal size {says} ({at})."


def set_record(each: MeasuredSet) -> dict[str, Any]:
    """Return what --json says of a set; None for what is not finite."""

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "name": each.name,
        "ipc": each.ipc,
        "losses": {loss: plain(value) for loss, value in each.losses.items()},
        "test_loss": plain(each.test_loss),
        "test_losses": [plain(value) for value in each.test_losses],
        "accuracy": math.fsum(each.accuracies) / len(each.accuracies),
        "accuracies": list(each.accuracies),
    }
