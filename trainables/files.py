"""Writing files so that a reader sees the old one or the whole new one."""

import errno
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["is_disk_full", "remove_leftovers", "write_atomically", "write_json", "write_text"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file aside, force it to disk, and give it its name; nothing is left if it fails.

    Raises:
        OSError: As `write` raised it. Where the disk is full it names `path`; see `is_disk_full`.
    """
    # Not the process id: threads share it, and so may processes of two nodes that share a disk.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if is_disk_full(error):  # some libraries name no file, and nobody knows the one aside
            raise OSError(error.errno, os.strerror(error.errno or errno.ENOSPC), str(path)) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; what is no file of its own, such as /dev/stdout or a pipe, is written to."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_text(text)
    else:
        write_atomically(path, lambda aside: aside.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with `write_text`, a line a value.

    Raises:
        ValueError: A number is not finite, for which JSON has no word.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error means that a disk, or the user's share of it, has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` that were killed have left aside; none may be writing it now."""
    for aside in path.parent.glob(f".{path.name}.*.partial"):
        aside.unlink(missing_ok=True)
