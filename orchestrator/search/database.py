"""Where the Optuna studies are: SQLite in the workdir, or a database server such as PostgreSQL (`--study-uri`)."""

import functools
import time
from collections.abc import Callable
from typing import Any

import optuna
from alembic.util.exc import CommandError
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError

from orchestrator.errors import ClusterError, UserError
from orchestrator.state.databases import PAUSE_S, creating, is_locked, sqlite_file, tables_of, wait_while_locked

__all__ = ["check_study_uri", "claim_study", "open_storage"]

ATTEMPT_S = 5.0
"""Seconds for which SQLite waits for a lock by itself; then the wait is told, and Ctrl-C is answered."""
CREATIONS = 3
"""Attempts to create the tables at a server, where another sweep may create them at the same time."""
_TABLES = {"studies", "alembic_version"}
"""The first and the last of the tables that Optuna creates."""
_OWNER = "mdatm.sweep"
"""The study's attribute with the identity of its sweep: `Progress.identity`."""


def check_study_uri(uri: str) -> None:
    """Check that a URI names a database that stays, and has no password, which settings.json and messages would show.

    Raises:
        UserError: The URI is not a database's, names a database in memory, or has a password.
    """
    try:
        url = make_url(uri)
    except ArgumentError:
        raise UserError(
            f"--study-uri is a database's URI such as postgresql://USER@HOST/DATABASE, not {uri!r}"
        ) from None
    if url.password is not None:
        hidden = url._replace(password=None).render_as_string()
        raise UserError(f"--study-uri takes no password; put it into ~/.pgpass or PGPASSWORD and give {hidden}")
    if url.get_backend_name() == "sqlite" and sqlite_file(uri) is None:
        raise UserError(
            f"--study-uri {uri} names no file, and a study in memory cannot be resumed; give sqlite:///FILE"
        )


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of RDBStorage that waits while the database is locked; each is one transaction, all or nothing.

    Its errors of the database become a ClusterError.
    """

    @functools.wraps(call)
    def waiting(self: RDBStorage, *args: Any, **kwargs: Any) -> Any:
        try:
            return wait_while_locked(lambda: call(self, *args, **kwargs), f"the studies' database {self.url}")
        except (SQLAlchemyError, StorageInternalError) as error:
            raise ClusterError(f"the studies' database {self.url} does not work ({_line(error)})") from error

    return waiting


class _PatientStorage(RDBStorage):
    """Optuna's storage, whose calls wait while another process holds the database."""


for _name in (
    "create_new_study", "delete_study", "set_study_user_attr", "set_study_system_attr", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_directions", "get_study_user_attrs", "get_study_system_attrs",
    "get_all_studies", "_create_new_trial", "set_trial_param", "_set_trial_param", "get_trial_param",
    "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number", "get_trial", "_get_trials", "_get_best_trial_id",
):  # fmt: skip
    setattr(_PatientStorage, _name, _patient(getattr(RDBStorage, _name)))


def open_storage(uri: str) -> RDBStorage:
    """Open a database of studies, and create its tables if they are missing; waits while another process holds it.

    Raises:
        UserError: The database's driver is not installed or does not exist, or the database is another program's.
        ClusterError: The database does not answer, refuses the connection, or was locked for too long.
    """

    def attempt() -> RDBStorage:
        if tables_of(uri) >= _TABLES:  # a reader may not be allowed to write a lock
            return _open(uri)
        with creating(uri):
            return _open(uri)

    try:
        return wait_while_locked(attempt, f"the studies' database {uri}")
    except (ImportError, NoSuchModuleError) as error:
        raise UserError(
            f"the studies' database {uri} needs a driver ({_line(error)}); PostgreSQL's: uv sync --extra postgresql"
        ) from error
    except CommandError as error:
        raise _foreign(uri) from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        raise ClusterError(f"the studies' database {uri} does not work ({_line(error)}); check --study-uri") from error


def _open(uri: str) -> RDBStorage:
    """Open a database once it is unlocked.

    Raises:
        UserError: The database is another program's.
        sqlalchemy.exc.SQLAlchemyError: It does not work, or is locked.
    """
    if sqlite_file(uri) is not None:
        engine_kwargs: dict[str, Any] = {"connect_args": {"timeout": ATTEMPT_S}}
    else:
        engine_kwargs = {"pool_pre_ping": True}  # the server may have restarted since a connection was last used
    for attempt in range(1, CREATIONS + 1):
        tables = tables_of(uri)
        if "alembic_version" in tables and "studies" not in tables:
            raise _foreign(uri)
        try:
            return _PatientStorage(uri, engine_kwargs)
        except (IntegrityError, ProgrammingError, StorageInternalError) as error:
            if attempt == CREATIONS or is_locked(error):
                raise
            time.sleep(PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _foreign(uri: str) -> UserError:
    return UserError(
        f"the database {uri} holds the tables of another program, such as MLflow's, and the studies need a database of "
        "their own; change --study-uri"
    )


def claim_study(uri: str, name: str, owner: str, *, begun: bool) -> None:
    """Create a sweep's study, or check that an existing study of its name is the sweep's own.

    Args:
        uri: The database.
        name: The study's name.
        owner: The sweep's identity.
        begun: Whether the sweep was begun before; its study may then be of a version that recorded no owner.

    Raises:
        UserError: The study is another sweep's.
        ClusterError: The database does not work.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(uri)
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage)
        before = study.user_attrs.get(_OWNER)
        if before != owner and (before is not None or not begun):
            raise UserError(
                f"the studies' database {uri} has a study {name!r} of another sweep, whose trials are not ours; "
                "choose another --name"
            ) from None
    study.set_user_attr(_OWNER, owner)


def _line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())[:200]
