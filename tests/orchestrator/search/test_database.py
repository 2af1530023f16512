"""Studies in a database server: a real PostgreSQL, and what is refused."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import optuna
import pytest

from orchestrator.errors import ClusterError, UserError
from orchestrator.search.database import check_study_uri, claim_study, open_storage
from tests.support.processes import assert_refused, run
from tests.support.servers import free_port, postgresql
from tests.support.sweep_records import rows, tracked
from tests.support.sweeps import Sweep, run_sweep


@pytest.mark.slow
@pytest.mark.rare
def test_postgresql_holds_study_and_runs_of_a_whole_sweep(first: Sweep) -> None:
    with postgresql("studies", "mlflow") as server:
        sweep = run_sweep(
            first.workdir, "postgresql", "--study-uri", f"{server}studies", "--tracking-uri", f"{server}mlflow"
        )
        assert rows(sweep) == rows(first)
        assert tracked(sweep) == tracked(first)
        studies = [
            optuna.load_study(study_name=each.name, storage=uri).trials
            for each, uri in ((sweep, f"{server}studies"), (first, f"sqlite:///{first.workdir / 'optuna.db'}"))
        ]
        for mine, theirs in zip(*studies, strict=True):
            assert (mine.state, mine.params, mine.intermediate_values) == (
                theirs.state, theirs.params, theirs.intermediate_values
            )  # fmt: skip
        other = run(
            "orchestrator.sweep",
            "--resume",
            "postgresql",
            "--workdir",
            first.workdir,
            "--study-uri",
            "sqlite:///other.db",
        )
        assert_refused(other, "leave out --study-uri")


def test_what_is_no_database_is_refused() -> None:
    with pytest.raises(UserError, match="--study-uri is a database's URI"):
        check_study_uri("somewhere")
    with pytest.raises(UserError, match=r"takes no password; put it into ~/\.pgpass") as refused:
        check_study_uri("postgresql://me:secret@host/studies")
    assert "secret" not in str(refused.value) and "postgresql://me@host/studies" in str(refused.value)
    with pytest.raises(UserError, match="needs a driver"):
        open_storage("postgresql+nodriver://me@host/studies")


def test_a_server_that_does_not_answer_is_said_in_one_line() -> None:
    uri = f"postgresql://anyone@127.0.0.1:{free_port()}/studies"
    with pytest.raises(ClusterError, match=r"does not work .*refused.*check --study-uri"):
        open_storage(uri)


def test_several_sweeps_at_once_create_the_tables_once(tmp_path: Path) -> None:
    uri, together = f"sqlite:///{tmp_path / 'new' / 'optuna.db'}", Barrier(3)

    def first(number: int) -> str:
        together.wait()
        return optuna.create_study(study_name=f"study {number}", storage=open_storage(uri)).study_name

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(first, range(3)))) == 3
    assert len(optuna.get_all_study_names(uri)) == 3


def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("CREATE TABLE experiments (name)")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"holds the tables of another program.*change --study-uri"):
        open_storage(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_study_in_memory_is_refused() -> None:
    for uri in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(UserError, match="in memory cannot be resumed"):
            check_study_uri(uri)


def test_a_study_belongs_to_one_sweep(tmp_path: Path) -> None:
    """Also one that an earlier version made, which recorded no owner: it is that of the sweep that was begun."""
    uri = f"sqlite:///{tmp_path / 'shared.db'}"
    claim_study(uri, "mine", "a", begun=False)
    for begun in (False, True):
        claim_study(uri, "mine", "a", begun=begun)
        with pytest.raises(UserError, match=r"a study 'mine' of another sweep.*choose another --name"):
            claim_study(uri, "mine", "b", begun=begun)
    optuna.create_study(study_name="old", storage=uri)
    with pytest.raises(UserError, match="of another sweep"):
        claim_study(uri, "old", "c", begun=False)
    claim_study(uri, "old", "c", begun=True)
    with pytest.raises(UserError, match="of another sweep"):
        claim_study(uri, "old", "d", begun=True)
