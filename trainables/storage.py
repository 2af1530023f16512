"""Folders that every node reaches: a path on a disk that they share, or a URI of which each node keeps a cache.

At a URI (s3://, gs://, file://) a file is fetched once a node, into a folder of the node's user, and mapped from there
by all its processes. The name of what is fetched holds its SHA-256, so that a file which is there has been verified. On
a path the same calls mean the path itself: nothing is copied.
"""

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock

from trainables.errors import InputError
from trainables.files import is_disk_full, remove_leftovers, write_atomically

__all__ = [
    "ENDPOINTS",
    "CorruptObject",
    "SharedFolder",
    "StorageError",
    "addressed",
    "cache_of",
    "sha256_of",
    "shared_folder",
]

CHUNK_BYTES = 4 * 2**20
"""How much of a file is in memory while it travels."""
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "CLOUD_STORAGE_EMULATOR_ENDPOINT"}
"""Where people say which service they mean, if it is not the usual one."""
_OPTIONS = {
    "s3": "?allow_delayed_open=true",  # a small object in one request, not in three
    "gs": "?retry_limit_seconds=60",  # without credentials it would try for a quarter of an hour
}


class StorageError(OSError):
    """What is at a URI cannot be read or written; the message is one line: the URI and what the service said."""


class CorruptObject(InputError):
    """What is at a URI is not what it is said to be; the message is one line."""


