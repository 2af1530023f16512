"""The lock on a sweep's folder: a sweep has one driver at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from orchestrator.errors import UserError
from orchestrator.state.places import SweepPlaces

__all__ = ["exclusive_lock"]


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
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
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
