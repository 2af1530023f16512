"""The search: Optuna proposes, Ray Tune runs, ASHA stops weak trials. docs/ray.md, "Tune".

This module alone configures Tune; it keeps no state. Proposals, reports and ends of trials are in the study, distilled
images are in the trials' checkpoints, so an interrupted search is resumed by running it again.
"""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")  # its snapshots are never read, and take 11 kB a trial

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray import tune

from orchestrator.cluster.resources import Resources
from orchestrator.errors import ClusterError
from orchestrator.results.trials import TrialRecord, trial_name
from orchestrator.search.proposals import StudySearch
from orchestrator.search.scheduler import ReferenceSafeASHA
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import SEARCH, SECONDS
from search_spaces import Space
from trainables.workers.rung import Halted, RungResult, SettingsFailed
from trainables.workers.trial import DistillationTrial
from trainables.workers.workbench import TrialWork

__all__ = ["SearchOutcome", "error_line", "read_trials", "run_search"]

LOST_PROCESSES = 3
"""How often a trial whose process was lost is restarted; losses by preempted nodes are not counted."""
SAME_FAILURES = 3
"""Number of trials that fail with the same error, with no rung reached, at which a search is given up."""

_STATUS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class SearchOutcome:
    """The outcome of a search."""

    trials: list[TrialRecord]
    """Trials that have ended, by number."""
    halted: str | None
    """Why no trial could continue, though its settings are valid; None if none was halted."""
    hopeless: str | None
    """The error of all trials, for which the search was given up; else None."""
    interrupted: bool
    """Whether the search was stopped by a signal."""


