"""The section on the α that alpha_init=auto found for the best trial."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.reporting.templating import render
from orchestrator.results.entries import WINNER

__all__ = ["alpha_section"]


def alpha_section(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return the section in Markdown; "" where the best trial's α was given.

    Args:
        facts: What `measure_diagnostics` returned.
        settings: The best trial's.
    """
    curve: Sequence[tuple[float, float | None]] | None = next(
        (entry.get("alpha_curve") for entry in facts["losses"] if entry["name"] == WINNER), None
    )
    if curve is None:
        return ""
    finite = [(loss, alpha) for alpha, loss in curve if loss is not None]
    lowest, best = min(finite)
    rows = [
        [f"{alpha:.3g}", "diverges" if loss is None else f"{loss:.3g}", "chosen" if alpha == best else ""]
        for alpha, loss in curve
    ]
    return render("sections/starting_alpha.md.j2", N=settings["N"], best=best, lowest=lowest, rows=rows)
