"""What happens to the trials of a search: lost processes, failures, and whether Tune's round is to end."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from ray import tune

from orchestrator.cluster.losses import Patience
from orchestrator.search.proposals import StudySearch
from orchestrator.search.tune_errors import error_line, loss_of
from trainables.errors import CheckpointError
from trainables.storage.checkpoints import checkpoint_place, read_checkpoint
from trainables.workers.rung import Halted, RungResult, SettingsFailed

__all__ = ["RESTARTS", "Furthest", "SearchLedger", "SearchWatch"]

RESTARTS = 3
"""How often Tune restarts a trial; losses by preempted nodes are not counted."""
SAME_FAILURES = 3
"""Number of trials that fail with the same error, with no rung reached, at which a search is given up."""


class SearchWatch(tune.Stopper):
    """Ends a round of Tune: for good if no trial can continue or all fail with the same error, or for a pause."""

    def __init__(self) -> None:
        self.halted: str | None = None
        """Why no trial can continue, though its settings are valid: the first reason."""
        self.hopeless: str | None = None
        """The error of all trials."""
        self.pausing = False
        """Whether a trial's process was lost so often that all trials are to pause, and then continue."""
        self._failures: list[str] = []
        self._hopeful = False

    def note_earlier(self, trials: Sequence[FrozenTrial]) -> None:
        """Record the trials of earlier rounds and drivers."""
        self._hopeful |= any(trial.intermediate_values for trial in trials)
        for trial in trials:
            if reason := _failure(trial):
                self.note_failure(reason)

    def halt(self, reason: str) -> None:
        """Let no trial continue."""
        self.halted = self.halted or reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Record a result; never stops the trial itself."""
        match RungResult.from_report(result).end:
            case Halted(remedy):
                self.halt(remedy)
            case SettingsFailed(reason):
                self.note_failure(reason)
            case None:
                self._hopeful = True
        return False

    def note_failure(self, reason: str) -> None:
        """Record why a trial failed; reasons that differ only in numbers count as the same."""
        self._failures.append(re.sub(r"\d[\d.e+-]*", "#", reason))
        alike = len(set(self._failures)) == 1 and len(self._failures) >= SAME_FAILURES
        if alike and not self._hopeful:
            self.hopeless = f"all of the first {len(self._failures)} trials failed alike: {reason}"

    @property
    def given_up(self) -> bool:
        """Whether the search is to end."""
        return self.halted is not None or self.hopeless is not None

    def stop_all(self) -> bool:
        """Return whether Tune is to end its round."""
        return self.given_up or self.pausing


class Furthest:
    """The most iterations of each trial so far, in its reports and checkpoints."""

    def __init__(self, checkpoints: str) -> None:
        """Begin; `checkpoints` is the folder or URI of the trials' checkpoints."""
        self._checkpoints = checkpoints
        self._iterations: dict[int, int] = {}

    def passed(self, number: int, iterations: int) -> bool:
        """Record a trial's iterations, and return whether it has not been as far before."""
        before = self._iterations.get(number, 0)
        self._iterations[number] = max(before, iterations)
        return iterations > before

    def passed_by_checkpoint(self, number: int) -> bool:
        """The same for the iterations of a trial's checkpoint: a rung may take longer than the patience."""
        states = []
        for within in (False, True):
            # A checkpoint that cannot be read is reported by the trial that resumes from it.
            with suppress(CheckpointError, OSError):
                states.append(read_checkpoint(checkpoint_place(self._checkpoints, number, within_rung=within)))
        return self.passed(number, max((state["iteration"] for state in states if state), default=0))


class SearchLedger(tune.Callback):
    """Records what Tune does not pass to its searcher: lost processes, why a trial failed, and the time spent."""

    def __init__(
        self,
        search: StudySearch,
        watch: SearchWatch,
        spend: Callable[[], None],
        patience: Patience,
        furthest: Furthest,
    ) -> None:
        """Write to the study and the watch; `spend` adds the time since its last call."""
        self._search, self._watch, self._spend = search, watch, spend
        self._patience, self._furthest = patience, furthest
        self._requeues = Counter[int]()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the study's connection out of Tune's snapshot."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Count the time spent, and progress."""
        self._spend()
        if self._furthest.passed(trial.config["trial_number"], result[RungResult.TIME]):
            self._patience.progress(str(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Drop Tune's statistics of the trial's metrics, which nobody reads: they take 60 kB a trial for good."""
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a lost process; Tune has restarted the trial."""
        if (loss := loss_of(trial)) is not None:
            self._record_loss(trial, loss)
            self._watch.pausing |= self._patience.pause_left > 0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record why a trial failed, or have it continued.

        Tune does not restart a trial whose process was lost too often, or while the trial was to begin in a reused
        process. Such a trial stays unfinished in the study, and continues in the next round. A trial whose code raised
        an error while it was to begin in a reused process is requeued.
        """
        if (loss := loss_of(trial)) is not None:
            self._record_loss(trial, loss)
            self._watch.pausing = True
            return
        number = trial.config["trial_number"]
        if trial.run_metadata.num_failures <= RESTARTS and self._requeues[number] < RESTARTS:
            self._requeues[number] += 1
            self._search.requeue(trial.trial_id)
            return
        reason = error_line(trial)
        self._search.fail(trial.trial_id, reason)
        self._watch.note_failure(reason)

    def _record_loss(self, trial: Any, loss: Exception) -> None:
        if self._furthest.passed_by_checkpoint(trial.config["trial_number"]):
            self._patience.progress(str(trial))
        self._patience.lost(str(trial), loss)
        if (reason := self._patience.over) is not None:
            self._watch.halt(reason)


def _failure(trial: FrozenTrial) -> str | None:
    """Return why a trial failed; None if it did not."""
    failed = trial.state == TrialState.FAIL or trial.user_attrs.get("outcome") == "failed"
    return str(trial.user_attrs.get("reason", "")) if failed else None
