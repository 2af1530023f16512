"""Text in matplotlib's figures that the product did not choose: names of classes, methods and sweeps.

matplotlib reads a pair of dollar signs as mathematics and fails at a formula that it cannot read. It warns for every
character that its fonts lack, and draws a box in its place.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from trainables.data.names import shortened

__all__ = ["figure_names", "figure_text"]

LONGEST = 24
"""Characters of a name in a figure; a longer one would leave no room for the figure."""
_LAST_RESORT = "Last Resort"
"""Unicode's font of boxes for all characters, which matplotlib draws with a warning."""
_MISSING = "□"
"""Stands for a character that no font of this machine has; it is in matplotlib's own font."""


def figure_text(text: str, longest: int | None = None) -> str:
    """Return a text as matplotlib is to draw it: in one line, without mathematics, with characters that fonts have.

    Fonts of this machine are used for characters that matplotlib's own font lacks, such as Chinese; □ stands for
    characters that none has.

    Args:
        text: Any text.
        longest: Characters at which it is shortened; None: it is not.
    """
    line = shortened(text, longest or len(text) + 1)
    drawn = "".join(map(_drawable, line))
    return drawn.replace("$", r"\$")


def figure_names(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Return class names as `figure_text`; one with characters that no font has begins with its label's number."""
    drawn = [figure_text(name, longest) for name in names]
    return [
        f"{label}: {text}" if _MISSING in text and _MISSING not in names[label] else text
        for label, text in enumerate(drawn)
    ]


def _drawable(character: str) -> str:
    """Return a character if a font has it, □ if none has; "" for joiners and marks, which show nothing alone."""
    if _has_glyph(ord(character)):
        return character
    return "" if unicodedata.category(character) in ("Cf", "Mn", "Me") else _MISSING


def _has_glyph(code: int) -> bool:
    """Return whether a font has a character; a font of this machine that has it is added to those that are used."""
    families = mpl.rcParams["font.family"]
    if any(code in _characters(_font_of(family)) for family in families):
        return True
    for family in _other_families():
        if family not in families and code in _characters(_font_of(family)):
            mpl.rcParams["font.family"] = [*families, family]
            return True
    return False


@cache
def _other_families() -> list[str]:
    """Return the families of this machine's regular fonts, in alphabetical order."""
    regular = ("normal", "normal", 400, "normal")
    return sorted(
        {
            entry.name
            for entry in font_manager.fontManager.ttflist
            if (entry.style, entry.variant, entry.weight, entry.stretch) == regular and _LAST_RESORT not in entry.name
        }
    )


@cache
def _font_of(family: str) -> str:
    """Return the file that matplotlib draws a family from."""
    return str(font_manager.findfont(font_manager.FontProperties(family=[family])))


@cache
def _characters(path: str) -> frozenset[int]:
    """Return the characters of a font's file; none of one whose characters have no outlines, such as coloured emoji."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # FreeType does not know the format
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
