"""Folders that every node can read: a path on a shared disk, or a URI that each node caches.

A file at a URI (s3://, gs://, file://) is fetched once per node, into a folder of the node's user; all processes of the
node map that copy. The name of a fetched file holds its SHA-256, so a file in the cache has been verified. For a
folder that is a path, the same calls return the path itself and copy nothing.
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
from trainables.storage.atomic import is_disk_full, remove_leftovers, write_atomically

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
"""How much of a file is in memory during a transfer."""
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "CLOUD_STORAGE_EMULATOR_ENDPOINT"}
"""Environment variables that name another service than the scheme's default one, by scheme."""
_OPTIONS = {
    "s3": "?allow_delayed_open=true",  # a small object takes one request instead of three
    "gs": "?retry_limit_seconds=60",  # without credentials it would retry for 15 minutes
}


class StorageError(OSError):
    """A URI cannot be read or written; the message is one line: the URI and the service's error."""


class CorruptObject(InputError):
    """An object's content does not match its checksum; the message is one line."""


@dataclass(frozen=True)
class SharedFolder:
    """A folder that every node can read; picklable, for any node.

    Names are relative to the folder and may hold slashes. Every method that calls a service raises `StorageError` if
    the service does not answer or refuses; for a path the same methods raise OSError.
    """

    root: str
    """Absolute path, or URI."""
    inside: str = ""
    """The folder's path relative to `root`."""

    def __truediv__(self, name: str) -> "SharedFolder":
        return SharedFolder(self.root, f"{self.inside}/{name}".lstrip("/"))

    @property
    def uri(self) -> str | None:
        """The folder's URI; None if the folder is a path."""
        return f"{self.root.rstrip('/')}/{self.inside}".rstrip("/") if "://" in self.root else None

    @property
    def local(self) -> Path:
        """The folder itself if it is a path, else this machine's cache of it, which may not exist yet."""
        return (Path(self.root) if self.uri is None else cache_of(self.root)) / self.inside

    def place(self, name: str) -> str:
        """Return a file's path or URI, for messages."""
        return str(self.local / name) if self.uri is None else f"{self.uri}/{name}"

    def fetch(self, name: str, sha256: str | None = None) -> Path:
        """Return the path of a file on this machine; one process of a node fetches it from a URI, if it is not cached.

        Args:
            name: The file's name.
            sha256: Its checksum; None: unknown, so the file is fetched whatever the cache holds.

        Raises:
            CorruptObject: The object has another checksum, also when it is fetched a second time.
            FileNotFoundError: The object does not exist. For a path, opening the file raises it instead.
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
            remove_leftovers(path)  # of processes killed during a fetch; the lock keeps other processes out
            for _ in range(2):
                aside = path.with_name(f"{path.name}.fetched")
                actual = self.download(name, aside)
                if sha256 is None or actual == sha256:
                    return aside.replace(self.local / addressed(name, actual))
                aside.unlink()
        raise CorruptObject(f"{self.place(name)} is corrupt: its SHA-256 is not {sha256}")

    def draft(self, name: str) -> Path:
        """Return the path to write a file to before it is published: its final path, or for a URI a temporary one."""
        local = self.local / name
        local.parent.mkdir(parents=True, exist_ok=True)
        return local if self.uri is None else local.with_name(f".{local.name}.{uuid.uuid4().hex}.draft")

    def publish(self, name: str, draft: Path, sha256: str) -> Path:
        """Upload a draft to the URI, replacing the object, and move the draft to the path that `fetch` returns.

        Returns:
            That path; for a folder that is a path, the draft itself.
        """
        if self.uri is None:
            return draft
        try:
            self.upload(name, draft)
            return draft.replace(self.local / addressed(name, sha256))
        finally:
            draft.unlink(missing_ok=True)

    def upload(self, name: str, path: Path) -> None:
        """Copy a file to the URI, replacing the object; a reader sees the old or the complete new one."""

        def copy(stream: Any) -> None:
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream, CHUNK_BYTES)

        self._put(name, copy)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, replacing an old one; a reader sees the old or the complete new one."""
        path = self.local / name
        if self.uri is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda aside: aside.write_bytes(content))
        else:
            self._put(name, lambda stream: stream.write(content))

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if the file does not exist."""
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
        """Open a file for random access, as an Arrow file.

        Raises:
            FileNotFoundError: The file does not exist.
        """
        import pyarrow.fs

        if self.uri is None:
            return pyarrow.memory_map(str(self.local / name))
        with self._one_line_errors(name):
            filesystem, path = _at(f"{self.uri}/{name}")
            if filesystem.get_file_info(path).type != pyarrow.fs.FileType.File:
                raise FileNotFoundError(f"{self.place(name)} does not exist")
            return filesystem.open_input_file(path)

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of the files directly in the folder, by name, without hidden files."""
        if self.uri is None:
            paths = self.local.iterdir() if self.local.exists() else ()
            sizes = {path.name: path.stat().st_size for path in paths if path.is_file()}
        else:
            sizes = {info.base_name: info.size for info in self._list() if info.is_file}
        return {name: size for name, size in sizes.items() if not name.startswith(".")}

    def folders(self) -> list[str]:
        """Return the sorted names of the folders directly in the folder; at a URI this lists all objects below it."""
        if self.uri is None:
            return sorted(path.name for path in self.local.iterdir() if path.is_dir()) if self.local.exists() else []
        # From the objects' paths: gs:// has no directories.
        start = len(_at(self.uri)[1]) + 1
        parts = [info.path[start:].partition("/") for info in self._list(recursive=True) if info.is_file]
        return sorted({first for first, slash, _ in parts if slash})

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        if self.uri is None:
            (self.local / name).unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError), self._one_line_errors(name):
            filesystem, path = _at(f"{self.uri}/{name}")
            filesystem.delete_file(path)

    def _list(self, *, recursive: bool = False) -> list[Any]:
        """Return the FileInfo of the objects in the folder at a URI."""
        import pyarrow.fs

        with self._one_line_errors(""):
            filesystem, path = _at(f"{self.uri}")
            infos: list[Any] = filesystem.get_file_info(
                pyarrow.fs.FileSelector(path, allow_not_found=True, recursive=recursive)
            )
        return infos

    def download(self, name: str, path: Path) -> str:
        """Copy a file from the URI to a path, and return its SHA-256.

        Raises:
            FileNotFoundError: The object does not exist.
        """
        digest = hashlib.sha256()

        def copy(aside: Path) -> None:
            with self.open(name) as source, aside.open("wb") as file:
                while chunk := source.read(CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)

        with self._one_line_errors(name):
            write_atomically(path, copy)
        return digest.hexdigest()

    def _put(self, name: str, write: Callable[[Any], object]) -> None:
        """Let `write` fill an object; at file:// aside and then renamed, which an object store does by itself.

        Not with pyarrow's copy_files, which does not report that the end of an upload failed.
        """
        with self._one_line_errors(name):
            filesystem, path = _at(f"{self.uri}/{name}")

            def fill(target: Path | str) -> None:
                with filesystem.open_output_stream(str(target)) as stream:
                    write(stream)

            if filesystem.type_name == "local":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(Path(path), fill)
                return
            try:
                # In a thread, which no signal interrupts: a stream closed half-way would leave half an object.
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(fill, path).result()
            except FileNotFoundError as error:  # the bucket does not exist
                raise StorageError(f"{self.place(name)} does not work ({_line(error)})") from error

    @contextlib.contextmanager
    def _one_line_errors(self, name: str) -> Iterator[None]:
        """Turn Arrow's errors into one line with the URI, except for a missing object and a full disk."""
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except OSError as error:
            if is_disk_full(error):
                raise
            raise StorageError(f"{self.place(name)} does not work ({_line(error)})") from error


