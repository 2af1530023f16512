"""A sweep's journal: entries for a service, kept on disk until the service has received them.

Entries that `add` has accepted survive a SIGKILL and a power cut. `sender` empties the journal. Neither depends on the
kind of service.
"""

import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterError
from orchestrator.state.databases import is_locked

__all__ = ["METRICS", "PICTURE", "Backlog", "Entry", "Journal", "RunState"]

LIMIT_BYTES = 256 * 2**20
"""Size of the database at which metrics are dropped: a quarter of a million results."""
PICTURES_LIMIT_BYTES = 2**30
"""Size of all waiting pictures at which pictures are dropped."""

METRICS, PICTURE = "metrics", "picture"
"""The kinds of entries that may be dropped; all others are few."""

_HEAD = 200  # entries that the sender reads at once
_FORMAT_VERSION = 1
_SCHEMA = """
CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT, kind TEXT, payload TEXT, bytes INTEGER);
CREATE INDEX of_run ON entries (run, id);
CREATE TABLE refused (id INTEGER PRIMARY KEY, run TEXT, kind TEXT, payload TEXT, reason TEXT);
CREATE TABLE runs (name TEXT PRIMARY KEY, run_id TEXT, status TEXT, iteration INTEGER NOT NULL DEFAULT -1);
CREATE TABLE facts (name TEXT PRIMARY KEY, value);
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One record for the service about one run."""

    id: int
    run: str
    kind: str
    payload: Any


@dataclass(frozen=True)
class RunState:
    """A run's state in the journal; status and iteration are the journalled ones, whether sent or not."""

    run_id: str | None
    """The service's id of the run; None until the service has made the run."""
    status: str | None
    iteration: int
    """Of its last result; -1 before the first."""


@dataclass(frozen=True)
class Backlog:
    """Numbers of entries that the service does not have."""

    waiting: int
    """Entries still to be sent."""
    refused: int
    """Entries that the service refused; the journal's table `refused` keeps them."""
    dropped: int
    """Results and pictures that the journal had no room for."""


