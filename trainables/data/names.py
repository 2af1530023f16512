"""Names of classes, which may be any text: in one line, shortened, and as the names of folders.

Class names come from folders and files of other people. They may have line breaks, control characters, markup, any
script and any length. Every place that shows a name takes it from here. What a medium reads as markup is escaped where
the medium is written.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

__all__ = ["folder_names", "one_line", "shortened", "text_names"]

LONGEST_FOLDER_BYTES = 100
"""Far below the 255 bytes of most file systems: copies may be encrypted or put below other folders."""
_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of all text that follows."""
_NOT_TEXT = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes in a file's name that are not UTF-8; no file in UTF-8 can hold it."""
_NOT_IN_FILES = re.compile(r'[<>:"/\\|?*]')
"""Characters that Windows, or any system, refuses in the name of a file."""
_FIRST = "=+-@. ~"
"""What a name does not begin with: formulas of spreadsheets, options of commands, hidden files."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""
_SPLITS = re.compile(
    r"(?<![^\W_\d])(train|training|test|testing|eval|evaluation|validation|valid|dev|val)(?![^\W_\d])", re.IGNORECASE
)
"""Words by which the `datasets` package takes a folder for a split, and not for a class."""


def one_line(name: str) -> str:
    """Return a name in one line that changes nothing around it.

    Spaces and line breaks become single spaces. Control characters and those that turn the direction of text are left
    out. Bytes that were not UTF-8 become �.
    """
    text = _NOT_TEXT.sub("�", _DIRECTIONS.sub("", name))
    return " ".join("".join(each for each in text if each.isspace() or unicodedata.category(each) != "Cc").split())


def shortened(name: str, longest: int) -> str:
    """Return a name in one line of at most `longest` characters, the last of which is an ellipsis if it was longer."""
    text = one_line(name)
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def text_names(names: Sequence[str]) -> list[str]:
    """Return class names as any file in UTF-8 can hold them, all different: bytes that were not UTF-8 become �."""
    return _distinct([_NOT_TEXT.sub("�", name) for name in names], lambda name: name)


def folder_names(names: Sequence[str]) -> list[str]:
    """Return a folder's name for each class name: the name itself wherever every system and library can take it.

    Otherwise characters are replaced and long names are cut. Names that a system without upper and lower case would not
    tell apart get a number.
    """
    return _distinct([_safe(name) for name in names], lambda name: unicodedata.normalize("NFC", name).casefold())


def _distinct(names: Sequence[str], key: Callable[[str], str]) -> list[str]:
    """Return names, with a number after those whose key an earlier one has."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        candidate, number = name, 2
        while key(candidate) in taken:
            candidate, number = f"{name} ({number})", number + 1
        taken.add(key(candidate))
        distinct.append(candidate)
    return distinct


def _safe(name: str) -> str:
    """Return a name with which a folder can be made on every system, and which no library takes for a split."""
    text = _SPLITS.sub(r"\1~", _NOT_IN_FILES.sub("_", one_line(name)))
    if text and text[0] in _FIRST:
        text = f"_{text[1:]}"
    if _DEVICES.fullmatch(text):
        text = f"_{text}"
    if len(text.encode()) > LONGEST_FOLDER_BYTES:
        text = text.encode()[: LONGEST_FOLDER_BYTES - len("…".encode())].decode(errors="ignore").rstrip() + "…"
    return text.rstrip(". ") or "_"
