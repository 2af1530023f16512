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
from trainables.storage.shared_folder import ENDPOINTS, SharedFolder, StorageError, cache_of

__all__ = ["Workdir"]

_URI = re.compile(r"(s3|gs)://[^/@?#]+(/[^?#]*)?|file:///[^?#]+")


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
        """
        if "://" not in text:
            return cls(Path(text))
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
        if self.uri is not None:
            self._check_uri(self.uri)
        existing = self.root
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        try:
            # os.access allows root everything, also on a read-only folder; only a write shows it.
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            remedy = "choose another with --workdir" if self.uri is None else "choose another with XDG_CACHE_HOME"
            what = "the workdir" if self.uri is None else f"this machine's local folder of {self.uri},"
            raise UserError(f"{what} {self.root} cannot be written ({error.strerror}); {remedy}") from error

    def _check_uri(self, uri: str) -> None:
        """Write a small object and remove it, to check that the URI can be written.

        Raises:
            UserError: The URI cannot be written.
        """
        name = f".{uuid.uuid4().hex}"
        try:
            self.shared.write(name, b"written to check that the workdir is writable; remove it")
            self.shared.remove(name)
        except OSError as error:
            reason = str(error).partition(" does not work ")[2] if isinstance(error, StorageError) else f"({error})"
            endpoint = ENDPOINTS.get(uri.partition("://")[0])
            check = f"bucket, credentials and {endpoint}" if endpoint else "the folder"
            raise UserError(
                f"the workdir {uri} cannot be written {reason}; check {check}, or choose another with --workdir"
            ) from error

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
