"""Paths and addresses as a person writes them: `~` is the home folder, and a relative path is from this folder.

A shell expands `~` in `--workdir ~/runs`, but not in `--workdir=~/runs`, and not in a call from Python.
"""

import os
import re
from pathlib import Path

from trainables.errors import InputError

__all__ = ["absolute_place", "absolute_uri", "path_of"]

_LONGEST_PART_BYTES = 255
_FILE_URI = re.compile(r"(file:|sqlite(?:\+\w+)?:///)(?!/)([^?]*)(.*)", re.DOTALL)
"""A URI whose path is relative, or begins with `~`: its beginning, path and end."""


def path_of(text: str | os.PathLike[str], what: str) -> Path:
    """Return a path with `~` expanded; a relative path stays relative.

    Args:
        text: The path as it was written.
        what: The path's name in messages, such as the option that takes it.

    Raises:
        InputError: The path is empty or too long, has a control character, or its `~` names no home.
    """
    written = os.fspath(text)
    if not written.strip():
        raise InputError(f"{what} is a path, and this one is empty; name a file or folder")
    if any(ord(character) < 32 or ord(character) == 127 for character in written):
        raise InputError(f"{what} is a path without line breaks or other control characters, not {written!r}")
    if any(len(part.encode(errors="surrogatepass")) > _LONGEST_PART_BYTES for part in written.split("/")):
        raise InputError(f"{what} has a part of more than {_LONGEST_PART_BYTES} bytes, which no file system stores")
    try:
        return Path(written).expanduser()
    except RuntimeError as error:
        home = written.split("/")[0]
        raise InputError(f"{what}: {home} in {written} is nobody's home; write the whole path, or ./{home}") from error


def absolute_place(text: str, what: str) -> str:
    """Return a URI unchanged, and a path absolute and with `~` expanded.

    Raises:
        InputError: As `path_of`.
    """
    return text if "://" in text else str(path_of(text, what).absolute())


def absolute_uri(uri: str, what: str) -> str:
    """Return the address of a service or database; a file's path in it becomes absolute.

    Files are those of `sqlite:///PATH` and `file:PATH`, and a folder that is named without any scheme.

    Raises:
        InputError: As `path_of`.
    """
    if not uri.strip():
        raise InputError(f"{what} is empty; give an address, or leave the option out")
    if match := _FILE_URI.fullmatch(uri):
        scheme, path, end = match.groups()
        if path in ("", ":memory:") or path.startswith("//"):
            return uri
        return f"{scheme}{path_of(path, what).absolute()}{end}"
    is_folder = "://" not in uri and (uri.startswith("~") or "/" in uri or Path(uri).is_dir())
    return absolute_place(uri, what) if is_folder else uri
