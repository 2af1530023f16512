"""What a sweep tells MLflow: one experiment a space, one parent run a sweep, one child run a trial. RAY.md, "MLflow".

Only the opening of a sweep asks MLflow itself, so that a wrong address is refused at once. Everything else goes into
the sweep's journal, from where it is sent: a server that is away neither stops nor delays a sweep.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ray import tune

from orchestrator.delivery import FILE, PARAMS, RUN, STATUS, TAGS, MlflowService, Part, in_parts
from orchestrator.errors import ClusterError
from orchestrator.figures import draw_set
from orchestrator.journal import METRICS, Journal, RunState
from orchestrator.search import error_line
from orchestrator.searcher import METRIC, ended_as_planned
from orchestrator.sender import Refused, Sender, Unavailable
from orchestrator.settings import Workdir
from orchestrator.trials import TrialRecord, images_of, trial_name
from trainables.checkpoints import checkpoint_place, read_checkpoint
from trainables.datasets import ImageDataset
from trainables.errors import CheckpointError

__all__ = [
    "FLUSH_S",
    "LOCAL_SERVER",
    "SweepRun",
    "TrackingCallback",
    "compare_url",
    "open_sweep_run",
    "reopen_sweep_run",
]

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `python -m orchestrator.ui` serves the embedded database."""
FLUSH_S = 60.0
"""How long the end of a sweep waits for MLflow."""

_PARENT = "sweep"  # the parent run's name in the journal; a child's is its trial's
_RUNNING, _CUT_OFF = "running", "cut off"
_STATUS = {_RUNNING: "RUNNING", "finished": "FINISHED", "pruned": "KILLED", _CUT_OFF: "KILLED", "failed": "FAILED"}
"""MLflow's word for what has become of a trial; those of a TrialRecord are tagged too."""
_LOGGED = (
    METRIC, "matching_loss", "alpha", "skip_rate", "not_finite_rate", "floor_rate", "label_inconsistency",
    "micro_batch_images",
    "image_displacement", "upper_bound_epochs", "seconds_per_iteration",
)  # fmt: skip
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

    def log_losses(self, losses: Sequence[float]) -> None:
        """Log the experts' mean training loss, a step an epoch; once in a sweep."""
        now = _now()
        rows = [("expert_training_loss", loss, now, epoch + 1) for epoch, loss in enumerate(losses)]
        self.journal.add(_PARENT, *_metrics(rows), once="losses")

    def log_result(self, result: Mapping[str, Any], folder: Path) -> None:
        """Log a sweep's result: its figures, its files, report.md as the description; once in a sweep."""
        now = _now()
        files = [place for label, place in result["files"].items() if label != "challenge"]  # the images once
        places: list[tuple[str, str | None]] = [(name, None) for name in ("result.json", "settings.json", *files)]
        places += [(f"figures/{figure.name}", "figures") for figure in sorted((folder / "figures").iterdir())]
        self.journal.add(
            _PARENT,
            *_metrics((name, value, now, 0) for name, value in _figures(result).items()),
            (TAGS, {"mlflow.note.content": (folder / "report.md").read_text()}),
            *((FILE, {"path": path, "folder": under}) for path, under in places),
            once="result",
        )

    def close_trials(self, records: Iterable[TrialRecord]) -> None:
        """Close the runs of trials that have ended, as far as they are not, and tell what the journal does not know.

        A driver may have died just before it closed one. A journal that was lost with its machine lags behind the
        study; of what it lacks the study has settings and accuracies.
        """
        for record in records:
            known = self.open_trial(record.name, {**record.settings, "trial_number": record.number})
            for iteration, accuracy in record.rungs.items():
                if iteration > known.iteration:
                    row = ("validation_accuracy", accuracy, _now(), iteration)
                    self.journal.add(record.name, *_metrics([row]), iteration=iteration)
            reason = record.reason if record.status == "failed" else ""
            _set_outcome(self.journal, record.name, record.status, reason)

    def open_trial(self, name: str, config: Mapping[str, Any]) -> RunState:
        """Make sure of a trial's run, and return what the journal knows of it."""
        if self.journal.run(name) is None:
            run = {
                "experiment_id": self.experiment_id,
                "name": name,
                "start_time": _now(),
                "identity": {"mlflow.parentRunId": self.run_id, "mdatm.trial": name},
                "tags": {},
            }
            params = in_parts(PARAMS, {key: str(value) for key, value in config.items()})
            self.journal.add(name, (RUN, run), *params, status=_RUNNING)
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
            if name != _PARENT and run.status == _RUNNING:
                _set_outcome(self.journal, name, _CUT_OFF)
        _set_status(self.journal, _PARENT, status)
        backlog = self._sender.flush(deadline_s)
        self._sender.stop()
        if backlog.refused:
            _log.warning("MLflow refused %d entries; %s keeps them", backlog.refused, self.journal.database)
        if backlog.dropped:
            _log.warning("MLflow lacks %d results and pictures, for which the journal had no room", backlog.dropped)
        return backlog.waiting

    def trial_runs(self) -> dict[str, str]:
        """Return the run ids of the sweep's trials by trial name, of those that MLflow has taken already."""
        runs = self.journal.runs().items()
        return {name: run.run_id for name, run in runs if run.run_id is not None and name != _PARENT}


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
    journal.add(_PARENT, *in_parts(PARAMS, {key: str(value) for key, value in params.items()}), once="params")
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
    runs, experiments = quote(json.dumps(run_ids)), quote(json.dumps([run.experiment_id]))
    return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}"


