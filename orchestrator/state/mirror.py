"""The mirror of a sweep's folder at the workdir's URI: a sweep resumes from it when its machine and disk are lost.

    sweeps/NAME/mirror.json     the mirror's generation, its writer, and the object's name of every file
    sweeps/NAME/…               the files; a database's name holds its generation

A push uploads what has changed, and mirror.json last. The files that mirror.json lists are complete at any moment: a
database is never replaced, but written under a new name; any other file may be newer than listed. Every push makes a
new generation, so that a driver detects that another driver has pushed.
"""

import json
import logging
import shutil
import sqlite3
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterError, UserError
from orchestrator.state.databases import move_artifacts, wait_while_locked
from orchestrator.state.workdir import Workdir
from trainables.storage.atomic import write_text
from trainables.storage.shared_folder import StorageError, sha256_of
from trainables.storage.writing_pace import WritingPace

__all__ = ["Mirror"]

FORMAT_VERSION = 1
PATIENCE_S = 300.0
"""Seconds for which a push is retried before the sweep ends."""

_MIRROR, _LOCAL_RECORD = "mirror.json", ".mirror.json"
_NOT_MIRRORED = ("checkpoints", "tune")
"""Folders that are at the URI already (checkpoints), or that a resumed sweep does not need (tune)."""
_TRACKING = ("journal", "mlartifacts", "mlflow.db")
"""Files and folders that only MLflow needs."""
_FETCHES = 8
"""Files that a pull downloads at once."""
_log = logging.getLogger(__name__)


