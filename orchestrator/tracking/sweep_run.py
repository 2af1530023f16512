"""A sweep in MLflow: an experiment a space, a parent run a sweep, child runs for experts, trials and finals.

Everything goes through the sweep's journal: an unreachable server neither stops nor delays a sweep. `tracking.opening`
opens the parent run.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.results.experts import ExpertSummary
from orchestrator.results.finals import CHALLENGE, Measured
from orchestrator.results.trials import TrialRecord
from orchestrator.state.stage import FINALS, SEARCH
from orchestrator.tracking.datasets import real_dataset
from orchestrator.tracking.entries import (
    expert_figures,
    final_figures,
    metric_entries,
    now_ms,
    param_entries,
)
from orchestrator.tracking.journal import Journal, RunState
from orchestrator.tracking.mlflow_service import INPUT, RUN, STATUS, TAGS, MlflowService, Part
from orchestrator.tracking.pages import compare_page
from orchestrator.tracking.sender import Sender
from trainables.data.datasets import ImageDataset
from trainables.storage.shared_file import SharedFile
from trainables.workers.rung import RungResult

__all__ = ["FLUSH_S", "LOCAL_SERVER", "PARENT", "RUNNING", "SweepRun", "set_status"]

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `python -m orchestrator.ui` serves the embedded database."""
FLUSH_S = 60.0
"""How long the end of a sweep waits for MLflow."""

PARENT, _EXPERTS = "sweep", "experts"  # names of runs in the journal; a trial's is the trial's own
RUNNING, _INTERRUPTED = "running", "cut off"
_STATUS = {
    RUNNING: "RUNNING", "finished": "FINISHED", "pruned": "KILLED", "paused": "KILLED", _INTERRUPTED: "KILLED",
    "failed": "FAILED",
}  # fmt: skip
"""MLflow's run status by a trial's outcome; the outcomes of a TrialRecord are tagged too."""
_log = logging.getLogger(__name__)


