"""The folder of an embedded Ray's sockets and logs: the system limits the length of a socket's path."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UserError

__all__ = ["session_folder"]

LONGEST_SOCKET_BYTES = 107 if os.uname().sysname != "Darwin" else 103
"""The most bytes that the system takes as the path of a socket."""
_BELOW = "/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.1"
"""What Ray puts below its folder, at its longest."""


def session_folder() -> str:
    """Return the folder in which an embedded Ray puts its sockets and logs.

    It is Ray's own choice (RAY_TMPDIR, else TMPDIR, else /tmp), unless that is too long for a socket or cannot be
    written, as the temporary folders of Slurm's jobs may be; then it is one below /tmp, /var/tmp or /dev/shm.

    Raises:
        UserError: No such folder can be written.
    """
    for folder in _candidates():
        if len(os.fsencode(f"{folder}{_BELOW}")) <= LONGEST_SOCKET_BYTES and _is_writable(folder):
            return str(folder)
    most = LONGEST_SOCKET_BYTES - len(_BELOW) - len("/ray")
    raise UserError(
        f"an embedded Ray needs a temporary folder that it can write, with a path of at most {most} bytes, and neither "
        f"RAY_TMPDIR, TMPDIR, /tmp, /var/tmp nor /dev/shm is one; set RAY_TMPDIR to one"
    )


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("RAY_TMPDIR"):
        yield Path(chosen).absolute() / "ray"
    if (usual := os.environ.get("TMPDIR")) and Path(usual).is_dir():
        yield Path(usual).absolute() / "ray"
    yield Path("/tmp/ray")
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        yield Path(folder) / f"ray-{os.getuid()}"  # /tmp/ray may be another user's


def _is_writable(folder: Path) -> bool:
    """Return whether a folder can be written, or created; Ray creates it."""
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
