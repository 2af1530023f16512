"""What a sweep tells MLflow: an experiment a space, a parent run a sweep, child runs for experts, trials and finals.

Only the opening of a sweep asks MLflow itself, so that a wrong address is refused at once. Everything else goes into
the sweep's journal, from where it is sent: a server that is away neither stops nor delays a sweep.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.delivery import INPUT, RUN, STATUS, TAGS, MlflowService, Part
from orchestrator.errors import ClusterError
from orchestrator.experts import ExpertSummary
from orchestrator.finals import CHALLENGE, Measured
from orchestrator.inputs import Inputs
from orchestrator.journal import Journal, RunState
from orchestrator.mlflow_datasets import real_dataset
from orchestrator.mlflow_entries import (
    expert_figures,
    final_figures,
    metric_entries,
    now_ms,
    param_entries,
)
from orchestrator.mlflow_result import result_entries
from orchestrator.searcher import METRIC
from orchestrator.sender import Refused, Sender, Unavailable
from orchestrator.settings import FINALS, SEARCH, SweepSettings, Workdir
from orchestrator.trials import TrialRecord
from orchestrator.views import compare_page

__all__ = ["FLUSH_S", "LOCAL_SERVER", "RUNNING", "SweepRun", "compare_url", "open_sweep_run", "reopen_sweep_run"]

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `python -m orchestrator.ui` serves the embedded database."""
FLUSH_S = 60.0
"""How long the end of a sweep waits for MLflow."""

_PARENT, _EXPERTS = "sweep", "experts"  # names of runs in the journal; a trial's is the trial's own
_RECIPE = ("expert_", "sam_", "gsam_", "net_", "horizon_", "augmentation", "zca", "classes", "validation_share")
"""How the names of those settings begin that shape an expert."""
RUNNING, _CUT_OFF = "running", "cut off"
_STATUS = {RUNNING: "RUNNING", "finished": "FINISHED", "pruned": "KILLED", _CUT_OFF: "KILLED", "failed": "FAILED"}
"""MLflow's word for what has become of a trial; those of a TrialRecord are tagged too."""
_log = logging.getLogger(__name__)