class Mirror:
    """Copies a sweep's folder to the workdir's URI and back; does nothing for a workdir on a disk.

    The caller holds the folder's lock.
    """

    def __init__(self, workdir: Workdir, sweep: str, *, patience_s: float = PATIENCE_S) -> None:
        """Read the folder's generation from the disk; the URI is not accessed yet."""
        self._sweep, self._patience_s = sweep, patience_s
        self._folder, self._remote = workdir.sweep(sweep), workdir.shared_sweep(sweep)
        self._writer = uuid.uuid4().hex[:8]
        self._pace = WritingPace()
        self._given_up = False
        path = self._folder / _LOCAL_RECORD
        record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._seen: dict[str, Any] | None = record.get("mirror")
        """The content of mirror.json when this folder last matched it."""
        self._stamps: dict[str, Any] = record.get("stamps", {})
        """The stamps of the files at that time; a file whose stamp differs has changed since."""

    def pull(self) -> None:
        """Replace the folder by the mirror at the URI, unless the folder already has that generation.

        A folder of that generation may hold later work of this machine, and is kept.

        Raises:
            ClusterError: The URI does not answer, or the mirror is incomplete or missing.
            UserError: The mirror has another format version.
        """
        if self._remote.uri is None:
            return
        for attempt in range(1, 4):
            try:
                mirror = self._read()
                if mirror is not None and _generation(mirror) != _generation(self._seen):
                    self._replace(mirror)
                break
            except FileNotFoundError as error:  # another driver pushes, and has removed superseded files
                if attempt == 3:
                    raise ClusterError(f"the sweep {self._sweep!r} is incomplete ({error}); start it anew") from error
            except StorageError as error:
                raise ClusterError(f"{error}; then run the same command again") from error
        if mirror is None and self._seen is not None:
            raise ClusterError(
                f"the sweep {self._sweep!r} was at {self._remote.uri} and is missing there now; restore it, or choose "
                "another --name"
            )

    def push(self, *, everything: bool = True, patience_s: float | None = None) -> None:
        """Upload what has changed to the URI.

        Args:
            everything: Whether to upload also the files that only MLflow needs; if False they are uploaded as often as
                a twentieth of the time allows.
            patience_s: Seconds for which to retry if the URI does not answer; None: those of the constructor.

        Raises:
            ClusterError: Another driver has pushed, or the URI does not answer. From then on nothing is pushed.
        """
        if self._remote.uri is None or self._given_up:
            return
        began, pause_s = time.monotonic(), 1.0
        while True:
            try:
                self._push(everything or self._pace.due())
            except StorageError as error:
                if time.monotonic() - began >= (self._patience_s if patience_s is None else patience_s):
                    self._given_up = True
                    raise ClusterError(f"{error}; make {self._remote.uri} writable") from error
                if pause_s == 1.0:
                    _log.warning("%s; retrying for %.0f s", error, self._patience_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 30.0)
            else:
                return

    def _read(self) -> dict[str, Any] | None:
        """Return the content of mirror.json at the URI; None: the file does not exist."""
        content = self._remote.read(_MIRROR)
        if content is None:
            return None
        mirror: dict[str, Any] = json.loads(content)
        if (version := mirror["version"]) != FORMAT_VERSION:
            raise UserError(
                f"{self._remote.place(_MIRROR)} has format version {version}, this program reads {FORMAT_VERSION}; "
                "start anew under another name"
            )
        return mirror

    def _push(self, everything: bool) -> None:
        if _generation(self._read()) != _generation(self._seen):
            self._given_up = True
            raise ClusterError(
                f"another driver has resumed the sweep {self._sweep!r} at {self._remote.uri}; leave the sweep to that "
                "driver, or stop that driver"
            )
        before: Mapping[str, Any] = self._seen["files"] if self._seen else {}
        stamps = {name: _stamp(self._folder / name) for name in self._names()}
        if not everything:
            tracking = {name for name in {*stamps, *before} if _is_tracking(name)}
            stamps = {name: stamp for name, stamp in stamps.items() if name not in tracking}
            stamps |= {name: self._stamps[name] for name in tracking if name in before}
        changed = [name for name in stamps if name not in before or stamps[name] != self._stamps.get(name)]
        if not changed and before.keys() == stamps.keys():
            return
        number = self._seen["generation"] + 1 if self._seen else 1
        files = {name: before[name] for name in stamps if name in before}
        with self._pace.measured():
            for name in sorted(changed, key=_push_order):
                with suppress(FileNotFoundError):  # a figure that was just sent to MLflow
                    files[name] = self._upload(name, f"{number}-{self._writer}")
            mirror = {
                "version": FORMAT_VERSION,
                "generation": number,
                "writer": self._writer,
                "files": files,
            }
            self._remote.write(_MIRROR, json.dumps(mirror, indent=1).encode())
            self._remember(mirror, {name: stamps[name] for name in files})
            listed = {entry["object"] for entry in files.values()}
            for entry in before.values():
                if entry["object"] not in listed:
                    with suppress(StorageError):  # an object that no mirror.json lists harms nothing
                        self._remote.remove(entry["object"])

    def _upload(self, name: str, tag: str) -> dict[str, Any]:
        """Upload a file to the URI and return its entry in mirror.json."""
        path, object_name = self._folder / name, name
        copy = self._folder / f".{uuid.uuid4().hex}.partial"
        try:
            if _is_database(name):
                object_name, path = f"{name.removesuffix('.db')}.{tag}.db", _copy_database(path, copy)
            entry = {"object": object_name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            self._remote.upload(object_name, path)
        finally:
            copy.unlink(missing_ok=True)
        return entry

    def _replace(self, mirror: Mapping[str, Any]) -> None:
        """Replace the folder's content by a mirror's; an interrupted pull starts again from the beginning."""
        (self._folder / _LOCAL_RECORD).unlink(missing_ok=True)
        self._seen, self._stamps = None, {}
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with ThreadPoolExecutor(_FETCHES) as pool:
            for _ in pool.map(lambda item: self._download(*item), mirror["files"].items()):
                pass
        if "mlflow.db" in mirror["files"]:
            move_artifacts(self._folder / "mlflow.db", self._folder / "mlartifacts")
        self._remember(mirror, {name: _stamp(self._folder / name) for name in mirror["files"]})

    def _download(self, name: str, entry: Mapping[str, Any]) -> None:
        """Download a file of the mirror.

        Raises:
            ClusterError: A database has not the SHA-256 that mirror.json lists.
        """
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is no database may be newer than listed.
        if self._remote.download(entry["object"], path) != entry["sha256"] and _is_database(name):
            raise ClusterError(f"{self._remote.place(entry['object'])} is corrupt: its SHA-256 is not the one listed")

    def _remember(self, mirror: Mapping[str, Any], stamps: Mapping[str, Any]) -> None:
        self._seen, self._stamps = dict(mirror), dict(stamps)
        text = json.dumps({"mirror": self._seen, "stamps": self._stamps})
        write_text(self._folder / _LOCAL_RECORD, text)

    def _names(self) -> list[str]:
        """Return the folder's files that belong in the mirror."""
        names = []
        for path in self._folder.rglob("*"):
            parts = path.relative_to(self._folder).parts
            hidden = any(part.startswith(".") for part in parts) or parts[0] in _NOT_MIRRORED
            if not hidden and not path.name.endswith((".db-wal", ".db-shm", ".db-journal")) and path.is_file():
                names.append("/".join(parts))
        return names


def _generation(mirror: Mapping[str, Any] | None) -> tuple[int, str] | None:
    """Return number and writer, which identify one mirror of a sweep."""
    return None if mirror is None else (mirror["generation"], mirror["writer"])


def _is_database(name: str) -> bool:
    return name.endswith(".db")


def _is_tracking(name: str) -> bool:
    return name.partition("/")[0] in _TRACKING


def _push_order(name: str) -> tuple[int, str]:
    """Return a file's sort key in a push.

    The journal is first and MLflow's database last. An entry that is sent to MLflow in between is then in both files,
    and MLflow drops the second copy; in the other order it could be in neither.
    """
    return {"journal/journal.db": 0, "mlflow.db": 2}.get(name, 1), name


def _stamp(path: Path) -> list[list[int]]:
    """Return modification times, ns, and sizes, bytes, of a file and of its write-ahead log if it is a database."""
    stamps = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            stat = file.stat()
            stamps.append([stat.st_mtime_ns, stat.st_size])
    return stamps


def _copy_database(path: Path, target: Path) -> Path:
    """Copy a database in a consistent state, also while another connection writes it; returns the copy's path.

    Raises:
        ClusterError: Another connection holds the database for too long.
    """

    def refuse_lock(status: int, remaining: int, total: int) -> None:
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):  # Python would wait for ever
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = status
            raise error

    def copied() -> Path:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy, progress=refuse_lock)
        return target

    return wait_while_locked(copied, str(path))
