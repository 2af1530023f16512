"""Suggestion of a known name in messages about an unknown one."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known name, if any is close, and all of them."""
    known = list(known)
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    guess = f"did you mean {lowered[close[0]]}? " if close else ""
    return f"{guess}Known: {', '.join(known)}"
