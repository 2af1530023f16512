"""A file that every node can read, as work units receive it: a path, or an object that is never replaced."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from trainables.storage.shared_folder import SharedFolder, addressed, sha256_of

__all__ = ["SharedFile", "local_path", "share"]


@dataclass(frozen=True, kw_only=True)
class SharedFile:
    """A file at a URI that is never replaced, because its name holds its checksum; picklable, for any node."""

    folder: SharedFolder
    name: str
    """Without the checksum."""
    sha256: str
    beside: "SharedFile | None" = None
    """A file that must be in the same folder, with the same name up to the first dot."""

    def local(self) -> Path:
        """Return the path of this machine's copy, fetched at most once per node; see `SharedFolder.fetch`.

        Raises:
            StorageError: The service does not answer or refuses.
            CorruptObject: The object has another checksum.
            FileNotFoundError: The object does not exist.
        """
        path = self.folder.fetch(addressed(self.name, self.sha256), self.sha256)
        if self.beside is not None:
            own_suffix, beside_suffix = (name.partition(".")[2] for name in (self.name, self.beside.name))
            link = path.with_name(f"{path.name.removesuffix(own_suffix)}{beside_suffix}")
            with contextlib.suppress(FileExistsError):
                link.hardlink_to(self.beside.local())  # one file, one copy in memory
        return path


def share(path: Path, folder: SharedFolder, beside: SharedFile | None = None) -> SharedFile:
    """Upload a file of this machine to a folder's URI, unless it is there already; this machine need not fetch it.

    Args:
        path: The file, in `folder.local`.
        folder: A folder at a URI.
        beside: A file that must be in the same folder; see `SharedFile.beside`.

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
    """Return the path of a file on this machine; see `SharedFile.local`."""
    return file.local() if isinstance(file, SharedFile) else file
