"""Opens the parent run of a sweep in MLflow, at a server or in the workdir.

This alone sends requests to MLflow itself, so that a wrong address is refused at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterError
from orchestrator.state.databases import move_artifacts
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.entries import now_ms, param_entries
from orchestrator.tracking.journal import Journal
from orchestrator.tracking.mlflow_service import MlflowService
from orchestrator.tracking.sender import Refused, Unavailable
from orchestrator.tracking.sweep_run import PARENT, SweepRun, set_status

__all__ = ["open_sweep_run", "reopen_sweep_run"]


def open_sweep_run(
    tracking_uri: str | None, workdir: Workdir, space: str, sweep: str, params: Mapping[str, Any]
) -> SweepRun:
    """Open the parent run of a sweep in the experiment of its space, at a server or in the workdir.

    A sweep with a journal resumes its run, and the server may be unreachable.

    Raises:
        UserError: The database of MLflow holds Optuna's studies.
        ClusterError: MLflow cannot be reached or refuses, or the journal cannot be used.
    """
    databases, folder = workdir.databases(sweep), _journal_folder(workdir, sweep)
    service = MlflowService(tracking_uri or databases.mlflow_uri)
    journal = Journal(folder) if Journal.exists(folder) else None
    try:
        if tracking_uri is None:
            service.open()
            move_artifacts(databases.mlflow_database, databases.mlflow_artifacts)  # the workdir may have been moved
        if journal is not None and journal.recall("experiment_id") is not None:
            known = journal
            service.patiently(lambda: _check_parent(service, known))
        else:
            service.open()
            # Without a location, a database without a server would put artifacts into the current directory.
            served = service.uri.startswith("http")
            location = None if served else databases.mlflow_artifacts.absolute().as_uri()
            experiment_id = service.patiently(lambda: service.find_or_create_experiment(space, location))
            opened = journal = journal or Journal(folder)  # after the request: a wrong address creates no folder
            service.patiently(lambda: _open_parent(service, opened, experiment_id, space, sweep))
    except (Refused, Unavailable) as error:
        raise ClusterError(f"MLflow at {service.uri} does not work ({error}); check --tracking-uri") from error
    journal.add(PARENT, *param_entries(params), once="params")
    set_status(journal, PARENT, "RUNNING")
    return SweepRun(service, journal)


def reopen_sweep_run(tracking_uri: str | None, workdir: Workdir, sweep: str) -> SweepRun | None:
    """Return the parent run of an ended sweep, to send waiting entries; None if the sweep has no journal.

    No request is sent here, and the run's status does not change.

    Raises:
        ClusterError: The journal cannot be used.
    """
    folder = _journal_folder(workdir, sweep)
    if not Journal.exists(folder):
        return None
    return SweepRun(MlflowService(tracking_uri or workdir.databases(sweep).mlflow_uri), Journal(folder))


def _journal_folder(workdir: Workdir, sweep: str) -> Path:
    return workdir.sweep(sweep) / "journal"


def _check_parent(service: MlflowService, journal: Journal) -> None:
    """Check that the server has the parent run; an unreachable server is trusted if its address has not changed."""
    run_id, before = journal.runs()[PARENT].run_id or "", journal.recall("tracking_uri")
    try:
        service.check_run(run_id)
    except Unavailable:
        if service.uri != before:
            raise
    except Refused as error:
        raise Refused(f"the sweep's run {run_id} was created at {before} and does not exist here: {error}") from error
    else:
        journal.remember("tracking_uri", service.uri)


def _open_parent(service: MlflowService, journal: Journal, experiment_id: str, space: str, sweep: str) -> None:
    """Create the parent run, or find it if a driver died after its creation.

    It is found by the journal's id: two sweeps of one name may share a server.
    """
    run_id = service.find_or_create_run(
        experiment_id,
        sweep,
        now_ms(),
        identity={"mdatm.journal": journal.recall("id")},
        tags={"mdatm.sweep": sweep, "mdatm.space": space},
    )
    journal.name_run(PARENT, run_id)
    journal.remember("tracking_uri", service.uri)
    journal.remember("experiment_id", experiment_id)
