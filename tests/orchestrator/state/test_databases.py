"""Databases that others hold, or that two sweeps would share."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from orchestrator.errors import ClusterError, UserError
from orchestrator.state import databases
from orchestrator.state.databases import check_apart, is_locked, is_same_database, move_artifacts, wait_while_locked
from orchestrator.state.mirror import _copy_database
from orchestrator.state.workdir import Workdir
from tests.support.builders import sweep_settings


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE numbers (number)")
    return path


@contextmanager
def held(path: Path, lock: str = "EXCLUSIVE") -> Iterator[sqlite3.Connection]:
    """Hold a database as another process does."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute(f"BEGIN {lock}")
        yield holder


def write(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=0)) as connection, connection:
        connection.execute("INSERT INTO numbers VALUES (1)")


def numbers(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM numbers").fetchone()[0]
    return count


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_locked_database_is_waited_for_and_said_once(
    database: Path, lock: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(databases, "PAUSE_S", 0.01)
    with held(database, lock) as holder:
        threading.Timer(0.2, lambda: holder.execute("COMMIT")).start()
        with caplog.at_level(logging.WARNING, "orchestrator"), ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: wait_while_locked(lambda: write(database), "some.db"), range(2)))
    assert numbers(database) == 2
    assert [record.message for record in caplog.records] == [
        "some.db is locked by another process; waiting for up to 120 s", "some.db is free again",
    ]  # fmt: skip


def test_a_reader_holds_it_too(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not read all its rows: a commit waits for it."""
    monkeypatch.setattr(databases, "PAUSE_S", 0.01)
    for _ in range(2):
        write(database)
    with closing(sqlite3.connect(database, check_same_thread=False)) as reader:
        rows = reader.execute("SELECT number FROM numbers")
        rows.fetchone()
        threading.Timer(0.2, rows.close).start()
        wait_while_locked(lambda: write(database), "some.db")
    assert numbers(database) == 3


def test_patience_ends(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "PAUSE_S", 0.01)
    monkeypatch.setattr(databases, "PATIENCE_S", 0.1)
    with held(database), pytest.raises(ClusterError, match=r"some\.db has been locked .*; end what holds it"):
        wait_while_locked(lambda: write(database), "some.db")
    with held(database), pytest.raises(ClusterError, match="locked by another process"):
        _copy_database(database, database.with_name("copy.db"))  # SQLite's backup would wait for ever


def test_other_errors_are_not_waited_for(database: Path) -> None:
    def fail() -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT * FROM absent")

    with pytest.raises(sqlite3.OperationalError, match="no such table") as raised:
        wait_while_locked(fail, "some.db")
    assert not is_locked(raised.value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sqlite:////data/a.db", "sqlite:////data/a.db", True),
        ("sqlite:////data/a.db", "sqlite+pysqlite:////data/x/../a.db?timeout=3", True),
        ("sqlite:////data/a.db", "sqlite:////data/b.db", False),
        ("postgresql://me@host/a", "postgresql+psycopg://you@host/a", True),
        ("postgresql://me@host/a", "postgresql://me@host/b", False),
        ("postgresql://me@host/a", "postgresql://me@other/a", False),
        ("http://host/a", "postgresql://me@host/a", False),
        ("http://host/a", "sqlite:////data/a.db", False),
        ("/data/stores", "sqlite:////data/a.db", False),
    ],
)
def test_addresses_of_one_database(one: str, other: str, same: bool) -> None:
    assert is_same_database(one, other) == is_same_database(other, one) == same
    if same:
        with pytest.raises(UserError, match=r"a database each.*change --tracking-uri or --study-uri"):
            check_apart(one, other)


def test_one_database_for_both_is_refused_before_any_work(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    own = {"mlflow": f"sqlite:///{tmp_path}/mlflow.db", "optuna": f"sqlite:///{tmp_path}/optuna.db"}
    for asked in (
        {"tracking_uri": own["optuna"]},
        {"study_uri": own["mlflow"]},
        {"tracking_uri": "sqlite:////data/a.db", "study_uri": "sqlite:////data/a.db"},
    ):
        with pytest.raises(UserError, match="a database each"):
            sweep_settings(workdir=workdir, **asked)
    sweep_settings(workdir=workdir, tracking_uri=own["mlflow"], study_uri=own["optuna"])


def artifacts_of(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs"
        ).fetchall()
    return [unquote(urlsplit(uri).path) if uri.startswith("file://") else uri for (uri,) in rows]


def test_a_moved_folder_has_its_artifacts_beside_its_database(tmp_path: Path) -> None:
    before, now = tmp_path / "be fore%", tmp_path / "now'"
    (before / "mlartifacts").mkdir(parents=True)
    ours = (before / "mlartifacts").as_uri()
    with closing(sqlite3.connect(before / "mlflow.db")) as connection, connection:
        connection.execute("CREATE TABLE experiments (artifact_location)")
        connection.execute("CREATE TABLE runs (artifact_uri)")
        for location in (ours, "file:///elsewhere/own", "s3://bucket/mlartifacts"):
            connection.execute("INSERT INTO experiments VALUES (?)", (location,))
        for uri in (f"{ours}/1a/artifacts", f"{ours}-other/1b/artifacts", "mlflow-artifacts:/2/2a"):
            connection.execute("INSERT INTO runs VALUES (?)", (uri,))
    unchanged = artifacts_of(before / "mlflow.db")
    move_artifacts(before / "mlflow.db", before / "mlartifacts")
    assert artifacts_of(before / "mlflow.db") == unchanged
    before.rename(now)
    for _ in range(2):
        move_artifacts(now / "mlflow.db", now / "mlartifacts")
        assert artifacts_of(now / "mlflow.db") == [
            f"{now}/mlartifacts", "/elsewhere/own", "s3://bucket/mlartifacts",
            f"{now}/mlartifacts/1a/artifacts", f"{before}/mlartifacts-other/1b/artifacts", "mlflow-artifacts:/2/2a",
        ]  # fmt: skip
    link = tmp_path / "link"
    link.symlink_to(now)
    move_artifacts(link / "mlflow.db", link / "mlartifacts")
    assert artifacts_of(now / "mlflow.db")[0] == f"{now}/mlartifacts", "another path of the same folder is no move"
