"""Databases that several processes use: SQLite files that may be locked or not created yet, and database servers.

docs/design/resume.md, "Databases".
"""

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from orchestrator.errors import ClusterError, UserError

__all__ = [
    "PATIENCE_S",
    "check_apart",
    "creating",
    "is_locked",
    "is_same_database",
    "move_artifacts",
    "sqlite_file",
    "tables_of",
    "wait_while_locked",
]

PATIENCE_S = 120.0
"""Seconds for which a locked database is waited for: a backup of one, or another sweep, holds it for less."""
PAUSE_S = 0.5
"""Seconds between two attempts, beside those that SQLite itself waits."""
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def is_locked(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, means that another connection holds an SQLite database."""
    while error is not None:
        for candidate in (error, getattr(error, "orig", None)):
            code = getattr(candidate, "sqlite_errorcode", None)
            if isinstance(candidate, sqlite3.OperationalError) and code is not None:
                return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        error = error.__cause__ or error.__context__
    return False


class _Waiting:
    """The calls that wait for locked databases, of all threads: the first says so, and the last that it is free."""

    def __init__(self) -> None:
        self._calls = Counter[str]()
        self._lock = threading.Lock()

    def begin(self, database: str) -> None:
        with self._lock:
            self._calls[database] += 1
            if self._calls[database] == 1:
                _log.warning("%s is locked by another process; waiting for up to %.0f s", database, PATIENCE_S)

    def end(self, database: str, *, free: bool) -> None:
        with self._lock:
            self._calls[database] -= 1
            if not self._calls[database] and free:
                _log.warning("%s is free again", database)


_waiting = _Waiting()


def wait_while_locked(call: Callable[[], Result], database: str) -> Result:
    """Return a call's result; while the database is locked, say so once and call again.

    Args:
        call: A call that can be repeated; it raises the errors of `is_locked`.
        database: What is locked, for messages.

    Raises:
        ClusterError: The database was locked for `PATIENCE_S`.
    """
    began, waits, free = time.monotonic(), False, False
    try:
        while True:
            try:
                result = call()
            except Exception as error:
                if not is_locked(error):
                    raise
                if time.monotonic() - began >= PATIENCE_S:
                    raise ClusterError(
                        f"{database} has been locked by another process for {PATIENCE_S:.0f} s; end what holds it"
                    ) from error
                if not waits:
                    waits = True
                    _waiting.begin(database)
                time.sleep(PAUSE_S)
            else:
                free = True
                return result
    finally:
        if waits:
            _waiting.end(database, free=free)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI; None: it is no such URI, or names no file."""
    scheme, slashes, path = uri.partition(":///")
    path = path.partition("?")[0]
    if scheme.partition("+")[0] != "sqlite" or not slashes or path in ("", ":memory:"):
        return None
    return Path(path)


@contextmanager
def creating(uri: str) -> Iterator[None]:
    """Let one process at a time create the tables of an SQLite database; a server's are not locked."""
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    with FileLock(file.with_name(f".{file.name}.lock")):
        yield


def tables_of(uri: str) -> set[str]:
    """Return the names of a database's tables.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: The database does not answer, or is locked.
    """
    from sqlalchemy import create_engine, inspect  # here and below, because --help and --plan load no sqlalchemy

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return set()
    engine = create_engine(uri)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def is_same_database(one: str, other: str) -> bool:
    """Return whether two URIs name one database; URIs of other services are never equal."""
    files = [sqlite_file(uri) for uri in (one, other)]
    if None not in files:
        return len({file.resolve() for file in files if file is not None}) == 1
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        urls = [make_url(uri) for uri in (one, other)]
    except ArgumentError:
        return False
    places = {(url.get_backend_name(), url.host, url.port, url.database) for url in urls}
    return len(places) == 1 and urls[0].database is not None and not urls[0].drivername.startswith("http")


def move_artifacts(database: Path, artifacts: Path) -> None:
    """Make an MLflow database name the present folder of its artifacts; it holds absolute paths.

    The folder moved with its database, or the database was copied with it. Artifacts that the user has put elsewhere
    stay where they are.

    Args:
        database: The SQLite file.
        artifacts: The folder of its artifacts.

    Raises:
        ClusterError: Another process holds the database for too long.
    """
    wait_while_locked(lambda: _move_artifacts(database, artifacts), f"MLflow's database {database}")


def _move_artifacts(database: Path, artifacts: Path) -> None:
    now = artifacts.absolute().as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (before,) in rows:
            if before is None or before == now or not before.startswith("file://"):
                continue
            if before.rpartition("/")[2] != artifacts.name or _is_same_folder(before, artifacts):
                continue
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) IN (?, ?)",
                    (now, len(before) + 1, len(before) + 1, before, f"{before}/"),
                )


def _is_same_folder(uri: str, folder: Path) -> bool:
    """Return whether a file URI names a folder by another path, such as a link."""
    from urllib.parse import unquote, urlsplit

    other = Path(unquote(urlsplit(uri).path))
    return other.exists() and folder.exists() and other.samefile(folder)


def check_apart(tracking_uri: str, study_uri: str) -> None:
    """Refuse one database for MLflow and for the studies: both would keep a table `alembic_version` in it.

    Raises:
        UserError: The URIs name one database.
    """
    if is_same_database(tracking_uri, study_uri):
        raise UserError(
            f"MLflow and the studies need a database each, and both would use {study_uri}; change --tracking-uri or "
            "--study-uri"
        )