class Journal:
    """The entries of one sweep, and the state of its runs. Safe to use from several threads."""

    def __init__(
        self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, pictures_limit_bytes: int = PICTURES_LIMIT_BYTES
    ) -> None:
        """Open the journal in a folder, which is created if it is missing.

        Raises:
            ClusterError: The folder's database cannot be read as a journal.
        """
        self.folder = folder
        self.changed = threading.Condition()
        """Held while the database is used; notified when entries come or go."""
        self._limit_bytes, self._pictures_limit_bytes = limit_bytes, pictures_limit_bytes
        self._warned: set[str] = set()
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except sqlite3.Error as error:
            raise ClusterError(f"{self.database} cannot be opened as a journal ({error})") from error
        self._waiting, self._picture_bytes = self._database.execute(
            "SELECT count(*), ifnull(sum(bytes), 0) FROM entries"
        ).fetchone()
        self._remove_strays()

    @staticmethod
    def exists(folder: Path) -> bool:
        """Return whether a folder holds a journal."""
        return (folder / "journal.db").exists()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "journal.db"

    @property
    def waiting(self) -> int:
        """Number of entries still to be sent."""
        number: int = self._waiting
        return number

    def add(
        self,
        run: str,
        *parts: tuple[str, Any],
        status: str | None = None,
        iteration: int | None = None,
        once: str | None = None,
    ) -> None:
        """Add entries of a run, all or none; they are on disk when this returns.

        Args:
            run: Name of the run.
            parts: Kind and payload of each entry.
            status: The run's new status.
            iteration: The iteration of these results.
            once: A name under which entries are added a single time in the journal's life; later calls do nothing.

        Raises:
            ClusterError: The disk is full.
        """
        with self._transaction():
            if once is not None:
                if self.recall(f"done {once}") is not None:
                    return
                self._remember(f"done {once}", 1)
            self._database.execute("INSERT OR IGNORE INTO runs (name) VALUES (?)", (run,))
            if status is not None:
                self._database.execute("UPDATE runs SET status = ? WHERE name = ?", (status, run))
            if iteration is not None:
                self._database.execute("UPDATE runs SET iteration = ? WHERE name = ?", (iteration, run))
            for kind, payload in parts:
                if kind == METRICS and self._used_bytes() > self._limit_bytes:
                    self._drop("results", self._limit_bytes)
                else:
                    self._insert(run, kind, payload)

    def forget(self, once: str) -> None:
        """Let entries be added again whose `once` matches this pattern of SQLite's GLOB."""
        with self._transaction():
            self._database.execute("DELETE FROM facts WHERE name GLOB ?", (f"done {once}",))

    def keep_picture(self, run: str, folder: str, name: str, content: bytes) -> list[tuple[str, Any]]:
        """Write a picture and return its entry, or none if too many wait; the file is deleted once sent.

        Args:
            run: Name of the run.
            folder: The picture's folder at the service.
            name: Its file name in that folder.
            content: The file's content.

        Raises:
            ClusterError: The journal cannot be written.
            OSError: The picture cannot be written.
        """
        with self.changed:
            if self._picture_bytes > self._pictures_limit_bytes or self._used_bytes() > self._limit_bytes:
                with self._transaction():
                    self._drop("pictures", self._pictures_limit_bytes)
                return []
        path = self.folder / "pictures" / run / name
        path.parent.mkdir(exist_ok=True)
        try:
            path.write_bytes(content)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        place = path.relative_to(self.folder.parent).as_posix()
        return [(PICTURE, {"path": place, "folder": folder, "bytes": len(content)})]

    def head(self) -> list[Entry]:
        """Return the oldest entry, and the later entries of the same run, 200 at most."""
        query = (
            "SELECT id, run, kind, payload FROM entries "
            "WHERE run = (SELECT run FROM entries ORDER BY id LIMIT 1) ORDER BY id LIMIT ?"
        )
        with self.changed:
            rows = self._database.execute(query, (_HEAD,)).fetchall()
        return [Entry(number, run, kind, json.loads(payload)) for number, run, kind, payload in rows]

    def remove(self, entries: Sequence[Entry]) -> None:
        """Delete entries that the service has received, and their pictures."""
        with self.changed:
            with self._transaction():
                self._delete(entries)
            self._delete_pictures(entries)

    def set_aside(self, entry: Entry, reason: str) -> None:
        """Move a refused entry to the table `refused`, so that it does not block others; its picture is deleted."""
        values = (entry.id, entry.run, entry.kind, json.dumps(entry.payload), reason)
        with self.changed:
            with self._transaction():
                self._database.execute("INSERT INTO refused VALUES (?, ?, ?, ?, ?)", values)
                self._delete([entry])
            self._delete_pictures([entry])

    def path_of(self, entry: Entry) -> Path:
        """Return the file of an entry; its payload has the path relative to the sweep's folder."""
        place: Path = self.folder.parent / entry.payload["path"]
        return place

    def backlog(self) -> Backlog:
        """Count the entries that the service does not have."""
        with self.changed:
            refused = self._database.execute("SELECT count(*) FROM refused").fetchone()[0]
            return Backlog(self._waiting, refused, self.recall("dropped") or 0)

    def runs(self) -> dict[str, RunState]:
        """Return the known runs by name."""
        with self.changed:
            rows = self._database.execute("SELECT name, run_id, status, iteration FROM runs ORDER BY name").fetchall()
        return {name: RunState(*state) for name, *state in rows}

    def run(self, name: str) -> RunState | None:
        """Return the state of a run; None if the journal does not have the run."""
        query = "SELECT run_id, status, iteration FROM runs WHERE name = ?"
        with self.changed:
            row = self._database.execute(query, (name,)).fetchone()
        return RunState(*row) if row else None

    def name_run(self, name: str, run_id: str) -> None:
        """Remember the service's id of a run."""
        query = (
            "INSERT INTO runs (name, run_id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET run_id = excluded.run_id"
        )
        with self._transaction():
            self._database.execute(query, (name, run_id))

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the sweep."""
        with self._transaction():
            self._remember(name, value)

    def recall(self, name: str) -> Any:
        """Return a fact that was remembered; None if it was not."""
        with self.changed:
            row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close the database and remove the empty folders of sent pictures."""
        with self.changed:
            self._database.close()
        for folder in (self.folder / "pictures").iterdir():
            if not any(folder.iterdir()):
                folder.rmdir()

    def _open(self) -> sqlite3.Connection:
        # One connection under one lock: the driver's writes and the sender's deletions cannot collide.
        database = sqlite3.connect(self.database, isolation_level=None, check_same_thread=False, timeout=30)
        database.execute("PRAGMA journal_mode = WAL")
        # Every commit is forced to the disk. A killed process loses nothing without this, but a power cut does, and a
        # lost entry is never logged again. The study's database pays the same cost for the same result.
        database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            made = f"INSERT INTO facts VALUES ('id', '{uuid.uuid4().hex}'); PRAGMA user_version = {_FORMAT_VERSION};"
            database.executescript(f"BEGIN; {_SCHEMA} {made} COMMIT;")
        elif version != _FORMAT_VERSION:
            raise ClusterError(f"{self.database} has format version {version}, this program reads {_FORMAT_VERSION}")
        return database

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the database; commit at the end, or undo everything."""
        with self.changed:
            try:
                counts = self._waiting, self._picture_bytes
                try:  # an interrupt may come after any of these statements
                    self._database.execute("BEGIN IMMEDIATE")
                    yield
                    self._database.execute("COMMIT")
                except BaseException as error:
                    if self._database.in_transaction or isinstance(error, sqlite3.Error):  # else it was committed
                        self._waiting, self._picture_bytes = counts
                    if self._database.in_transaction:  # a full disk has already ended the transaction
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                remedy = "end what holds it" if is_locked(error) else "free space there"
                raise ClusterError(f"the journal {self.database} cannot be written ({error}); {remedy}") from error
            self.changed.notify_all()

    def _insert(self, run: str, kind: str, payload: Any) -> None:
        size = payload["bytes"] if kind == PICTURE else 0
        values = (run, kind, json.dumps(payload, allow_nan=False), size)
        self._database.execute("INSERT INTO entries (run, kind, payload, bytes) VALUES (?, ?, ?, ?)", values)
        self._waiting += 1
        self._picture_bytes += size

    def _delete(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            query = "DELETE FROM entries WHERE id = ? RETURNING bytes"
            for (size,) in self._database.execute(query, (entry.id,)).fetchall():
                self._waiting -= 1
                self._picture_bytes -= size

    def _delete_pictures(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.kind == PICTURE:
                self.path_of(entry).unlink(missing_ok=True)

    def _remember(self, name: str, value: Any) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _drop(self, kind: str, limit_bytes: int) -> None:
        self._remember("dropped", (self.recall("dropped") or 0) + 1)
        if kind not in self._warned:
            self._warned.add(kind)
            places = {
                "results": "the Optuna study and trials.parquet",
                "pictures": "the trials' checkpoints, the last of each",
            }
            _log.warning(
                "%s has reached its limit of %d MiB for %s; new ones are dropped until some are sent, but are in %s",
                self.folder, limit_bytes // 2**20, kind, places[kind],
            )  # fmt: skip

    def _remove_strays(self) -> None:
        """Delete pictures without an entry: the previous process died between the picture and its entry."""
        rows = self._database.execute("SELECT payload FROM entries WHERE kind = ?", (PICTURE,))
        known = {self.folder.parent / json.loads(payload)["path"] for (payload,) in rows}
        for path in (self.folder / "pictures").glob("*/*"):
            if path not in known:
                path.unlink()
