"""Keys whose value is several names in one word, such as `baselines=random,k_center`."""

from itertools import pairwise

__all__ = ["BASELINES", "CORESETS", "DISTILLED", "METHODS", "REGIMES", "are_sizes", "is_list_of", "listed", "sizes"]

CORESETS = (
    "random", "el2n_easy", "el2n_hard", "el2n_best", "grand", "forgetting", "k_center", "herding", "moderate",
    "uncertainty", "dynamic_uncertainty", "cad_prune",
)  # fmt: skip
"""Choices of real images; METHOD §6."""
BASELINES = (*CORESETS, "rded", "ca2d", "sre2l")
"""What a distilled set is compared with: coresets, and what is built on them or beside them."""
DISTILLED = ("dm", "dc", "m_datm")
METHODS = (*BASELINES, *DISTILLED)
"""What a comparison measures side by side."""
REGIMES = ("hard", "soft", "soft_kd")
"""Where a set's labels come from when networks are trained on it; METHOD §6."""


def listed(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that a word stands for, in the order in which they are known: `all`, `none`, or with commas."""
    chosen = {"all": set(known), "none": set()}.get(text, set(text.split(",")))
    return tuple(name for name in known if name in chosen)


def is_list_of(text: str, known: tuple[str, ...]) -> bool:
    """Say whether a word is `all`, `none`, or different known names joined by commas."""
    names = text.split(",")
    return text in ("all", "none") or (set(names) <= set(known) and len(set(names)) == len(names))


def sizes(text: str) -> tuple[int, ...]:
    """Return the images per class that a word such as `1,5,10` stands for; `none`: none."""
    return () if text == "none" else tuple(int(part) for part in text.split(","))


def are_sizes(text: str) -> bool:
    """Say whether a word is `none`, or increasing whole numbers of at least 1 joined by commas."""
    if text == "none":
        return True
    if not all(part.isdecimal() for part in text.split(",")):
        return False
    numbers = sizes(text)
    return numbers[0] >= 1 and all(one < other for one, other in pairwise(numbers))
