"""The mirror of a sweep's folder at the workdir's URI: where a sweep goes on from whose machine is lost with its disk.

    sweeps/NAME/mirror.json     the mirror's generation, its writer, and what every file is called there
    sweeps/NAME/…               the files; a database under a name of its generation

A push puts there what has changed, and mirror.json last. What that lists is whole at any moment: a database is never
replaced, but written under another name, and the other files are as good when they are newer than listed. Every push
makes a new generation, so that a driver finds out that another has been at it.
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
from orchestrator.workdir import Workdir
from trainables.files import write_text
from trainables.pace import WritingPace
from trainables.storage import StorageError, sha256_of

__all__ = ["Mirror"]

FORMAT_VERSION = 1
PATIENCE_S = 300.0
"""How long a push tries before the sweep is ended."""

_MIRROR, _OWN = "mirror.json", ".mirror.json"
_ELSEWHERE = ("checkpoints", "tune")
"""Folders that are at the URI already, or that nobody needs again."""
_TRACKING = ("journal", "mlartifacts", "mlflow.db")
"""What only MLflow needs."""
_FETCHES = 8
_log = logging.getLogger(__name__)


class Mirror:
    """Keeps a sweep's folder at the workdir's URI; of a workdir on a disk it does nothing. Hold the folder's lock."""

    def __init__(self, workdir: Workdir, sweep: str, *, patience_s: float = PATIENCE_S) -> None:
        """Read which generation the folder is of; the URI is asked nothing yet."""
        self._sweep, self._patience_s = sweep, patience_s
        self._folder, self._there = workdir.sweep(sweep), workdir.shared_sweep(sweep)
        self._writer = uuid.uuid4().hex[:8]
        self._pace = WritingPace()
        self._given_up = False
        record = self._folder / _OWN
        own = json.loads(record.read_text()) if record.exists() else {}
        self._seen: dict[str, Any] | None = own.get("mirror")
        """What mirror.json held when this folder was last as it says."""
        self._stamps: dict[str, Any] = own.get("stamps", {})
        """What told then whether a file is the same as before."""

    def pull(self) -> None:
        """Make the folder what the URI has, unless it is of that generation and perhaps further.

        Raises:
            ClusterError: The URI does not answer, or what is there is not whole.
            UserError: It is of another version.
        """
        if self._there.uri is None:
            return
        for attempt in range(1, 4):
            try:
                there = self._read()
                if there is not None and _generation(there) != _generation(self._seen):
                    self._replace(there)
                break
            except FileNotFoundError as error:  # it is being written, and what was superseded is gone
                if attempt == 3:
                    raise ClusterError(f"the sweep {self._sweep!r} is not whole ({error}); start it anew") from error
            except StorageError as error:
                raise ClusterError(f"{error}; then run the same command again") from error
        if there is None and self._seen is not None:
            raise ClusterError(
                f"the sweep {self._sweep!r} was at {self._there.uri} and is not there any more; put it back, or take "
                "another --name"
            )

    def push(self, *, everything: bool = True, patience_s: float | None = None) -> None:
        """Put at the URI what has changed.

        Args:
            everything: Also what only MLflow needs; else that goes along as often as a twentieth of the time allows.
            patience_s: Seconds to try, where the URI does not answer; None: as at the beginning.

        Raises:
            ClusterError: Another driver has been at it, or the URI does not answer. From then on nothing is pushed.
        """
        if self._there.uri is None or self._given_up:
            return
        began, pause_s = time.monotonic(), 1.0
        while True:
            try:
                self._push(everything or self._pace.due())
            except StorageError as error:
                if time.monotonic() - began >= (self._patience_s if patience_s is None else patience_s):
                    self._given_up = True
                    raise ClusterError(f"{error}; see to it that {self._there.uri} can be written") from error
                if pause_s == 1.0:
                    _log.warning("%s; trying for %.0f s", error, self._patience_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 30.0)
            else:
                return

    def _read(self) -> dict[str, Any] | None:
        """Return what mirror.json at the URI holds; None: there is none."""
        content = self._there.read(_MIRROR)
        if content is None:
            return None
        mirror: dict[str, Any] = json.loads(content)
        if (version := mirror["version"]) != FORMAT_VERSION:
            raise UserError(
                f"{self._there.place(_MIRROR)} has format version {version}, this program reads {FORMAT_VERSION}; "
                "start anew under another name"
            )
        return mirror

    def _push(self, everything: bool) -> None:
        there = self._read()
        if _generation(there) != _generation(self._seen):
            self._given_up = True
            raise ClusterError(
                f"another driver has gone on with the sweep {self._sweep!r} at {self._there.uri}; leave it to that "
                "one, or stop it"
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
            for name in sorted(changed, key=_turn):
                with suppress(FileNotFoundError):  # a picture that MLflow has just taken
                    files[name] = self._put(name, f"{number}-{self._writer}")
            mirror = {
                "version": FORMAT_VERSION,
                "generation": number,
                "writer": self._writer,
                "folder": str(self._folder.absolute()),
                "files": files,
            }
            self._there.write(_MIRROR, json.dumps(mirror, indent=1).encode())
            self._remember(mirror, {name: stamps[name] for name in files})
            kept = {entry["object"] for entry in files.values()}
            for entry in before.values():
                if entry["object"] not in kept:
                    with suppress(StorageError):  # nobody reads it any more
                        self._there.remove(entry["object"])

    def _put(self, name: str, tag: str) -> dict[str, Any]:
        """Put a file at the URI and return what mirror.json says of it."""
        path, called = self._folder / name, name
        aside = self._folder / f".{uuid.uuid4().hex}.partial"
        try:
            if _is_database(name):
                called, path = f"{name.removesuffix('.db')}.{tag}.db", _copy_database(path, aside)
            entry = {"object": called, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            self._there.upload(called, path)
        finally:
            aside.unlink(missing_ok=True)
        return entry

    def _replace(self, there: Mapping[str, Any]) -> None:
        """Make the folder what a mirror has; a pull that is cut off is begun again."""
        (self._folder / _OWN).unlink(missing_ok=True)
        self._seen, self._stamps = None, {}
        for path in self._folder.iterdir() if self._folder.exists() else ():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with ThreadPoolExecutor(_FETCHES) as pool:
            for _ in pool.map(lambda item: self._get(*item), there["files"].items()):
                pass
        if "mlflow.db" in there["files"]:
            _move_artifacts(self._folder / "mlflow.db", there["folder"], self._folder.absolute())
        self._remember(there, {name: _stamp(self._folder / name) for name in there["files"]})

    def _get(self, name: str, entry: Mapping[str, Any]) -> None:
        """Fetch a file of the mirror."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of another file than a database a newer version is as good as the listed one.
        if self._there.download(entry["object"], path) != entry["sha256"] and _is_database(name):
            raise ClusterError(f"{self._there.place(entry['object'])} is corrupt: its SHA-256 is not the one listed")

    def _remember(self, mirror: Mapping[str, Any], stamps: Mapping[str, Any]) -> None:
        self._seen, self._stamps = dict(mirror), dict(stamps)
        text = json.dumps({"mirror": self._seen, "stamps": self._stamps})
        write_text(self._folder / _OWN, text)

    def _names(self) -> list[str]:
        """Return the folder's files that belong into the mirror."""
        names = []
        for path in self._folder.rglob("*"):
            parts = path.relative_to(self._folder).parts
            hidden = any(part.startswith(".") for part in parts) or parts[0] in _ELSEWHERE
            if not hidden and not path.name.endswith((".db-wal", ".db-shm", ".db-journal")) and path.is_file():
                names.append("/".join(parts))
        return names


def _generation(mirror: Mapping[str, Any] | None) -> tuple[int, str] | None:
    """Return what tells a mirror from any other of the same sweep."""
    return None if mirror is None else (mirror["generation"], mirror["writer"])


def _is_database(name: str) -> bool:
    return name.endswith(".db")


def _is_tracking(name: str) -> bool:
    return name.partition("/")[0] in _TRACKING


def _turn(name: str) -> tuple[int, str]:
    """Return when a file's turn is in a push.

    The journal is first and MLflow's database last: what is sent in between is then in both, which MLflow drops, and
    not in neither.
    """
    return {"journal/journal.db": 0, "mlflow.db": 2}.get(name, 1), name


def _stamp(path: Path) -> list[list[int]]:
    """Return what differs once a file, or a database with its write-ahead log, has been written."""
    stamps = []
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            stat = each.stat()
            stamps.append([stat.st_mtime_ns, stat.st_size])
    return stamps


def _copy_database(path: Path, aside: Path) -> Path:
    """Copy a database as it is between two transactions, whoever writes it meanwhile."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(aside)) as copy:
        source.backup(copy)
    return aside


def _move_artifacts(database: Path, before: str, now: Path) -> None:
    """Tell an MLflow database that its artifacts are in another folder: it holds absolute paths."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (Path(before).as_uri(), now.as_uri())
            )
