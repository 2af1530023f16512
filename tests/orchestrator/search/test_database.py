"""Studies in a database server: a real PostgreSQL, and what is refused."""

import optuna
import pytest

from orchestrator.errors import ClusterError, UserError
from orchestrator.search.database import check_study_uri, open_storage
from tests.support.processes import assert_refused, run
from tests.support.servers import free_port, postgresql
from tests.support.sweep_records import rows, tracked
from tests.support.sweeps import Sweep, run_sweep


@pytest.mark.slow
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
            "orchestrator.sweep", "--resume", "postgresql", "--workdir", first.workdir, "--study-uri", "sqlite://"
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
