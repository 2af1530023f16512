"""Atomic writes: a reader sees either the old file or the complete new one."""

import errno
import glob
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["is_disk_full", "remove_leftovers", "write_atomically", "write_folder", "write_json", "write_text"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a temporary file beside `path`, fsync it and rename it to `path`; a failure leaves no temporary file.

    Args:
        path: The file to create or replace.
        write: Writes the content into the path that it is given.

    Raises:
        OSError: As `write` raised it. If the disk is full, the error names `path`; see `is_disk_full`.
    """
    # Not the process id: threads share it, and so may processes of two nodes that share a disk.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if is_disk_full(error):  # some libraries name no file, others the temporary one, which the user does not know
            raise OSError(error.errno, os.strerror(error.errno or errno.ENOSPC), str(path)) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside `path`, fsync its files and rename it to `path`; a failure leaves nothing behind.

    Args:
        path: The folder to create; an empty one is replaced.
        write: Writes files and folders into the empty folder that it is given.

    Raises:
        OSError: As `write` raised it, or `path` is not an empty folder.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}.partial")
    aside.mkdir(parents=True)
    try:
        write(aside)
        for place in (*aside.rglob("*"), aside):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # missing once it is renamed


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically; a link, a pipe or a device such as /dev/stdout is not replaced."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_text(text, encoding="utf-8")
    else:
        write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with `write_text`, one value per line.

    Raises:
        ValueError: A number is not finite; JSON cannot represent it.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error means that the disk, or the user's quota on it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of killed writers of `path`; no process may be writing `path` now."""
    for aside in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        aside.unlink(missing_ok=True)