class TrackingCallback(tune.Callback):
    """Writes every trial to a run of its own: settings, a metric row a rung, the images, how it ended.

    Ray's own callback logs metric by metric and leaves a second run behind after a restore.
    """

    def __init__(self, run: SweepRun, dataset: ImageDataset, iterations: int, checkpoints: str) -> None:
        """Track under a parent run.

        Args:
            run: The parent run.
            dataset: Tells how to show its images.
            iterations: Of a trial that finishes.
            checkpoints: Folder or URI of the trials' checkpoints.
        """
        self._run = run
        self._journal = run.journal
        self._dataset = dataset
        self._iterations = iterations
        self._checkpoints = checkpoints
        self._said_no_picture = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections and images out of Tune's snapshot; whoever restores one opens his own."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run, once; that of a trial which goes on is running again."""
        self._open(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log a rung under its distillation iteration, once: a trial that goes on may repeat some."""
        name = self._open(trial)
        known = self._journal.run(name)
        if _is_no_rung(result) or (known is not None and result["iteration"] <= known.iteration):
            return
        now = _now()
        rows = [(key, float(result[key]), now, result["iteration"]) for key in _LOGGED if key in result]
        picture = self._draw(name, trial.config["trial_number"], result["iteration"])
        self._journal.add(name, *_metrics(rows), *picture, iteration=result["iteration"])  # both, or both once more

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run: FINISHED if all iterations were done, else KILLED, which is MLflow's word for pruned."""
        result = trial.last_result or {}
        if "failed" in result:
            self._close(trial, "failed", result["failed"])
        elif "halted" not in result:  # that one has not ended
            self._close(trial, "finished" if ended_as_planned(result, self._iterations) else "pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run of a failed trial with the reason."""
        self._close(trial, "failed", error_line(trial))

    def _open(self, trial: Any) -> str:
        """Make sure of a trial's run, and that it is said to be running; return its name."""
        name = trial_name(trial.config["trial_number"])
        self._run.open_trial(name, trial.config)
        _set_outcome(self._journal, name, _RUNNING)
        return name

    def _close(self, trial: Any, outcome: str, reason: str = "") -> None:
        name = trial_name(trial.config["trial_number"])
        if self._journal.run(name) is None:
            self._open(trial)
        _set_outcome(self._journal, name, outcome, reason)

    def _draw(self, name: str, number: int, iteration: int) -> list[Part]:
        """Draw the synthetic images of a trial's checkpoint, if there is one of that iteration."""
        try:
            state = read_checkpoint(checkpoint_place(self._checkpoints, number))
            if state is None or state["iteration"] != iteration:
                return []
            images, names = self._dataset.displayable(images_of(state)), self._dataset.class_names
            return self._journal.draw(
                name, "images", f"synthetic-{iteration:06d}.png", lambda path: draw_set(path, images, names)
            )
        except (CheckpointError, OSError) as error:  # a picture less is no reason to end a sweep
            if not self._said_no_picture:
                _log.warning("MLflow lacks a picture of %s: %s", name, error)
            self._said_no_picture = True
            return []


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
        _now(),
        identity={"mdatm.journal": journal.recall("id")},
        tags={"mdatm.sweep": sweep, "mdatm.space": space},
    )
    journal.name_run(_PARENT, run_id)
    journal.remember("tracking_uri", service.uri)
    journal.remember("experiment_id", experiment_id)


def _set_status(journal: Journal, name: str, status: str, known_as: str | None = None, *before: Part) -> None:
    """Journal a run's status, and something before it, unless the journal knows it as that already."""
    known, known_as = journal.run(name), known_as or status
    if known is None or known.status != known_as:
        journal.add(name, *before, (STATUS, {"status": status, "time": _now()}), status=known_as)


def _set_outcome(journal: Journal, name: str, outcome: str, reason: str = "") -> None:
    """Journal what has become of a trial, unless that is known."""
    known = journal.run(name)
    tags = {} if outcome in (_RUNNING, _CUT_OFF) else {"mdatm.outcome": outcome}
    if reason or (known is not None and known.status == "failed"):
        tags["mdatm.reason"] = reason
    _set_status(journal, name, _STATUS[outcome], outcome, *([(TAGS, tags)] if tags else []))


def _is_no_rung(result: Mapping[str, Any]) -> bool:
    """Say whether a result only tells why its trial cannot go on; it has no figures."""
    return "failed" in result or "halted" in result


def _metrics(rows: Iterable[tuple[str, float, int, int]]) -> Iterable[Part]:
    """Return the entries of metrics: key, value, milliseconds and step. What is no number is not logged."""
    return in_parts(METRICS, [row for row in rows if math.isfinite(row[1])])


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a sweep's result."""
    figures = {
        f"{name}_{metric}": summary["mean"]
        for name, summaries in result["finals"].items()
        for metric, summary in summaries.items()
    }
    figures |= {
        f"study_{variant}_{metric}": summary["mean"]
        for variant, summaries in result.get("study", {"variants": {}})["variants"].items()
        for metric, summary in summaries.items()
        if metric != "settings" and summary is not None
    }
    figures["best_validation_accuracy"] = result["best"]["validation_accuracy"]
    figures |= {f"trials_{status}": count for status, count in result["trials"].items()}
    figures |= {f"seconds_{stage}": seconds for stage, seconds in result["seconds"].items()}
    return figures


def _now() -> int:
    """Return the time in MLflow's milliseconds."""
    return int(time.time() * 1000)
