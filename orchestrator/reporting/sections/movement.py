"""What a report says first where the best trial, or most trials, hardly moved their images: why, and what to change."""

from collections.abc import Mapping
from typing import Any

from orchestrator.reporting.templating import render
from orchestrator.results.movement import SKIPPED, STILL, hardly_moved

__all__ = ["movement_text"]


def movement_text(result: Mapping[str, Any]) -> str:
    """Return in Markdown whether images hardly moved; "" where the best trial and most others moved theirs.

    Args:
        result: The content of result.json; one of an earlier version does not know.
    """
    best, counts = result["best"], result.get("movement")
    if counts is None:
        return ""
    of_best = best["movement"] if hardly_moved(best["movement"]) else None
    return render(
        "sections/movement.md.j2",
        best=of_best,
        most=2 * counts["hardly_moved"] > counts["trials"],
        still=counts["hardly_moved"],
        trials=counts["trials"],
        skipped=f"{SKIPPED:.0%}",
        distance=STILL,
        remedy=_remedy(best["config"], of_best),
    )


def _remedy(settings: Mapping[str, Any], best: Mapping[str, float] | None) -> str:
    """Return what to change: what lets updates be accepted, or what makes them larger."""
    if best is not None and best["skip_rate"] <= SKIPPED:
        return "Its updates were accepted and small: raise `lr_pixel` or `iterations`."
    limit = (
        f"An update is skipped where its matching loss is above `max_matching_loss` ({settings['max_matching_loss']:g})"
    )
    if settings.get("alpha_init") == "auto":
        return f"{limit} or not finite: raise it, or lower `lr_pixel` and `lr_alpha`, which throw images or α off."
    return f"{limit} or not finite, as where N · α goes too far: set `alpha_init=auto`, or raise `max_matching_loss`."
