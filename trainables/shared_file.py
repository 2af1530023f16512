"""A file that every node reaches, as units of work are given it: a path, or an object that is never replaced."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from trainables.storage import SharedFolder, addressed, sha256_of

__all__ = ["SharedFile", "local_path", "share"]


@dataclass(frozen=True, kw_only=True)
class SharedFile:
    """A file at a URI that is never replaced, its checksum being in its name; plain values that travel to any node."""

    folder: SharedFolder
    name: str
    """Without the checksum."""
    sha256: str
    beside: "SharedFile | None" = None
    """A file that must lie beside it: of the same name, but for what comes after the first dot."""

    def local(self) -> Path:
        """Return where this machine has it; fetched at most once a node, see `SharedFolder.fetch`."""
        path = self.folder.fetch(addressed(self.name, self.sha256), self.sha256)
        if self.beside is not None:
            own, others = (name.partition(".")[2] for name in (self.name, self.beside.name))
            link = path.with_name(f"{path.name.removesuffix(own)}{others}")
            with contextlib.suppress(FileExistsError):
                link.hardlink_to(self.beside.local())  # one file, one copy in memory
        return path


def share(path: Path, folder: SharedFolder, beside: SharedFile | None = None) -> SharedFile:
    """Put a file from this machine's side of a folder at its URI, unless it is there; this machine need not fetch it.

    Raises:
        StorageError: The URI cannot be written.
    """
    shared = SharedFile(folder=folder, name=path.name, sha256=sha256_of(path), beside=beside)
    name = addressed(path.name, shared.sha256)
    with contextlib.suppress(FileExistsError):
        path.with_name(name).hardlink_to(path)
    if name not in folder.sizes():
        folder.upload(name, path)
    return shared


def local_path(file: Path | SharedFile) -> Path:
    """Return where this machine has a file."""
    return file.local() if isinstance(file, SharedFile) else file