class SweepRun:
    """The parent run of a sweep."""

    def __init__(self, service: MlflowService, journal: Journal) -> None:
        """Hold an open run and start to send its journal; see `tracking.opening`."""
        self.journal = journal
        self.tracking_uri = service.uri
        self.experiment_id: str = journal.recall("experiment_id")
        self.run_id: str = journal.runs()[PARENT].run_id or ""
        self._sender = Sender(journal, f"MLflow at {service.uri}", partial(service.deliver, journal))

    def log_dataset(self, dataset: ImageDataset, file: Path | SharedFile) -> None:
        """Log the dataset that is distilled, prepared in `file`, as an input of the sweep; only once in a sweep."""
        self.journal.add(PARENT, (INPUT, real_dataset(dataset, file)), once="dataset")

    def log_experts(self, experts: ExpertSummary, params: Mapping[str, Any], place: str) -> None:
        """Log the experts in a run of their own: recipe, and mean training loss by epoch; only once in a sweep.

        Args:
            experts: The result of the expert stage.
            params: Their recipe, and their store's address.
            place: Folder or URI of the store.
        """
        run = self._run(
            _EXPERTS, {"mdatm.stage": _EXPERTS}, {"mdatm.store": place},
            start_time=now_ms() - int(1000 * experts.seconds),
        )  # fmt: skip
        self._add_ended(_EXPERTS, run, params, metric_entries(expert_figures(experts)), once=_EXPERTS)

    def log_finals(self, measured: Measured, params: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Log the networks' test metrics, a step a network; only once in a sweep.

        A trial's metrics go into its run, those of any other set into a run of its own. Metrics of a label regime have
        the regime's name as prefix; those of the finals' own protocol have none.

        Args:
            measured: By protocol and set.
            params: Parameters of the runs of sets that are not trials', by set.
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

    def forget_finals(self) -> None:
        """Let the result and the finals of the search's trials be logged again, because the search continues."""
        self.journal.forget("result")
        self.journal.forget(f"finals *{SEARCH}-*")

    def log_result(self, entries: Iterable[Part]) -> None:
        """Log the result of a sweep or comparison, as `result_entries` yields it; only once in a sweep."""
        self.journal.add(PARENT, *entries, once="result")

    @property
    def system_steps(self) -> int:
        """Number of rows of system metrics so far, including those of earlier drivers."""
        known = self.journal.run(PARENT)
        return known.iteration + 1 if known else 0

    def add_system_metrics(self, step: int, figures: Mapping[str, float]) -> None:
        """Log a row of system metrics."""
        self._add_row(PARENT, step, {f"system/{name}": value for name, value in figures.items()})

    def close_trials(self, records: Iterable[TrialRecord], keys: Sequence[str]) -> None:
        """Close the runs of ended or paused trials that are still open, and add rungs that the journal lacks.

        A driver may have died just before it closed a run. A journal that was lost with its machine lags behind the
        study, from which settings and accuracies are added.

        Args:
            records: The trials.
            keys: Names of the settings in which they differ: `Space.trial_keys`.
        """
        for record in records:
            own = {key: record.settings[key] for key in keys}
            known = self.open_trial(record.name, {**own, "trial_number": record.number}, record.stage)
            for iteration, accuracy in record.rungs.items():
                if iteration > known.iteration:
                    self.add_rung(record.name, RungResult(iteration=iteration, validation_accuracy=accuracy))
            reason = record.reason if record.status == "failed" else ""
            self.set_outcome(record.name, record.status, reason)

    def add_rung(self, name: str, rung: RungResult, *pictures: Part) -> None:
        """Log a trial's rung under its iteration, with its pictures: all of them, or none."""
        self._add_row(name, rung.iteration, rung.logged, *pictures)

    def set_outcome(self, name: str, outcome: str, reason: str = "") -> None:
        """Log a trial's outcome, unless the journal has it: RUNNING, or a TrialRecord's status and reason."""
        known = self.journal.run(name)
        tags = {} if outcome in (RUNNING, _INTERRUPTED) else {"mdatm.outcome": outcome}
        if reason or (known is not None and known.status == "failed"):
            tags["mdatm.reason"] = reason
        set_status(self.journal, name, _STATUS[outcome], outcome, *([(TAGS, tags)] if tags else []))

    def open_trial(self, name: str, config: Mapping[str, Any], stage: str = SEARCH) -> RunState:
        """Create a trial's run in the journal if it is missing, and return its state."""
        known = self.journal.run(name)
        if known is None:
            run = self._run(name, {"mdatm.trial": name}, _trial_tags(stage), start_time=now_ms())
            self.journal.add(name, run, *param_entries(config), status=RUNNING)
            known = self.journal.run(name)
        assert known is not None, "it has just been added"
        return known

    def flush(self, deadline_s: float = FLUSH_S) -> int:
        """Wait at most `deadline_s` seconds for MLflow to receive the journal; return the number of entries left."""
        return self._sender.flush(deadline_s).waiting

    def end(self, status: str, deadline_s: float = FLUSH_S) -> int:
        """Close the run with FINISHED, FAILED or KILLED, and interrupted trials with KILLED.

        Returns:
            Number of entries that still wait; the next run of the sweep's command sends them.
        """
        for name, run in self.journal.runs().items():
            if name != PARENT and run.status == RUNNING:
                self.set_outcome(name, _INTERRUPTED)
        set_status(self.journal, PARENT, status)
        backlog = self._sender.flush(deadline_s)
        self._sender.stop()
        if backlog.refused:
            _log.warning("MLflow refused %d entries; %s keeps them", backlog.refused, self.journal.database)
        if backlog.dropped:
            _log.warning("MLflow lacks %d results and pictures, for which the journal had no room", backlog.dropped)
        return backlog.waiting

    def trial_runs(self) -> dict[str, str]:
        """Return the run ids of the search's trials by trial name; trials whose run is not sent yet are left out."""
        runs = self.journal.runs().items()
        return {name: run.run_id for name, run in runs if run.run_id is not None and name.startswith(f"{SEARCH}-")}

    def facts(self) -> dict[str, str]:
        """Return the addresses of the runs for result.json."""
        return {"tracking_uri": self.tracking_uri, "experiment_id": self.experiment_id, "parent_run_id": self.run_id}

    def compare_url(self) -> str:
        """Return the address of MLflow's page that compares the search's trials."""
        base = self.tracking_uri.rstrip("/") if self.tracking_uri.startswith("http") else LOCAL_SERVER
        return f"{base}/{compare_page(self.experiment_id, list(self.trial_runs().values()))}"

    def _add_row(self, name: str, step: int, figures: Mapping[str, float], *others: Part) -> None:
        rows = metric_entries((key, value, step) for key, value in figures.items())
        self.journal.add(name, *rows, *others, iteration=step)

    def _run(self, name: str, identity: Mapping[str, str], tags: Mapping[str, str], start_time: int) -> Part:
        """Return the entry that creates a child run, unless a run with the tags of `identity` exists."""
        identity = {"mlflow.parentRunId": self.run_id, **identity}
        run = {"experiment_id": self.experiment_id, "name": name, "start_time": start_time}
        return RUN, {**run, "identity": identity, "tags": dict(tags)}

    def _add_ended(
        self, name: str, run: Part, params: Mapping[str, Any], figures: Iterable[Part], *, once: str
    ) -> None:
        """Log a complete child run, from start to end; only once in a sweep."""
        end = (STATUS, {"status": "FINISHED", "time": now_ms()})
        self.journal.add(name, run, *param_entries(params), *figures, end, status="finished", once=once)


def _trial_tags(stage: str) -> dict[str, str]:
    return {"mdatm.stage": SEARCH if stage == SEARCH else FINALS, "mlflow.loggedImages": "True"}


def set_status(journal: Journal, name: str, status: str, known_as: str | None = None, *before: Part) -> None:
    """Journal a run's status, and entries before it, unless the journal has this status already."""
    known, known_as = journal.run(name), known_as or status
    if known is None or known.status != known_as:
        journal.add(name, *before, (STATUS, {"status": status, "time": now_ms()}), status=known_as)
