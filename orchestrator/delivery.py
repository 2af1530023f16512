"""MLflow's side of a sweep's journal: how an entry is given to it. This module alone talks to MLflow.

Everything may be given twice. A metric carries the time at which it was journalled, and MLflow's store drops a row that
it has, and an input of a name and digest that the run has; parameters, tags, statuses and files replace themselves; a
run is looked for before it is made.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

# MLflow would send a request again whose answer it did not wait for: two runs where the server was only slow.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody else is told what a sweep does
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run, in the middle of our own

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from mlflow.utils.validation import MAX_ENTITIES_PER_BATCH, MAX_METRICS_PER_BATCH, MAX_PARAMS_TAGS_PER_BATCH

from orchestrator.journal import METRICS, Entry, Journal
from orchestrator.sender import Refused, Unavailable

__all__ = ["FILE", "INPUT", "PARAMS", "RUN", "STATUS", "TAGS", "MlflowService", "Part", "in_parts"]

RUN, PARAMS, TAGS, STATUS, FILE, INPUT = "run", "params", "tags", "status", "file", "input"
"""Kinds of entries, beside the journal's own METRICS and PICTURE; `MlflowService` says what their payloads hold."""

Part = tuple[str, Any]
"""Kind and payload of an entry."""

_LIMITS = {METRICS: MAX_METRICS_PER_BATCH, PARAMS: MAX_PARAMS_TAGS_PER_BATCH, TAGS: MAX_PARAMS_TAGS_PER_BATCH}
# A proxy answers 404 while there is no server behind it, but not with MLflow's code for an entry's run.
_PASSING = {"ENDPOINT_NOT_FOUND"}


class MlflowService:
    """An MLflow server, or a database that is one. Its methods raise `Unavailable` and `Refused`, nothing else.

    Payloads, by kind: RUN the arguments of `find_or_create_run`; METRICS a list of key, value, milliseconds and step;
    PARAMS and TAGS a mapping; STATUS a status and the milliseconds; FILE and PICTURE a path and a folder or None; INPUT
    the arguments of `mlflow.entities.Dataset`, and a context.
    """

    def __init__(self, uri: str) -> None:
        """Name the server; it is asked nothing yet."""
        self.uri = uri
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It would print the traceback of every locked database; the sender says it, once.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

    @cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def find_or_create_experiment(self, name: str, location: str | None) -> str:
        """Return the id of an experiment; a new one puts its artifacts at that location, None: the server's choice."""
        with _translated():
            experiment = self._client.get_experiment_by_name(name)
            if experiment is not None:
                return str(experiment.experiment_id)
            return str(self._client.create_experiment(name, artifact_location=location))

    def find_or_create_run(
        self, experiment_id: str, name: str, start_time: int, identity: Mapping[str, str], tags: Mapping[str, str]
    ) -> str:
        """Return the id of the run that has certain tags, its identity; a new one has the other tags too."""
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity.items())
        with _translated():
            found = self._client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time"])
            if found:
                return str(found[0].info.run_id)
            run = self._client.create_run(experiment_id, start_time, {**identity, **tags}, name)
            return str(run.info.run_id)

    def check_run(self, run_id: str) -> None:
        """Ask for a run, and raise if it cannot be had."""
        with _translated():
            self._client.get_run(run_id)

    def deliver(self, journal: Journal, entries: Sequence[Entry]) -> int:
        """Give MLflow the first of a run's entries, or as many as fit into one request, and return how many."""
        first = entries[0]
        if first.kind == RUN:
            if self._run_id(journal, first) is None:
                journal.name_run(first.run, self.find_or_create_run(**first.payload))
            return 1
        run_id = self._run_id(journal, first)
        if run_id is None:
            raise Refused("its run could not be made")
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
                    raise Refused(f"{path} is no longer there")
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
    """Cut metrics, parameters or tags into entries that each fit into one request."""
    limit, items = _LIMITS[kind], list(values.items() if isinstance(values, Mapping) else values)
    for first in range(0, len(items), limit):
        part = items[first : first + limit]
        yield kind, part if kind == METRICS else dict(part)


def _one_request(entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the first entries that `log_batch` takes together."""
    counts = dict.fromkeys(_LIMITS, 0)
    for entry in entries:
        if entry.kind not in _LIMITS:
            return
        counts[entry.kind] += len(entry.payload)
        if counts[entry.kind] > _LIMITS[entry.kind] or sum(counts.values()) > MAX_ENTITIES_PER_BATCH:
            return
        yield entry


@contextmanager
def _translated() -> Iterator[None]:
    """Raise whatever MLflow raises as Unavailable or Refused."""
    try:
        yield
    except (Refused, Unavailable):
        raise
    except MlflowException as error:
        # What cannot be reached, and a locked database, come as 500 and 503.
        raise _judged(error, error.get_http_status_code(), error.error_code) from error
    except OSError as error:  # the artifact store: an answer, no connection, no space on its disk
        answer = getattr(error, "response", None)
        raise _judged(error, 503 if answer is None else answer.status_code) from error
    except Exception as error:  # artifact stores have exceptions of their own
        raise Refused(f"{type(error).__name__}: {_line(error)}") from error


def _judged(error: Exception, status: int, code: str = "") -> Refused | Unavailable:
    # 401 and 403 speak of us and not of the entry: somebody will mend it.
    if status < 500 and status not in (401, 403, 408, 429) and code not in _PASSING:
        return Refused(_line(error))
    bottom: BaseException = error  # MLflow wraps "connection refused" four times
    while bottom.__context__ is not None:
        bottom = bottom.__context__
    return Unavailable(_line(bottom))


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
