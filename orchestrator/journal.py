"""A sweep's journal: what a service is to be told, kept on disk until the service has taken it.

What `add` has taken in is there after a SIGKILL or a power cut. `orchestrator.sender` empties it; neither knows which
service it is.
"""

import json
import logging
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterError

__all__ = ["METRICS", "PICTURE", "Backlog", "Entry", "Journal", "RunState"]

LIMIT_BYTES = 256 * 2**20
"""Size of the database at which metrics are dropped: a quarter of a million results."""
PICTURES_LIMIT_BYTES = 2**30
"""Size of all waiting pictures at which pictures are dropped."""

METRICS, PICTURE = "metrics", "picture"
"""The kinds of entries that may be dropped; all others are few."""

_HEAD = 200  # entries that the sender sees at once
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
    """One thing to tell about one run."""

    id: int
    run: str
    kind: str
    payload: Any


@dataclass(frozen=True)
class RunState:
    """What the journal knows of a run; status and iteration as journalled, whether sent or not."""

    run_id: str | None
    """The service's own id, once it has given one."""
    status: str | None
    iteration: int
    """Of its last result; -1 before the first."""


@dataclass(frozen=True)
class Backlog:
    """What the service does not have."""

    waiting: int
    """Entries still to be sent."""
    refused: int
    """Entries that the service will not take; the journal's table `refused` keeps them."""
    dropped: int
    """Results and pictures that the journal had no room for."""


class Journal:
    """The entries of one sweep, and what is remembered of its runs. Safe to use from several threads."""

    def __init__(
        self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, pictures_limit_bytes: int = PICTURES_LIMIT_BYTES
    ) -> None:
        """Open the journal in a folder, which is made if it is not there.

        Raises:
            ClusterError: What is there cannot be read as a journal.
        """
        self.folder = folder
        self.changed = threading.Condition()
        """Held while the database is used; notified when entries come or go."""
        self._limit_bytes, self._pictures_limit_bytes = limit_bytes, pictures_limit_bytes
        self._said: set[str] = set()
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
        """Say whether a folder holds a journal."""
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
        """Take in entries of a run, all or none; they are on disk when this returns.

        Args:
            run: Name of the run.
            parts: Kind and payload of each entry.
            status: The status that they give the run.
            iteration: The iteration whose results they are.
            once: A name under which this is done a single time in the journal's life; later calls do nothing.

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

    def draw(self, run: str, folder: str, name: str, draw: Callable[[Path], object]) -> list[tuple[str, Any]]:
        """Let `draw` write a picture and return the entry about it, or none if too many wait; it is deleted once sent.

        Args:
            run: Name of the run.
            folder: Where the service is to put it.
            name: Its file name there.
            draw: Writes the picture to a path.

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
            draw(path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        place = path.relative_to(self.folder.parent).as_posix()
        return [(PICTURE, {"path": place, "folder": folder, "bytes": path.stat().st_size})]

    def head(self) -> list[Entry]:
        """Return the oldest entry, then the ones after it that are of the same run."""
        query = (
            "SELECT id, run, kind, payload FROM entries "
            "WHERE run = (SELECT run FROM entries ORDER BY id LIMIT 1) ORDER BY id LIMIT ?"
        )
        with self.changed:
            rows = self._database.execute(query, (_HEAD,)).fetchall()
        return [Entry(number, run, kind, json.loads(payload)) for number, run, kind, payload in rows]

    def remove(self, entries: Sequence[Entry]) -> None:
        """Delete entries that were taken, and the pictures they are about."""
        with self.changed:
            with self._transaction():
                self._delete(entries)
            self._delete_pictures(entries)

    def set_aside(self, entry: Entry, reason: str) -> None:
        """Keep an entry that was refused, though not its picture, where it holds up nothing."""
        values = (entry.id, entry.run, entry.kind, json.dumps(entry.payload), reason)
        with self.changed:
            with self._transaction():
                self._database.execute("INSERT INTO refused VALUES (?, ?, ?, ?, ?)", values)
                self._delete([entry])
            self._delete_pictures([entry])

    def path_of(self, entry: Entry) -> Path:
        """Return the file that an entry is about; its payload names it relative to the sweep's folder."""
        place: Path = self.folder.parent / entry.payload["path"]
        return place

    def backlog(self) -> Backlog:
        """Count what the service does not have."""
        with self.changed:
            refused = self._database.execute("SELECT count(*) FROM refused").fetchone()[0]
            return Backlog(self._waiting, refused, self.recall("dropped") or 0)

    def runs(self) -> dict[str, RunState]:
        """Return the known runs by name."""
        with self.changed:
            rows = self._database.execute("SELECT name, run_id, status, iteration FROM runs ORDER BY name").fetchall()
        return {name: RunState(*state) for name, *state in rows}

    def run(self, name: str) -> RunState | None:
        """Return what is known of a run; None if it is not."""
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
        """Return a remembered fact; None if there is none."""
        with self.changed:
            row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Close the database and remove what the pictures left of their folder."""
        with self.changed:
            self._database.close()
        for folder in (self.folder / "pictures").iterdir():
            if not any(folder.iterdir()):
                folder.rmdir()

    def _open(self) -> sqlite3.Connection:
        # One connection under one lock: the driver's writes and the sender's deletions cannot get in each other's way.
        database = sqlite3.connect(self.database, isolation_level=None, check_same_thread=False, timeout=30)
        database.execute("PRAGMA journal_mode = WAL")
        # Forced to the disk at every commit. A killed process would lose nothing without; a power cut would, and what
        # is lost here is never logged again. It costs what the study's database pays for the same result too.
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
                try:  # an interrupt may come after any of these, and finds what the one before has done
                    self._database.execute("BEGIN IMMEDIATE")
                    yield
                    self._database.execute("COMMIT")
                except BaseException as error:
                    if self._database.in_transaction or isinstance(error, sqlite3.Error):  # else it is committed
                        self._waiting, self._picture_bytes = counts
                    if self._database.in_transaction:  # a full disk has ended it already
                        self._database.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise ClusterError(
                    f"the journal {self.database} cannot be written ({error}); free space there, then resume the sweep"
                ) from error
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

    def _drop(self, what: str, limit_bytes: int) -> None:
        self._remember("dropped", (self.recall("dropped") or 0) + 1)
        if what not in self._said:
            self._said.add(what)
            places = {
                "results": "the Optuna study and trials.parquet",
                "pictures": "the trials' checkpoints, the last of each",
            }
            _log.warning(
                "%s has reached its limit of %d MiB for %s; more are not taken in until some are sent, but are in %s",
                self.folder, limit_bytes // 2**20, what, places[what],
            )  # fmt: skip

    def _remove_strays(self) -> None:
        """Delete the picture that was drawn when the process before this one died."""
        rows = self._database.execute("SELECT payload FROM entries WHERE kind = ?", (PICTURE,))
        known = {self.folder.parent / json.loads(payload)["path"] for (payload,) in rows}
        for path in (self.folder / "pictures").glob("*/*"):
            if path not in known:
                path.unlink()
