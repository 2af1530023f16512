"""Tune's events of a trial, journalled for MLflow: settings, metrics and pictures of every rung, and its outcome."""

import logging
import uuid
from typing import Any

from ray import tune

from orchestrator.results.trials import trial_name
from orchestrator.search.tune_errors import error_line, loss_of
from orchestrator.state.stage import SEARCH
from orchestrator.tracking.entries import now_ms
from orchestrator.tracking.mlflow_service import Part
from orchestrator.tracking.sweep_run import RUNNING, SweepRun
from trainables.workers.rung import Halted, RungPictures, RungResult, SettingsFailed

__all__ = ["TrackingCallback"]

_log = logging.getLogger(__name__)


class TrackingCallback(tune.Callback):
    """Logs every trial to a run of its own: settings, a row of metrics a rung, the images, and its outcome.

    Ray's own callback sends every metric alone, and creates a second run after a restore.
    """

    def __init__(self, run: SweepRun, iterations: int, *, stage: str = SEARCH) -> None:
        """Track under a parent run.

        Args:
            run: The parent run.
            iterations: Distillation iterations of a finished trial.
            stage: The trials' stage.
        """
        self._run = run
        self._journal = run.journal
        self._iterations = iterations
        self._stage = stage
        self._warned_no_picture = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections and images out of Tune's snapshot, which is never restored."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run, once; the run of a resumed trial is set to running again."""
        self._log_outcome(trial, RUNNING)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log a rung under its distillation iteration, once: a resumed trial may report a rung again."""
        pictures = RungPictures.take_from(result)
        name, rung = self._log_outcome(trial, RUNNING), RungResult.from_report(result)
        known = self._journal.run(name)
        if rung.end is not None or (known is not None and rung.iteration <= known.iteration):
            return
        entries = [] if pictures is None else self._keep(name, rung.iteration, pictures)
        self._run.add_rung(name, rung, *entries)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run: FINISHED if all iterations were done, else KILLED, MLflow's status for pruned."""
        rung = RungResult.from_report(trial.last_result)
        match rung.end:
            case SettingsFailed(reason):
                self._log_outcome(trial, "failed", reason)
            case Halted():
                pass  # the trial has not ended
            case None:
                self._log_outcome(trial, "finished" if rung.finishes(self._iterations) else "pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run of a failed trial with the reason; a trial whose process was lost has not ended."""
        if loss_of(trial) is None:
            self._log_outcome(trial, "failed", error_line(trial))

    def _log_outcome(self, trial: Any, outcome: str, reason: str = "") -> str:
        """Create the trial's run if it is missing, log the outcome, and return the trial's name."""
        name = trial_name(trial.config["trial_number"], self._stage)
        self._run.open_trial(name, trial.config, self._stage)
        self._run.set_outcome(name, outcome, reason)
        return name

    def _keep(self, name: str, iteration: int, pictures: RungPictures) -> list[Part]:
        """Keep the pictures of a rung, and return their entries; none if they cannot be written."""
        # MLflow's image charts need the names of its own `log_image`; the overview has the small image.
        logged = f"synthetic+step+{iteration}+timestamp+{now_ms()}+{uuid.uuid4()}"
        files = ((".png", pictures.png), ("+compressed.webp", pictures.webp))
        try:
            return [
                part
                for end, content in files
                for part in self._journal.keep_picture(name, "images", logged + end, content)
            ]
        except OSError as error:  # a missing picture must not end a sweep
            if not self._warned_no_picture:
                _log.warning("MLflow lacks a picture of %s: %s", name, error)
            self._warned_no_picture = True
            return []
