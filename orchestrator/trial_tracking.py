"""What Ray Tune tells of a trial, journalled for MLflow: settings, metrics and a picture a rung, how it ended."""

import logging
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import tune

from orchestrator.delivery import Part
from orchestrator.figures import draw_set
from orchestrator.mlflow_entries import now_ms
from orchestrator.search import error_line
from orchestrator.searcher import METRIC, ended_as_planned
from orchestrator.settings import SEARCH
from orchestrator.tracking import RUNNING, SweepRun
from orchestrator.trials import images_of, trial_name
from trainables.checkpoints import checkpoint_place, read_checkpoint
from trainables.datasets import ImageDataset
from trainables.errors import CheckpointError

__all__ = ["TrackingCallback"]

OVERVIEW_PIXELS = 256
"""The longer side of the small pictures; MLflow shows its overview of images in their size."""
_log = logging.getLogger(__name__)
_LOGGED = (
    METRIC, "matching_loss", "distribution_loss", "gradient_loss", "alpha", "skip_rate", "not_finite_rate",
    "floor_rate", "label_inconsistency", "micro_batch_images", "image_displacement",
    "upper_bound_epochs", "seconds_per_iteration", "trial_seconds", "peak_memory_mib",
    "resident_memory_mib",
)  # fmt: skip


class TrackingCallback(tune.Callback):
    """Writes every trial to a run of its own: settings, a metric row a rung, the images, how it ended.

    Ray's own callback logs metric by metric and leaves a second run behind after a restore.
    """

    def __init__(
        self, run: SweepRun, dataset: ImageDataset, iterations: int, checkpoints: str, *, stage: str = SEARCH
    ) -> None:
        """Track under a parent run.

        Args:
            run: The parent run.
            dataset: Tells how to show its images.
            iterations: Of a trial that finishes.
            checkpoints: Folder or URI of the trials' checkpoints.
            stage: The stage that the trials are of.
        """
        self._run = run
        self._journal = run.journal
        self._dataset = dataset
        self._iterations = iterations
        self._checkpoints = checkpoints
        self._stage = stage
        self._said_no_picture = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections and images out of Tune's snapshot; whoever restores one opens his own."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run, once; that of a trial which goes on is running again."""
        self._tell(trial, RUNNING)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log a rung under its distillation iteration, once: a trial that goes on may repeat some."""
        name = self._tell(trial, RUNNING)
        known = self._journal.run(name)
        if _is_no_rung(result) or (known is not None and result["iteration"] <= known.iteration):
            return
        picture = self._draw(name, trial.config["trial_number"], result["iteration"])
        figures = {key: result[key] for key in _LOGGED if key in result}
        self._run.add_rung(name, result["iteration"], figures, *picture)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run: FINISHED if all iterations were done, else KILLED, which is MLflow's word for pruned."""
        result = trial.last_result or {}
        if "failed" in result:
            self._tell(trial, "failed", result["failed"])
        elif "halted" not in result:  # that one has not ended
            self._tell(trial, "finished" if ended_as_planned(result, self._iterations) else "pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Close the run of a failed trial with the reason."""
        self._tell(trial, "failed", error_line(trial))

    def _tell(self, trial: Any, outcome: str, reason: str = "") -> str:
        """Make sure of a trial's run, and that it says what has become of the trial; return its name."""
        name = trial_name(trial.config["trial_number"], self._stage)
        self._run.open_trial(name, trial.config, self._stage)
        self._run.set_outcome(name, outcome, reason)
        return name

    def _draw(self, name: str, number: int, iteration: int) -> list[Part]:
        """Draw the synthetic images of a trial's checkpoint, if there is one of that iteration."""
        try:
            state = read_checkpoint(checkpoint_place(self._checkpoints, number))
            if state is None or state["iteration"] != iteration:
                return []
            images, names = self._dataset.displayable(images_of(state)), self._dataset.class_names
            # MLflow's own images are called so, the smaller one for its overview; its image charts find no others.
            logged = f"synthetic+step+{iteration}+timestamp+{now_ms()}+{uuid.uuid4()}"
            return [
                part
                for end, longest in ((".png", None), ("+compressed.webp", OVERVIEW_PIXELS))
                for part in self._journal.draw(
                    name, "images", logged + end, partial(draw_set, images=images, class_names=names, longest=longest)
                )
            ]
        except (CheckpointError, OSError) as error:  # a picture less is no reason to end a sweep
            if not self._said_no_picture:
                _log.warning("MLflow lacks a picture of %s: %s", name, error)
            self._said_no_picture = True
            return []


def _is_no_rung(result: Mapping[str, Any]) -> bool:
    """Say whether a result only tells why its trial cannot go on; it has no figures."""
    return "failed" in result or "halted" in result
