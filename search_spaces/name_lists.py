"""Values that are lists of names or sizes in one word, such as `baselines=random,k_center`."""

from itertools import pairwise

__all__ = ["REGIMES", "are_sizes", "is_list_of", "listed", "sizes"]

REGIMES = ("hard", "soft", "soft_kd")
"""Sources of a set's labels when networks are trained on it; docs/method.md, "Label regimes"."""


_LONGEST_SIZE = 6
"""Digits of the largest number of images per class."""


def listed(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in a word (`all`, `none`, or names joined by commas), in the order of the known names."""
    chosen = {"all": set(known), "none": set()}.get(text, set(text.split(",")))
    return tuple(name for name in known if name in chosen)


def is_list_of(text: str, known: tuple[str, ...]) -> bool:
    """Return whether a word is `all`, `none`, or different known names joined by commas."""
    names = text.split(",")
    return text in ("all", "none") or (set(names) <= set(known) and len(set(names)) == len(names))


def sizes(text: str) -> tuple[int, ...]:
    """Return the images per class in a word such as `1,5,10`; `none`: none."""
    return () if text == "none" else tuple(int(part) for part in text.split(","))


def are_sizes(text: str) -> bool:
    """Return whether a word is `none`, or increasing whole numbers of 1 to 6 digits joined by commas."""
    if text == "none":
        return True
    if not all(part.isdecimal() and len(part) <= _LONGEST_SIZE for part in text.split(",")):
        return False
    numbers = sizes(text)
    return numbers[0] >= 1 and all(one < other for one, other in pairwise(numbers))
