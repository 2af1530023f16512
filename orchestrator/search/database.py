"""Where the Optuna studies are: SQLite in the workdir, or a database server such as PostgreSQL (`--study-uri`)."""

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from orchestrator.errors import ClusterError, UserError

__all__ = ["check_study_uri", "open_storage"]


def check_study_uri(uri: str) -> None:
    """Check that a URI names a database and has no password, which settings.json and messages would show.

    Raises:
        UserError: The URI is not a database's, or it has a password.
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


def open_storage(uri: str) -> RDBStorage:
    """Open a database of studies, and create its tables if they are missing.

    Raises:
        UserError: The database's driver is not installed or does not exist.
        ClusterError: The database does not answer or refuses the connection.
    """
    try:
        # The server may have restarted since a connection was last used.
        return RDBStorage(uri, engine_kwargs={"pool_pre_ping": not uri.startswith("sqlite")})
    except (ImportError, NoSuchModuleError) as error:
        raise UserError(
            f"the studies' database {uri} needs a driver ({_line(error)}); PostgreSQL's: uv sync --extra postgresql"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise ClusterError(f"the studies' database {uri} does not work ({_line(error)}); check --study-uri") from error


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200]
