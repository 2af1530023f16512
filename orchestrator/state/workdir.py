"""The workdir: everything that a group's sweeps share, on a disk that all nodes reach or at a URI.

A workdir at a URI has two parts. At the URI are the files that nodes exchange, and a mirror of each sweep's folder
(`mirror`). Every machine has a local folder: on nodes it is the cache of downloaded files; on the driver it is the
working folder as well, because databases need a disk.
"""

import re
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UserError
from trainables.storage.paths import path_of
from trainables.storage.shared_folder import ENDPOINTS, SharedFolder, StorageError, cache_of

__all__ = ["Workdir", "check_place_writable"]

_URI = re.compile(r"(s3|gs)://[^/@?#]+(/[^?#]*)?|file:///[^?#]+")


def check_place_writable(place: str, what: str, option: str) -> None:
    """Refuse a folder or URI that cannot be written; leaves nothing behind.

    Args:
        place: An absolute path, or a URI.
        what: What is there, for messages.
        option: The option that names the place.

    Raises:
        UserError: The place cannot be written.
    """
    if "://" not in place:
        _check_folder(Path(place), what, option)
        return
    name, folder = f".{uuid.uuid4().hex}", SharedFolder(place)
    try:
        folder.write(name, b"written to check that the place is writable; remove it")
        folder.remove(name)
    except (OSError, ValueError) as error:  # ValueError: pyarrow does not know the scheme
        reason = str(error).partition(" does not work ")[2] if isinstance(error, StorageError) else f"({error})"
        scheme = place.partition("://")[0]
        others = "the folder" if scheme == "file" else "the address"
        check = f"bucket, credentials and {ENDPOINTS[scheme]}" if scheme in ENDPOINTS else others
        raise UserError(
            f"{what} {place} cannot be written {reason}; check {check}, or choose another with {option}"
        ) from error


def _check_folder(folder: Path, what: str, option: str) -> None:
    """Refuse a folder that cannot be created or written; leaves nothing behind.

    Raises:
        UserError: The folder cannot be written.
    """
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        # os.access allows root everything, also on a read-only folder; only a write shows it.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{what} {folder} cannot be written ({error.strerror}); choose another with {option}"
        ) from error


@dataclass(frozen=True)
class Workdir:
    """The folder or URI that a group's sweeps share."""

    root: Path
    """The folder; for a workdir at a URI, this machine's local folder."""
    uri: str | None = None

    @classmethod
    def at(cls, text: str) -> "Workdir":
        """Return the workdir at a path or URI.

        Raises:
            UserError: The URI has an unsupported form.
            InputError: The path is empty or has a control character, or `~` names no home.
        """
        if "://" not in text:
            root = path_of(text, "--workdir")
            if "?" in str(root.absolute()):
                raise UserError(f"a workdir's path has no ?, which ends the path in a database's address, not {text}")
            return cls(root)
        if not _URI.fullmatch(text):
            raise UserError(
                f"a workdir is a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or file:///PATH, without a query or a "
                f"user, not {text}; give an endpoint as AWS_ENDPOINT_URL (s3) or "
                "CLOUD_STORAGE_EMULATOR_ENDPOINT (gs), and credentials as the service's own tools take them"
            )
        uri = text.rstrip("/")
        return cls(cache_of(uri), uri)

    def __str__(self) -> str:
        return self.uri or str(self.root)

    def absolute(self) -> "Workdir":
        """Return the same workdir with an absolute path."""
        return Workdir(self.root.absolute(), self.uri)

    def here(self) -> "Workdir":
        """Return the same workdir with this machine's local folder, if it was created on another machine."""
        return self if self.uri is None else Workdir.at(self.uri)

    @property
    def shared(self) -> SharedFolder:
        """The part that every node reaches."""
        return SharedFolder(self.uri or str(self.root.absolute()))

    def check_writable(self) -> None:
        """Refuse a workdir that cannot be written; leaves nothing behind.

        Raises:
            UserError: The workdir cannot be written.
        """
        if self.uri is None:
            _check_folder(self.root, "the workdir", "--workdir")
            return
        check_place_writable(self.uri, "the workdir", "--workdir")
        _check_folder(self.root, f"this machine's local folder of {self.uri},", "XDG_CACHE_HOME")

    @property
    def datasets(self) -> Path:
        """Prepared datasets."""
        return self.root / "datasets"

    @property
    def experts(self) -> SharedFolder:
        """Expert stores."""
        return self.shared / "experts"

    @property
    def scores(self) -> Path:
        """Scoring runs and networks that baselines are made from; every node keeps its own if no disk is shared."""
        return (self.root / "scores").absolute()

    @property
    def mlflow_database(self) -> Path:
        """The embedded MLflow's database."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """The embedded MLflow's artifacts."""
        return self.root / "mlartifacts"

    @property
    def optuna_database(self) -> Path:
        """The studies' database."""
        return self.root / "optuna.db"

    @property
    def mlflow_uri(self) -> str:
        """Tracking URI of the embedded MLflow."""
        return f"sqlite:///{self.mlflow_database.absolute()}"

    def databases(self, sweep: str) -> "Workdir":
        """Return the folder whose databases a sweep writes, as a workdir: on a disk all sweeps share the databases.

        At a URI every sweep has its own, so that its folder is complete, and no sweep waits for another.
        """
        return self if self.uri is None else Workdir(self.sweep(sweep))

    def sweep(self, name: str) -> Path:
        """A sweep's folder."""
        return self.root / "sweeps" / name

    def shared_sweep(self, name: str) -> SharedFolder:
        """The part of a sweep's folder that every node reaches."""
        return self.shared / "sweeps" / name

    def sweeps(self) -> list[str]:
        """Return the names of the workdir's sweeps."""
        names = (self.shared / "sweeps").folders()
        return [name for name in names if "settings.json" in self.shared_sweep(name).sizes()]
