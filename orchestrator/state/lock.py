"""The lock on a sweep's folder: a sweep has one driver at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from orchestrator.errors import UserError
from orchestrator.state.places import SweepPlaces

__all__ = ["exclusive_lock", "is_held"]

PATIENCE_S = 1.0
"""Seconds for which a driver tries to get the lock: `is_held` holds it for a moment."""
_LOCK = ".lock"


def is_held(places: SweepPlaces) -> bool:
    """Return whether a process holds the lock of a sweep's folder on this machine or on a disk that machines share.

    A folder that cannot be written is asked too, and nothing is created.
    """
    try:
        descriptor = os.open(places.folder / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those that ask do not refuse each other
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(places: SweepPlaces) -> Iterator[None]:
    """Reserve a sweep's folder for this process; the operating system releases the lock when the process ends.

    A sweep that ends before its settings are written leaves no folder behind.

    Raises:
        UserError: Another process works on this sweep.
    """
    folder = places.folder
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        raise UserError(
            f"another process works on the sweep {places.name!r} in {folder.parent}; wait for it, stop it, or "
            "choose another --name"
        ) from None
    try:
        yield
    finally:
        if not places.settings_file.exists():
            shutil.rmtree(folder)
            for path in created[1:]:
                if not any(path.iterdir()):
                    path.rmdir()
        lock.release()
