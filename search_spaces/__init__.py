"""What a sweep may vary: declarative, validated, free of torch and ray."""

import importlib
import os
import runpy
import traceback
from pathlib import Path

from search_spaces.space import Choice, Fixed, Integer, Real, Space, SpaceError, Value
from search_spaces.vocabulary import nearest

__all__ = ["Choice", "Fixed", "Integer", "Real", "Space", "SpaceError", "Value", "load", "names"]

_REGISTERED = (
    "digits", "digits_range_study", "digits_ablation", "digits_regimes", "cifar10_ranges", "cifar10_regimes",
    "cifar100_ranges", "cifar100_range_study",
    "cifar100_ablation", "ti_ranges", "ti_range_study", "ti_ablation",
)  # fmt: skip


def names() -> list[str]:
    """Return the names of the spaces that come with the project."""
    return list(_REGISTERED)


def load(name_or_path: str | Path) -> Space:
    """Return a space that comes with the project, or one of the user's.

    Args:
        name_or_path: one of `names()`, or the path of a Python file that sets `SPACE = Space(...)`; a string is a path
            where it ends in .py or has a separator.

    Raises:
        SpaceError: if there is no such space, or the file cannot be read, fails or has no space; the message is one
            line with the file and, where there is one, the line in it.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".py") or "/" in text or os.sep in text:
        return _load_file(Path(text))
    if text not in _REGISTERED:
        raise SpaceError(f"unknown space {text}; {nearest(text, _REGISTERED)}, or the path of a .py file")
    space: Space = importlib.import_module(f"search_spaces.{text}").SPACE
    return space


def _load_file(path: Path) -> Space:
    if not path.is_file():
        raise SpaceError(f"{path}: there is no such file; give the path of a Python file that sets SPACE = Space(...)")
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SpaceError(_describe(error, path)) from error
    if "SPACE" not in found:
        raise SpaceError(f"{path}: the file sets no SPACE; add SPACE = Space(...)")
    space = found["SPACE"]
    if not isinstance(space, Space):
        raise SpaceError(f"{path}: SPACE must be a search_spaces.Space, not {type(space).__name__}")
    return space


def _describe(error: BaseException, path: Path) -> str:
    """Return one line: the file, the last line of it that ran, and what went wrong there."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, message = error.lineno, f"SyntaxError: {error.msg}"
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line, message = (lines[-1] if lines else None), " ".join(str(error).split())
        if not isinstance(error, SpaceError):
            message = f"{type(error).__name__}: {message}"
    return f"{path}: {message}" if line is None else f"{path}:{line}: {message}"
