"""The distillation correlation score: its table by size and over all sizes, and its interpretation.

docs/method.md, "DCS"; docs/design/dcs.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestrator.results.correlation import LEAST_SETS
from orchestrator.results.statistics import ALPHA

__all__ = ["reading", "records_table"]


def records_table(records: Sequence[Mapping[str, Any]], split: str) -> Table:
    """Return the scores as a table for the terminal."""
    title = f"Distillation correlation score: Spearman's ρ of loss and cross-entropy on the {split} split"
    table = Table(title=title, title_justify="left")
    for heading in ("loss", "images a class"):
        table.add_column(heading)
    for heading in ("sets", "ρ", "p", "loss, mean ± std", "cross-entropy, mean ± std"):
        table.add_column(heading, justify="right")
    for record in records:
        size = {None: str(record["ipc"]), True: "all, corrected for size", False: "all, not corrected"}[
            record["corrected"]
        ]
        has_score = record["rho"] is not None
        rho, p = (f"{record['rho']:+.2f}", f"{record['p']:.2g}") if has_score else (_why_none(record), "–")
        spreads = [
            "–" if record[f"{side}_mean"] is None else f"{record[f'{side}_mean']:.4g} ± {record[f'{side}_std']:.2g}"
            for side in ("loss", "test_loss")
        ]
        out = f" ({record['left_out']} left out: not finite)" if record["left_out"] else ""
        table.add_row(record["loss"], size, f"{record['n']}{out}", rho, p, *spreads)
    return table


def _why_none(record: Mapping[str, Any]) -> str:
    few = record["n"] < LEAST_SETS or record["corrected"]
    return f"too few: {LEAST_SETS} of a size are needed" if few else "none: all alike"


def reading(loss: str, records: Sequence[Mapping[str, Any]], split: str) -> str:
    """Interpret a loss's score in a sentence: the score over all sizes, corrected, or that of its one size.

    Args:
        loss: Name of the loss.
        records: `dcs_records` that contain the loss.
        split: The split that the networks were tested on.
    """
    own = [record for record in records if record["loss"] == loss]
    score = next((record for record in own if record["corrected"]), own[0])
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
