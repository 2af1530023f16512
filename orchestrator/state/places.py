"""The names and paths of one sweep; those that all sweeps share are in `workdir`."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.state.stage import SEARCH
from orchestrator.state.workdir import Workdir

__all__ = ["SweepPlaces", "check_name"]

LONGEST_NAME_BYTES = 200
"""Most file systems allow 255 bytes for the name of a folder."""


def check_name(name: str) -> None:
    """Refuse a sweep's name that cannot be a folder, an option's value, and one of several that commas join.

    A question mark ends the path in a database's address.

    Raises:
        UserError: The name breaks the rule.
    """
    size = len(name.encode(errors="surrogatepass"))
    if (
        not 0 < size <= LONGEST_NAME_BYTES
        or not name.isprintable()
        or name != name.strip()
        or name.startswith(("-", "."))
        or {"/", ",", "?"} & set(name)
    ):
        shown = repr(name) if size <= LONGEST_NAME_BYTES else f"one of {size} bytes"
        raise UserError(
            f"a sweep's name is one line of 1 to {LONGEST_NAME_BYTES} bytes without /, ? and commas, does not begin "
            f"with - or a dot, and neither begins nor ends with a space; not {shown}; change --name"
        )


@dataclass(frozen=True, kw_only=True)
class SweepPlaces:
    """The places of the files, the study and the checkpoints of a sweep's stage."""

    workdir: Workdir
    name: str
    """The sweep's name."""
    stage: str
    """The stage whose trials these are: see `stage`."""
    study_uri: str | None
    """The database of Optuna's studies; None: SQLite in the workdir."""
    storage_path: str | None
    """Where trials' checkpoints go; None: the sweep's own folder."""

    @property
    def folder(self) -> Path:
        """The sweep's folder on the driver's machine."""
        return self.workdir.sweep(self.name)

    @property
    def settings_file(self) -> Path:
        """The sweep's settings; a sweep without this file has not begun."""
        return self.folder / "settings.json"

    @property
    def result_file(self) -> Path:
        """The sweep's result."""
        return self.folder / "result.json"

    @property
    def shared(self) -> str:
        """The sweep's folder as messages name it: its URI, or its path."""
        return self.workdir.shared_sweep(self.name).uri or str(self.folder)

    @property
    def study_storage(self) -> str:
        """The database of the study, as Optuna takes it."""
        database = self.workdir.databases(self.name).optuna_database
        return self.study_uri or f"sqlite:///{database.absolute()}"

    @property
    def study_name(self) -> str:
        """The study's name in its database; no sweep's name has a slash."""
        return self.name if self.stage == SEARCH else f"{self.name}/{self.stage}"

    @property
    def tune_folder(self) -> str:
        """Tune's folder of experiments: a path or URI; only the driver's node needs it."""
        return self.storage_path or str(self.folder.absolute())

    @property
    def tune_name(self) -> str:
        """The name of this sweep's folder in Tune's folder."""
        name = self.name if self.storage_path else "tune"
        return name if self.stage == SEARCH else f"{name}/{self.stage}"

    @property
    def checkpoints(self) -> str:
        """The folder of the trials' checkpoints: a path or URI that every node reaches."""
        below = "checkpoints" if self.stage == SEARCH else f"checkpoints/{self.stage}"
        if self.storage_path is None:
            return self.workdir.shared_sweep(self.name).place(below)
        root = self.storage_path if "://" in self.storage_path else str(Path(self.storage_path).absolute())
        return f"{root.rstrip('/')}/{self.name}/{below}"
