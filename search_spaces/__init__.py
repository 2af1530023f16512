"""Search spaces: the parameters that a sweep varies and fixes; declarative, validated, free of torch and ray."""

import contextlib
import importlib
import os
import runpy
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.comparison import Comparison
from search_spaces.nearest import nearest
from search_spaces.registry import folder_of_files, register
from search_spaces.space import Choice, Fixed, Integer, Real, Space, SpaceError, Value
from search_spaces.study import Study

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "Choice", "Comparison", "Fixed", "Integer", "Real", "Space", "SpaceError", "Study", "Value", "__version__", "load",
    "names", "register",
]  # fmt: skip

_REGISTERED = (
    "digits", "digits_range_study", "digits_ablation", "digits_regimes", "cifar10_ranges", "cifar10_regimes",
    "cifar100_ranges", "cifar100_range_study",
    "cifar100_ablation", "ti_ranges", "ti_range_study", "ti_ablation",
)  # fmt: skip


def __getattr__(name: str) -> str:
    """Return the version on access only, because workers get the packages without their metadata."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return version("mdatm-sweep")


def __dir__() -> list[str]:
    """Return the names of the package, including the public ones."""
    return sorted({*globals(), *__all__})


def names() -> list[str]:
    """Return the names of the spaces that come with the project."""
    return list(_REGISTERED)


def load(name_or_path: str | Path) -> Space:
    """Return a space that comes with the project, or one of the user's.

    Args:
        name_or_path: one of `names()`, or the path of a Python file that sets `SPACE` to a Space, Study or
            Comparison; a string is a path where it ends in .py or has a separator.

    Raises:
        SpaceError: if there is no such space, or the file cannot be read, fails or has no space; the message is one
            line with the file and, if known, the line number.
    """
    text = os.fspath(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".py") or "/" in text or os.sep in text:
        with contextlib.suppress(RuntimeError):  # ~ names no home
            text = str(Path(text).expanduser())  # a shell leaves it in --space=~/mine.py
        return _load_file(Path(text))
    if text not in _REGISTERED:
        raise SpaceError(f"unknown space {text}; {nearest(text, _REGISTERED)}, or the path of a .py file")
    space: Space = importlib.import_module(f"search_spaces.registered.{text}").SPACE
    return space


def _load_file(path: Path) -> Space:
    if not path.is_file():
        raise SpaceError(f"{path}: there is no such file; give the path of a Python file that sets SPACE = Space(...)")
    try:
        with folder_of_files(path.parent):
            variables = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SpaceError(_describe(error, path)) from error
    if "SPACE" not in variables:
        raise SpaceError(f"{path}: the file sets no SPACE; add SPACE = Space(...)")
    space = variables["SPACE"]
    if not isinstance(space, Space):
        raise SpaceError(f"{path}: SPACE must be a search_spaces.Space, not {type(space).__name__}")
    return space


def _describe(error: BaseException, path: Path) -> str:
    """Return one line: the file, the last line of it that ran, and the error there."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line, message = error.lineno, f"SyntaxError: {error.msg}"
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line, message = (lines[-1] if lines else None), " ".join(str(error).split())
        if not isinstance(error, SpaceError):
            message = f"{type(error).__name__}: {message}"
    return f"{path}: {message}" if line is None else f"{path}:{line}: {message}"