@dataclass(frozen=True)
class SharedFolder:
    """A folder that every node reaches; plain values that travel to any of them.

    Names are relative to it and may hold slashes. Every method that asks a service raises `StorageError` where that
    does not answer or refuses; on a path the same raise OSError.
    """

    root: str
    """Absolute path, or URI."""
    inside: str = ""
    """The folder's place in there."""

    def __truediv__(self, name: str) -> "SharedFolder":
        return SharedFolder(self.root, f"{self.inside}/{name}".lstrip("/"))

    @property
    def uri(self) -> str | None:
        """The folder's URI; None: it is a path."""
        return f"{self.root.rstrip('/')}/{self.inside}".rstrip("/") if "://" in self.root else None

    @property
    def local(self) -> Path:
        """The folder itself where it is a path, else this machine's side of it, which may not be there yet."""
        return (Path(self.root) if self.uri is None else cache_of(self.root)) / self.inside

    def place(self, name: str) -> str:
        """Return where a file is, as people write it."""
        return str(self.local / name) if self.uri is None else f"{self.uri}/{name}"

    def fetch(self, name: str, sha256: str | None = None) -> Path:
        """Return where this machine has a file; from a URI it is fetched unless that is done, by one process of a node.

        Args:
            name: The file's name.
            sha256: Its checksum; None: it is not known, so that the file is fetched whatever the cache holds.

        Raises:
            CorruptObject: What is at the URI has another checksum, also when it is fetched a second time.
            FileNotFoundError: There is no such object. On a path that is for whoever opens the file to find out.
        """
        path = self.local / name
        if self.uri is None:
            return path
        verified = None if sha256 is None else self.local / addressed(name, sha256)
        if verified is not None and verified.exists():
            return verified
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if verified is not None and verified.exists():
                return verified
            remove_leftovers(path)  # of processes that were killed as they fetched it: this one is alone
            for _ in range(2):
                aside = path.with_name(f"{path.name}.fetched")
                found = self.download(name, aside)
                if sha256 is None or found == sha256:
                    return aside.replace(self.local / addressed(name, found))
                aside.unlink()
        raise CorruptObject(f"{self.place(name)} is corrupt: its SHA-256 is not {sha256}")

    def draft(self, name: str) -> Path:
        """Return where to write a file before it is published: its own place, or at a URI one aside."""
        local = self.local / name
        local.parent.mkdir(parents=True, exist_ok=True)
        return local if self.uri is None else local.with_name(f".{local.name}.{uuid.uuid4().hex}.draft")

    def publish(self, name: str, draft: Path, sha256: str) -> Path:
        """Put a draft at the URI, replacing what is there, and return where it is kept: where a fetch would put it."""
        if self.uri is None:
            return draft
        try:
            self.upload(name, draft)
            return draft.replace(self.local / addressed(name, sha256))
        finally:
            draft.unlink(missing_ok=True)

    def upload(self, name: str, path: Path) -> None:
        """Put a copy of a file at the URI, replacing what is there; whoever reads sees the old or the whole new one."""

        def pour(stream: Any) -> None:
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream, CHUNK_BYTES)

        self._put(name, pour)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, replacing what is there; whoever reads sees the old or the whole new one."""
        path = self.local / name
        if self.uri is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda aside: aside.write_bytes(content))
        else:
            self._put(name, lambda stream: stream.write(content))

    def read(self, name: str) -> bytes | None:
        """Return what is in a small file; None: there is none."""
        if self.uri is None:
            path = self.local / name
            return path.read_bytes() if path.exists() else None
        try:
            with self.open(name) as file:
                content: bytes = file.read()
        except FileNotFoundError:
            return None
        return content

    def open(self, name: str) -> Any:
        """Return a file as Arrow reads it, at any place in it.

        Raises:
            FileNotFoundError: There is none.
        """
        import pyarrow.fs

        if self.uri is None:
            return pyarrow.memory_map(str(self.local / name))
        with self._explained(name):
            filesystem, there = _at(f"{self.uri}/{name}")
            if filesystem.get_file_info(there).type != pyarrow.fs.FileType.File:
                raise FileNotFoundError(f"{self.place(name)} is not there")
            return filesystem.open_input_file(there)

    def sizes(self) -> dict[str, int]:
        """Return the files right in the folder with their sizes in bytes, without hidden ones."""
        if self.uri is None:
            found = self.local.iterdir() if self.local.exists() else ()
            sizes = {path.name: path.stat().st_size for path in found if path.is_file()}
        else:
            sizes = {each.base_name: each.size for each in self._list() if each.is_file}
        return {name: size for name, size in sizes.items() if not name.startswith(".")}

    def folders(self) -> list[str]:
        """Return the names of the folders right in the folder, in order; at a URI all that is below is listed."""
        if self.uri is None:
            return sorted(path.name for path in self.local.iterdir() if path.is_dir()) if self.local.exists() else []
        # Not by directories: gs:// knows none.
        start = len(_at(self.uri)[1]) + 1
        parts = [each.path[start:].partition("/") for each in self._list(recursive=True) if each.is_file]
        return sorted({first for first, slash, _ in parts if slash})

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.uri is None:
            (self.local / name).unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError), self._explained(name):
            filesystem, there = _at(f"{self.uri}/{name}")
            filesystem.delete_file(there)

    def _list(self, *, recursive: bool = False) -> list[Any]:
        import pyarrow.fs

        with self._explained(""):
            filesystem, there = _at(f"{self.uri}")
            found: list[Any] = filesystem.get_file_info(
                pyarrow.fs.FileSelector(there, allow_not_found=True, recursive=recursive)
            )
        return found

    def download(self, name: str, path: Path) -> str:
        """Copy a file from the URI to a path, and return its checksum.

        Raises:
            FileNotFoundError: There is no such object.
        """
        digest = hashlib.sha256()

        def pour(aside: Path) -> None:
            with self.open(name) as source, aside.open("wb") as file:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)

        with self._explained(name):
            write_atomically(path, pour)
        return digest.hexdigest()

    def _put(self, name: str, pour: Callable[[Any], object]) -> None:
        """Let `pour` fill an object; on a disk, file://, aside and then renamed, as an object store does by itself.

        Not by pyarrow's copy_files, which tells nobody that the end of an upload has failed.
        """
        with self._explained(name):
            filesystem, there = _at(f"{self.uri}/{name}")

            def fill(place: Path | str) -> None:
                with filesystem.open_output_stream(str(place)) as stream:
                    pour(stream)

            if filesystem.type_name == "local":
                Path(there).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(Path(there), fill)
                return
            try:
                # In a thread, which no signal interrupts: a stream that is closed half-way is a half object.
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(fill, there).result()
            except FileNotFoundError as error:  # the bucket
                raise StorageError(f"{self.place(name)} does not work ({_line(error)})") from error

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Raise what Arrow raises as one line with the URI, but for what is not there and for a full disk."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except OSError as error:
            if is_disk_full(error):
                raise
            raise StorageError(f"{self.place(name)} does not work ({_line(error)})") from error


def shared_folder(root: Path | SharedFolder) -> SharedFolder:
    """Return a folder on a disk, or one that may be at a URI, as the latter."""
    return root if isinstance(root, SharedFolder) else SharedFolder(str(root))


def sha256_of(path: Path) -> str:
    """Return a file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def addressed(name: str, sha256: str) -> str:
    """Return a file's name with its checksum in it, once: expert-0000.arrow becomes expert-0000.3f….arrow."""
    if f".{sha256}." in name:
        return name
    folder, slash, own = name.rpartition("/")
    stem, dot, rest = own.partition(".")
    return f"{folder}{slash}{stem}.{sha256}{dot}{rest}"


def cache_of(uri: str) -> Path:
    """Return this machine's folder for what is at a URI: in $XDG_CACHE_HOME, or in ~/.cache."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", uri).strip("-")[:60]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mdatm" / f"{slug}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


@cache
def _filesystem(root: str, emulated: bool, endpoint: str | None) -> tuple[Any, str]:
    """Return pyarrow's filesystem of a scheme and bucket or host, which keeps connections, and the path of that."""
    import pyarrow.fs

    scheme, _, host = root.partition("://")
    if emulated:
        host = f"anonymous@{host}"  # else it would ask Google for a token
    found: tuple[Any, str] = pyarrow.fs.FileSystem.from_uri(f"{scheme}://{host}{_OPTIONS.get(scheme, '')}")
    return found


def _at(uri: str) -> tuple[Any, str]:
    """Return the filesystem of a URI, and its path in there."""
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    # pyarrow reads the endpoint by itself; here it says that another one is another filesystem.
    endpoint = os.environ.get(ENDPOINTS.get(scheme, ""))
    filesystem, base = _filesystem(f"{scheme}://{host or '/'}", scheme == "gs" and bool(endpoint), endpoint)
    return filesystem, f"{base.rstrip('/')}/{unquote(path)}".rstrip("/")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