class SweepRun:
    """The parent run of a sweep."""

    def __init__(self, service: MlflowService, journal: Journal) -> None:
        """Hold an open run and begin to send what is journalled about it; see `open_sweep_run`."""
        self.journal = journal
        self.tracking_uri = service.uri
        self.experiment_id: str = journal.recall("experiment_id")
        self.run_id: str = journal.runs()[_PARENT].run_id or ""
        self._sender = Sender(journal, f"MLflow at {service.uri}", partial(service.deliver, journal))

    def log_dataset(self, inputs: Inputs) -> None:
        """Log the dataset that is distilled as an input of the sweep; once in a sweep."""
        self.journal.add(_PARENT, (INPUT, real_dataset(inputs.dataset, inputs.file)), once="dataset")

    def log_experts(self, experts: ExpertSummary, inputs: Inputs) -> None:
        """Log the experts in a run of their own: recipe, and mean training loss, a step an epoch; once in a sweep."""
        params = {key: value for key, value in inputs.settings.fixed.items() if key.startswith(_RECIPE)}
        params |= {"dataset": inputs.dataset.name, "dataset_digest": inputs.dataset.digest}
        run = self._run(
            _EXPERTS, {"mdatm.stage": _EXPERTS}, {"mdatm.store": inputs.experts_place},
            start_time=now_ms() - int(1000 * experts.seconds),
        )  # fmt: skip
        figures = metric_entries(expert_figures(experts))
        self._add_ended(_EXPERTS, run, {**params, "store": inputs.store.address}, figures, once=_EXPERTS)

    def log_finals(self, measured: Measured, params: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Log what networks reached on the test split, a step a network; once in a sweep.

        It goes into a trial's run, or for any other set into a run of its own; what a label regime gave is beside what
        the finals' own protocol gave, as metrics that begin with the regime's name.

        Args:
            measured: By protocol and set.
            params: Parameters of the runs of other sets than trials', by set.
        """
        for protocol, sets in measured.items():
            prefix = "" if protocol == CHALLENGE else f"{protocol}_"
            for name, networks in sets.items():
                entries = metric_entries(
                    (f"{prefix}{key}", value, step) for key, value, step in final_figures(networks)
                )
                called = name if self.journal.run(name) is not None else f"{FINALS}-{name}"
                once = f"finals {prefix}{name}"
                if self.journal.run(called) is not None:
                    self.journal.add(called, *entries, once=once)
                else:
                    identity = {"mdatm.stage": FINALS, "mdatm.baseline": name}
                    run = self._run(called, identity, {}, start_time=now_ms())
                    self._add_ended(called, run, (params or {}).get(name, {}), entries, once=once)

    def log_result(self, result: Mapping[str, Any], settings: SweepSettings) -> None:
        """Log the result of a sweep or comparison; once in a sweep.

        Args:
            result: What result.json holds.
            settings: The sweep's; the files are in its folder.
        """
        self.journal.add(_PARENT, *result_entries(result, settings, self.run_id), once="result")

    @property
    def system_steps(self) -> int:
        """Number of rows of system metrics so far, those of earlier drivers among them."""
        known = self.journal.run(_PARENT)
        return known.iteration + 1 if known else 0

    def add_system_metrics(self, step: int, figures: Mapping[str, float]) -> None:
        """Log a row of what the machine does."""
        self.add_rung(_PARENT, step, {f"system/{name}": value for name, value in figures.items()})

    def close_trials(self, records: Iterable[TrialRecord]) -> None:
        """Close the runs of trials that have ended, as far as they are not, and tell what the journal does not know.

        A driver may have died just before it closed one. A journal that was lost with its machine lags behind the
        study; of what it lacks the study has settings and accuracies.
        """
        for record in records:
            known = self.open_trial(record.name, {**record.settings, "trial_number": record.number}, record.stage)
            for iteration, accuracy in record.rungs.items():
                if iteration > known.iteration:
                    self.add_rung(record.name, iteration, {METRIC: accuracy})
            reason = record.reason if record.status == "failed" else ""
            self.set_outcome(record.name, record.status, reason)

    def add_rung(self, name: str, iteration: int, figures: Mapping[str, float], *more: Part) -> None:
        """Log what a trial's rung came to under its iteration, and more with it: all of it, or all once more."""
        rows = metric_entries((key, value, iteration) for key, value in figures.items())
        self.journal.add(name, *rows, *more, iteration=iteration)

    def set_outcome(self, name: str, outcome: str, reason: str = "") -> None:
        """Log what has become of a trial, unless that is known: RUNNING, or a TrialRecord's status and reason."""
        known = self.journal.run(name)
        tags = {} if outcome in (RUNNING, _CUT_OFF) else {"mdatm.outcome": outcome}
        if reason or (known is not None and known.status == "failed"):
            tags["mdatm.reason"] = reason
        _set_status(self.journal, name, _STATUS[outcome], outcome, *([(TAGS, tags)] if tags else []))

    def open_trial(self, name: str, config: Mapping[str, Any], stage: str = SEARCH) -> RunState:
        """Make sure of a trial's run, and return what the journal knows of it."""
        known = self.journal.run(name)
        if known is None:
            run = self._run(name, {"mdatm.trial": name}, _trial_tags(stage), start_time=now_ms())
            self.journal.add(name, run, *param_entries(config), status=RUNNING)
            known = self.journal.run(name)
        assert known is not None, "it has just been added"
        return known

    def flush(self, deadline_s: float = FLUSH_S) -> int:
        """Wait for MLflow to take what is journalled, at most so long, and return the number of entries that wait."""
        return self._sender.flush(deadline_s).waiting

    def end(self, status: str, deadline_s: float = FLUSH_S) -> int:
        """Close the run with FINISHED, FAILED or KILLED, and as KILLED the trials that were cut off.

        Returns:
            Number of entries that still wait for MLflow; the next run of the sweep's command sends them.
        """
        for name, run in self.journal.runs().items():
            if name != _PARENT and run.status == RUNNING:
                self.set_outcome(name, _CUT_OFF)
        _set_status(self.journal, _PARENT, status)
        backlog = self._sender.flush(deadline_s)
        self._sender.stop()
        if backlog.refused:
            _log.warning("MLflow refused %d entries; %s keeps them", backlog.refused, self.journal.database)
        if backlog.dropped:
            _log.warning("MLflow lacks %d results and pictures, for which the journal had no room", backlog.dropped)
        return backlog.waiting

    def trial_runs(self) -> dict[str, str]:
        """Return the run ids of the search's trials by trial name, of those that MLflow has taken already."""
        runs = self.journal.runs().items()
        return {name: run.run_id for name, run in runs if run.run_id is not None and name.startswith(f"{SEARCH}-")}

    def _run(self, name: str, identity: Mapping[str, str], tags: Mapping[str, str], start_time: int) -> Part:
        """Return the entry that makes a child run, or finds the one that has these tags as its identity."""
        identity = {"mlflow.parentRunId": self.run_id, **identity}
        run = {"experiment_id": self.experiment_id, "name": name, "start_time": start_time}
        return RUN, {**run, "identity": identity, "tags": dict(tags)}

    def _add_ended(
        self, name: str, run: Part, params: Mapping[str, Any], figures: Iterable[Part], *, once: str
    ) -> None:
        """Log a whole child run, from its beginning to its end; once in a sweep."""
        end = (STATUS, {"status": "FINISHED", "time": now_ms()})
        self.journal.add(name, run, *param_entries(params), *figures, end, status="finished", once=once)


def open_sweep_run(
    tracking_uri: str | None, workdir: Workdir, space: str, sweep: str, params: Mapping[str, Any]
) -> SweepRun:
    """Open the parent run of a sweep in the experiment of its space, at a server or in the workdir.

    A sweep that has a journal goes on in the run that it has, and the server need not be there.

    Raises:
        ClusterError: MLflow cannot be reached or refuses, or the journal cannot be used.
    """
    databases, folder = workdir.databases(sweep), _journal_folder(workdir, sweep)
    service = MlflowService(tracking_uri or databases.mlflow_uri)
    journal = Journal(folder) if Journal.exists(folder) else None
    try:
        if journal is not None and journal.recall("experiment_id") is not None:
            _check_parent(service, journal)
        else:
            # Without a location of its own, a database without a server would put artifacts into the current directory.
            served = service.uri.startswith("http")
            location = None if served else databases.mlflow_artifacts.absolute().as_uri()
            experiment_id = service.find_or_create_experiment(space, location)
            journal = journal or Journal(folder)  # only now: a wrong address leaves no folder behind
            _open_parent(service, journal, experiment_id, space, sweep)
    except (Refused, Unavailable) as error:
        raise ClusterError(f"MLflow at {service.uri} does not work ({error}); check --tracking-uri") from error
    journal.add(_PARENT, *param_entries(params), once="params")
    _set_status(journal, _PARENT, "RUNNING")
    return SweepRun(service, journal)


def reopen_sweep_run(tracking_uri: str | None, workdir: Workdir, sweep: str) -> SweepRun | None:
    """Return the parent run of a sweep that has ended, to send what waits; None if it has no journal.

    MLflow is asked nothing, and the run's status stays as it is.

    Raises:
        ClusterError: The journal cannot be used.
    """
    folder = _journal_folder(workdir, sweep)
    if not Journal.exists(folder):
        return None
    return SweepRun(MlflowService(tracking_uri or workdir.databases(sweep).mlflow_uri), Journal(folder))


def compare_url(run: SweepRun, run_ids: list[str]) -> str:
    """Return the address of MLflow's page that compares runs."""
    base = run.tracking_uri.rstrip("/") if run.tracking_uri.startswith("http") else LOCAL_SERVER
    return f"{base}/{compare_page(run.experiment_id, run_ids)}"


def _journal_folder(workdir: Workdir, sweep: str) -> Path:
    return workdir.sweep(sweep) / "journal"


def _check_parent(service: MlflowService, journal: Journal) -> None:
    """See to it that the parent run is where it was; a server that is away is believed to have it still."""
    run_id, before = journal.runs()[_PARENT].run_id or "", journal.recall("tracking_uri")
    try:
        service.check_run(run_id)
    except Unavailable:
        if service.uri != before:
            raise
    except Refused as error:
        raise Refused(f"the sweep's run {run_id} was made at {before} and is not there: {error}") from error
    else:
        journal.remember("tracking_uri", service.uri)


def _open_parent(service: MlflowService, journal: Journal, experiment_id: str, space: str, sweep: str) -> None:
    """Make the parent run, or find it if a driver died after it was made.

    It is found by the journal's id: two sweeps of one name may share a server.
    """
    run_id = service.find_or_create_run(
        experiment_id,
        sweep,
        now_ms(),
        identity={"mdatm.journal": journal.recall("id")},
        tags={"mdatm.sweep": sweep, "mdatm.space": space},
    )
    journal.name_run(_PARENT, run_id)
    journal.remember("tracking_uri", service.uri)
    journal.remember("experiment_id", experiment_id)


def _trial_tags(stage: str) -> dict[str, str]:
    return {"mdatm.stage": stage, "mlflow.loggedImages": "True"}


def _set_status(journal: Journal, name: str, status: str, known_as: str | None = None, *before: Part) -> None:
    """Journal a run's status, and something before it, unless the journal knows it as that already."""
    known, known_as = journal.run(name), known_as or status
    if known is None or known.status != known_as:
        journal.add(name, *before, (STATUS, {"status": status, "time": now_ms()}), status=known_as)
