"""MLflow's side of a sweep's journal: how entries are sent to MLflow.

Every entry may be sent twice. A metric has the time at which it was journalled, and MLflow's store drops a row that it
has already, and an input whose name and digest the run has already. Parameters, tags, statuses and files replace
themselves. A run is searched for before it is created.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from mlflow.utils.validation import MAX_ENTITIES_PER_BATCH, MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import ClusterError, UserError
from orchestrator.state.databases import creating, tables_of, wait_while_locked
from orchestrator.tracking.journal import METRICS, Entry, Journal
from orchestrator.tracking.sender import Refused, Unavailable

__all__ = ["FILE", "INPUT", "PARAMS", "RUN", "STATUS", "TAGS", "MlflowService", "Part", "in_parts"]

RUN, PARAMS, TAGS, STATUS, FILE, INPUT = "run", "params", "tags", "status", "file", "input"
"""Kinds of entries, beside the journal's own METRICS and PICTURE; `MlflowService` documents their payloads."""

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
Part = tuple[str, Any]
"""Kind and payload of an entry."""

_LIMITS = {METRICS: MAX_METRICS_PER_BATCH, PARAMS: MAX_PARAMS_TAGS_PER_BATCH, TAGS: MAX_PARAMS_TAGS_PER_BATCH}
# A proxy without a server behind it answers 404 too, but without MLflow's code for a missing run.
_TEMPORARY = {"ENDPOINT_NOT_FOUND"}


class MlflowService:
    """An MLflow server, or a database in its place. Its methods raise `Unavailable` and `Refused`, and where they say
    so other errors.

    Payloads, by kind: RUN the arguments of `find_or_create_run`; METRICS a list of key, value, milliseconds and step;
    PARAMS and TAGS a mapping; STATUS a status and the milliseconds; FILE and PICTURE a path and a folder or None; INPUT
    the arguments of `mlflow.entities.Dataset`, and a context.
    """

    def __init__(self, uri: str) -> None:
        """Set the address of the server; no request is sent yet."""
        self.uri = uri
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # MLflow would print a traceback for every locked database; the sender reports it once.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

    @cached_property
    def _client(self) -> MlflowClient:
        with creating(self.uri):  # the first request to a database creates its tables
            client = MlflowClient(self.uri)
            client.search_experiments(max_results=1)
        return client

    def open(self) -> None:
        """Open the database, and create its tables if they are missing; waits while another process holds it.

        Raises:
            UserError: The database holds Optuna's studies.
            ClusterError: It was locked for too long.
            Unavailable: It does not answer.
            Refused: It refuses.
        """

        def connect() -> None:
            with _translated():
                if _is_database(self.uri):
                    tables = tables_of(self.uri)
                    if "studies" in tables and "experiments" not in tables:
                        raise UserError(
                            f"the database {self.uri} holds Optuna's studies, and MLflow needs a database of its own; "
                            "change --tracking-uri"
                        )
                _ = self._client

        self.patiently(connect)

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Return a call's result; waits while another process holds the database in the server's place.

        Raises:
            ClusterError: It was locked for too long.
        """
        return wait_while_locked(call, f"MLflow's database {self.uri}")

    def find_or_create_experiment(self, name: str, location: str | None) -> str:
        """Return the id of an experiment; a new one has its artifacts at `location`; None: the server's choice.

        A deleted experiment is restored, with its runs: MLflow gives its name to no other, and it can be deleted again.
        """
        with _translated():
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                return str(self._client.create_experiment(name, artifact_location=location))
            experiment_id = str(experiment.experiment_id)
            self._restore(experiment_id)
            return experiment_id

    def _restore(self, experiment_id: str) -> None:
        """Restore an experiment if it is deleted, and say so."""
        experiment = self._client.get_experiment(experiment_id)
        if experiment.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(experiment_id)
            _log.warning("MLflow's experiment %s was deleted; it is restored, with its runs", experiment.name)

    def find_or_create_run(
        self, experiment_id: str, name: str, start_time: int, identity: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        """Return the id of the run with the tags of `identity`; a new run gets `tags` too."""
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
        with _translated():
            runs = self._client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time"])
            if runs:
                return str(runs[0].info.run_id)
            run = self._client.create_run(experiment_id, start_time, {**identity, **tags}, name)
            return str(run.info.run_id)

    def check_run(self, run_id: str) -> None:
        """Request a run from the server, and restore it, or its experiment, if it is deleted.

        Raises:
            Unavailable: The server does not answer.
            Refused: The server does not have the run.
        """
        with _translated():
            self._restore(self._client.get_run(run_id).info.experiment_id)
            run = self._client.get_run(run_id)
            if run.info.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_run(run_id)
                _log.warning("MLflow's run %s was deleted; it is restored", run.info.run_name)

    def deliver(self, journal: Journal, entries: Sequence[Entry]) -> int:
        """Send the first of a run's entries, or as many as fit into one request, and return how many were sent.

        Raises:
            Unavailable: The entries are to wait.
            Refused: MLflow will never accept the first entry, or one of those in the request.
        """
        first = entries[0]
        if first.kind == RUN:
            if self._run_id(journal, first) is None:
                journal.name_run(first.run, self.find_or_create_run(**first.payload))
            return 1
        run_id = self._run_id(journal, first)
        if run_id is None:
            raise Refused("its run could not be created")
        with _translated():
            if first.kind in _LIMITS:
                batch = list(_one_request(entries))
                self._log_batch(run_id, batch)
                return len(batch)
            if first.kind == STATUS:
                self._set_status(run_id, **first.payload)
            elif first.kind == INPUT:
                self._log_input(run_id, **first.payload)
            else:
                path = journal.path_of(first)
                if not path.exists():
                    raise Refused(f"{path} no longer exists")
                self._client.log_artifact(run_id, str(path), first.payload["folder"])
        return 1

    @staticmethod
    def _run_id(journal: Journal, entry: Entry) -> str | None:
        run = journal.run(entry.run)
        return run.run_id if run else None

    def _log_batch(self, run_id: str, batch: Sequence[Entry]) -> None:
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        metrics: list[Metric] = []
        for entry in batch:
            if entry.kind == METRICS:
                metrics += [Metric(*row) for row in entry.payload]
            else:
                (params if entry.kind == PARAMS else tags).update(entry.payload)
        self._client.log_batch(
            run_id,
            metrics=metrics,
            params=[Param(*item) for item in params.items()],
            tags=[RunTag(*item) for item in tags.items()],
        )

    def _set_status(self, run_id: str, status: str, time: int) -> None:
        if status == "RUNNING":
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, end_time=time)

    def _log_input(self, run_id: str, context: str, **dataset: str) -> None:
        tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)]
        self._client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), tags)])


def in_parts(kind: str, values: Sequence[Any] | Mapping[str, str]) -> Iterator[Part]:
    """Split metrics, parameters or tags into entries that fit into one request."""
    limit, items = _LIMITS[kind], list(values.items() if isinstance(values, Mapping) else values)
    for first in range(0, len(items), limit):
        part = items[first : first + limit]
        yield kind, part if kind == METRICS else dict(part)


def _one_request(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the first entries that fit into one `log_batch`."""
    counts = dict.fromkeys(_LIMITS, 0)
    for entry in entries:
        if entry.kind not in _LIMITS:
            return
        counts[entry.kind] += len(entry.payload)
        if counts[entry.kind] > _LIMITS[entry.kind] or sum(counts.values()) > MAX_ENTITIES_PER_BATCH:
            return
        yield entry


