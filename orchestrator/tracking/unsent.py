"""The entries of a sweep's journal that MLflow does not have yet, counted by a reader that changes nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

from orchestrator.errors import ClusterError

__all__ = ["unsent_entries"]


def unsent_entries(folder: Path) -> int | None:
    """Return how many entries wait in the journal of a sweep's folder; None if the folder has no journal.

    A driver may write the journal at the same time.

    Raises:
        ClusterError: The journal cannot be read.
    """
    database = folder / "journal" / "journal.db"
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])
    except sqlite3.Error as error:
        raise ClusterError(f"the journal {database} cannot be read ({error})") from error