class SearchWatch(tune.Stopper):
    """Ends a search that cannot continue: a trial's disk is full, or all trials fail with the same error."""

    def __init__(self, before: Sequence[FrozenTrial]) -> None:
        """Start with the trials of earlier drivers."""
        self.halted: str | None = None
        """Why no trial can continue, though its settings are valid."""
        self.hopeless: str | None = None
        """The error of all trials."""
        self._failures: list[str] = []
        self._hopeful = any(trial.intermediate_values for trial in before)
        for trial in before:
            if reason := _failure(trial):
                self.note_failure(reason)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Record a result; never stops the trial itself."""
        match RungResult.from_report(result).end:
            case Halted(remedy):
                self.halted = remedy
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

    def stop_all(self) -> bool:
        """Return whether the search is to end."""
        return self.halted is not None or self.hopeless is not None


class SearchLedger(tune.Callback):
    """Records what Tune does not pass to its searcher: why a process failed, and the time spent."""

    def __init__(self, search: StudySearch, watch: SearchWatch, spend: Callable[[], None]) -> None:
        """Write to the study; `spend` adds the time since its last call."""
        self._search, self._watch, self._spend = search, watch, spend
        self._requeues = Counter[int]()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the study's connection out of Tune's snapshot."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Count the time spent."""
        self._spend()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the reason, or requeue the trial.

        Tune restarts a trial whose process was lost, but not a trial that was about to begin in a reused process.
        """
        number = trial.config["trial_number"]
        if trial.run_metadata.num_failures <= LOST_PROCESSES and self._requeues[number] < LOST_PROCESSES:
            self._requeues[number] += 1
            self._search.requeue(trial.trial_id)
            return
        reason = error_line(trial)
        self._search.fail(trial.trial_id, reason)
        self._watch.note_failure(reason)


def error_line(trial: Any) -> str:
    """Return the last line of a failed Tune trial's traceback: the exception and its message.

    It is read from Tune's local copy: the copy in the storage is written after the callbacks.
    """
    path = Path(trial.error_file) if trial.error_file else None
    lines = (
        [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if path and path.exists()
        else []
    )
    return lines[-1].strip() if lines else "the trial's process died without a traceback"


def run_search(
    settings: SweepSettings,
    resources: Resources,
    work: TrialWork,
    progress: Progress,
    callbacks: Sequence[tune.Callback],
    *,
    add_ended: Callable[[list[TrialRecord]], None] = lambda _: None,
    written: Callable[[], None] = lambda: None,
    trainable: type[tune.Trainable] = DistillationTrial,
) -> SearchOutcome:
    """Run the sweep's unfinished trials, and return the outcome of all trials.

    Args:
        settings: The sweep.
        resources: Resources of one trial, and how many trials fit.
        work: The part that all trials share.
        progress: Records the time spent, s.
        callbacks: Tune callbacks: tracking and the live view.
        add_ended: Called once with the trials that ended under earlier drivers, if any trial is left to run.
        written: Called after each write to the study, before a trial continues.
        trainable: The class of a trial; its setup takes `work`.
    """
    space, trials = settings.space, settings.fixed["trials"]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Tune would print the traceback of every failed trial; it is in the trial's error.txt, and the view says so.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    watch: SearchWatch | None = None

    def name_trial(trial: Any) -> str:
        return trial_name(trial.config["trial_number"], settings.stage)

    def halt(reason: str) -> None:
        """Let no trial continue; Tune would take a raised error for the trial's."""
        if watch is not None:
            watch.halted = watch.halted or reason

    def push() -> None:
        """Call `written` and record its error."""
        try:
            written()
        except ClusterError as error:
            halt(str(error))

    search = StudySearch(
        space,
        study=settings.places.study_name,
        storage=settings.places.study_storage,
        seed=settings.seed,
        trials=trials,
        iterations=settings.fixed["iterations"],
        written=push,
        halt=halt,
    )
    before = search.study.get_trials(deepcopy=False)
    watch = SearchWatch(before)
    left = trials - sum(trial.state.is_finished() for trial in before)
    budget = settings.time_budget_s
    seconds_left = None if budget is None else budget - progress.seconds().get(SECONDS[settings.stage], 0.0)
    began = time.monotonic()
    if left and not watch.stop_all() and (seconds_left is None or seconds_left > 0):
        add_ended(read_trials(search.study, space, settings.stage))
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, work=work), resources.per_worker),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the searcher reports when no trial is left
                search_alg=search,
                # No trial of a grid is stopped early, whatever its accuracy.
                scheduler=None if space.is_grid else ReferenceSafeASHA(settings.fixed, before),
                # Without a limit Tune asks for one trial at a time, and an autoscaler sees the demand of one.
                max_concurrent_trials=resources.workers(settings.concurrent),
                reuse_actors=True,
                time_budget_s=seconds_left,
                trial_name_creator=name_trial,
                trial_dirname_creator=name_trial,
            ),
            run_config=tune.RunConfig(
                name=settings.places.tune_name,
                storage_path=settings.places.tune_folder,
                callbacks=[SearchLedger(search, watch, lambda: progress.spend(SECONDS[settings.stage])), *callbacks],
                stop=watch,
                # A trial writes its own checkpoint and resumes from it.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=LOST_PROCESSES),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            if (cause := _cluster_error(error)) is None:
                raise
            halt(str(cause))
    out_of_time = seconds_left is not None and time.monotonic() - began >= seconds_left
    if out_of_time:
        search.end_unfinished("the time budget")
    ended = read_trials(search.study, space, settings.stage)
    # Tune's `fit` returns normally after a signal.
    interrupted = len(ended) < trials and not out_of_time and not watch.stop_all()
    return SearchOutcome(ended, watch.halted, watch.hopeless, interrupted)


def _cluster_error(error: BaseException | None) -> ClusterError | None:
    """Return the ClusterError that a callback raised in Tune, which raises an error of its own in its place."""
    while error is not None and not isinstance(error, ClusterError):
        error = error.__cause__ or error.__context__
    return error


def _failure(trial: FrozenTrial) -> str | None:
    """Return why a trial failed; None if it did not."""
    failed = trial.state == TrialState.FAIL or trial.user_attrs.get("outcome") == "failed"
    return str(trial.user_attrs.get("reason", "")) if failed else None


def read_trials(study: optuna.Study, space: Space, stage: str = SEARCH) -> list[TrialRecord]:
    """Return the trials of a stage's study that have ended, by number."""
    return [
        TrialRecord(
            number=trial.number,
            status=trial.user_attrs.get("outcome", _STATUS[trial.state]),
            settings=space.resolve(trial.params),
            rungs=dict(sorted(trial.intermediate_values.items())),
            seconds=float(trial.user_attrs.get("seconds", 0.0)),
            reason=trial.user_attrs.get("reason", ""),
            measures=trial.user_attrs.get("measures", {}),
            stage=stage,
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state in _STATUS
    ]