def _is_database(uri: str) -> bool:
    """Return whether a tracking URI is that of a database in the place of a server."""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")


@contextmanager
def _translated() -> Iterator[None]:
    """Raise all errors of MLflow as Unavailable or Refused."""
    try:
        yield
    except (Refused, Unavailable, UserError, ClusterError):
        raise
    except SQLAlchemyError as error:  # MLflow translates only those that come after it has opened its database
        raise Unavailable(_line(getattr(error, "orig", None) or error)) from error
    except MlflowException as error:
        # An unreachable server and a locked database have status 500 or 503.
        raise _classified(error, error.get_http_status_code(), error.error_code) from error
    except OSError as error:  # the artifact store: an HTTP error, no connection, or a full disk
        answer = getattr(error, "response", None)
        raise _classified(error, 503 if answer is None else answer.status_code) from error
    except Exception as error:  # artifact stores have exceptions of their own
        raise Refused(f"{type(error).__name__}: {_line(error)}") from error


def _classified(error: Exception, status: int, code: str = "") -> Refused | Unavailable:
    # 401 and 403 concern our credentials, not the entry: an administrator can repair them.
    if status < 500 and status not in (401, 403, 408, 429) and code not in _TEMPORARY:
        return Refused(_line(error))
    bottom: BaseException = error  # MLflow wraps "connection refused" four times
    while bottom.__context__ is not None:
        bottom = bottom.__context__
    return Unavailable(_line(bottom))


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