def shared_folder(root: Path | SharedFolder) -> SharedFolder:
    """Return a path as a `SharedFolder`; a `SharedFolder` is returned unchanged."""
    return root if isinstance(root, SharedFolder) else SharedFolder(str(root))


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def addressed(name: str, sha256: str) -> str:
    """Return a file's name with its checksum inserted once: expert-0000.arrow becomes expert-0000.3f….arrow."""
    if f".{sha256}." in name:
        return name
    folder, slash, own = name.rpartition("/")
    stem, dot, rest = own.partition(".")
    return f"{folder}{slash}{stem}.{sha256}{dot}{rest}"


def cache_of(uri: str) -> Path:
    """Return this machine's cache folder of a URI: in $XDG_CACHE_HOME, or in ~/.cache."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", uri).strip("-")[:60]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mdatm" / f"{slug}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"


@cache
def _filesystem(root: str, emulated: bool, endpoint: str | None) -> tuple[Any, str]:
    """Return pyarrow's filesystem of a scheme and bucket or host, which keeps connections, and its base path."""
    import pyarrow.fs

    scheme, _, host = root.partition("://")
    if emulated:
        host = f"anonymous@{host}"  # otherwise it would ask Google for a token
    filesystem: tuple[Any, str] = pyarrow.fs.FileSystem.from_uri(f"{scheme}://{host}{_OPTIONS.get(scheme, '')}")
    return filesystem


def _at(uri: str) -> tuple[Any, str]:
    """Return the filesystem of a URI, and the URI's path in it."""
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    # pyarrow reads the endpoint by itself; here it is part of the cache key, so each endpoint has its filesystem.
    endpoint = os.environ.get(ENDPOINTS.get(scheme, ""))
    filesystem, base = _filesystem(f"{scheme}://{host or '/'}", scheme == "gs" and bool(endpoint), endpoint)
    return filesystem, f"{base.rstrip('/')}/{unquote(path)}".rstrip("/")


def _line(error: BaseException) -> str:
    """Return an error's message as one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
