"""The search: Optuna proposes, Ray Tune runs, ASHA stops the hopeless. RAY.md.

This module alone puts Tune together; it keeps nothing. What was proposed, reported and ended is in the study, what was
distilled is in the trials' checkpoints, so a search that was cut off anywhere is gone on with by running it again.
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

os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")  # snapshots that nobody reads, 11 kB a trial each time

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray import tune

from orchestrator.cluster import Resources
from orchestrator.errors import ClusterError
from orchestrator.mirror import Mirror
from orchestrator.progress import Progress
from orchestrator.rungs import ReferenceSafeASHA
from orchestrator.searcher import StudySearch
from orchestrator.settings import FINALS, SEARCH, SweepSettings
from orchestrator.trials import TrialRecord, trial_name
from search_spaces import Space
from trainables.trial import DistillationTrial
from trainables.workbench import TrialWork

__all__ = ["SECONDS", "SearchOutcome", "error_line", "read_trials", "run_search"]

LOST_PROCESSES = 3
"""How often a trial whose process was lost is begun again; nodes that were taken away are not counted."""
SECONDS = {SEARCH: "search", FINALS: "finals"}
"""As what a stage's time counts."""
SAME_FAILURES = 3
"""Trials that fail alike, with none that did better, until a search is given up."""

_STATUS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class SearchOutcome:
    """What the search left."""

    trials: list[TrialRecord]
    """Those that have ended, by number."""
    halted: str | None
    """Why no trial could go on, though there is nothing wrong with it."""
    hopeless: str | None
    """What all trials failed of, so that the search was given up."""
    interrupted: bool
    """Whether the search was stopped by a signal."""


class SearchWatch(tune.Stopper):
    """Ends a search in which nothing can go on: a trial has no room on its disk, or all fail alike."""

    def __init__(self, before: Sequence[FrozenTrial]) -> None:
        """Start with what came of the trials before."""
        self.halted: str | None = None
        """Why no trial can go on, though there is nothing wrong with it."""
        self.hopeless: str | None = None
        """What all trials failed of."""
        self._failures: list[str] = []
        self._hopeful = any(trial.intermediate_values for trial in before)
        for trial in before:
            if reason := _failure(trial):
                self.note_failure(reason)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take note of a result; it ends its trial by itself."""
        if "halted" in result:
            self.halted = result["halted"]
        elif "failed" in result:
            self.note_failure(result["failed"])
        else:
            self._hopeful = True
        return False

    def note_failure(self, reason: str) -> None:
        """Take note of why a trial failed; numbers in it are the trial's own."""
        self._failures.append(re.sub(r"\d[\d.e+-]*", "#", reason))
        alike = len(set(self._failures)) == 1 and len(self._failures) >= SAME_FAILURES
        if alike and not self._hopeful:
            self.hopeless = f"all of the first {len(self._failures)} trials failed alike: {reason}"

    def stop_all(self) -> bool:
        """Say whether the search is to end."""
        return self.halted is not None or self.hopeless is not None


class SearchLedger(tune.Callback):
    """Writes down what Tune's searcher is not told: why a process failed, and the time that was spent."""

    def __init__(self, search: StudySearch, watch: SearchWatch, spend: Callable[[], None]) -> None:
        """Write into the study; `spend` counts the time."""
        self._search, self._watch, self._spend = search, watch, spend
        self._again = Counter[int]()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the study's connection out of Tune's snapshot."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take the time."""
        self._spend()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell why, or have the trial proposed again.

        Tune begins a trial anew whose process is lost, but not one that was about to begin in a process used before.
        """
        number = trial.config["trial_number"]
        if trial.run_metadata.num_failures <= LOST_PROCESSES and self._again[number] < LOST_PROCESSES:
            self._again[number] += 1
            self._search.give_out_again(trial.trial_id)
            return
        reason = error_line(trial)
        self._search.fail(trial.trial_id, reason)
        self._watch.note_failure(reason)


def error_line(trial: Any) -> str:
    """Return the last line of a failed Tune trial's traceback: the exception and its message.

    Read from Tune's local copy: the one in the storage comes only after the callbacks.
    """
    path = Path(trial.error_file) if trial.error_file else None
    lines = [line for line in path.read_text().splitlines() if line.strip()] if path and path.exists() else []
    return lines[-1].strip() if lines else "the trial's process died without a traceback"


def run_search(
    settings: SweepSettings,
    resources: Resources,
    work: TrialWork,
    progress: Progress,
    callbacks: Sequence[tune.Callback],
    *,
    mirror: Mirror | None = None,
    trainable: type[tune.Trainable] = DistillationTrial,
) -> SearchOutcome:
    """Run those of the sweep's trials that have not ended, and return what became of all.

    Args:
        settings: The sweep.
        resources: What a trial takes, and how many fit.
        work: What all trials share.
        progress: Takes the time.
        callbacks: Tune callbacks: tracking and the live view.
        mirror: Keeps the study at the workdir's URI; None: nobody does.
        trainable: What a trial is; its setup takes `work`.
    """
    space, trials = settings.space, settings.fixed["trials"]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Tune would print the traceback of every failed trial; it is in the trial's error.txt, and the view says so.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    watch: SearchWatch | None = None

    def name_trial(trial: Any) -> str:
        return trial_name(trial.config["trial_number"], settings.stage)

    def push() -> None:
        """Have what was written into the study at the URI; Tune would take an error for the trial's."""
        try:
            if mirror is not None:
                mirror.push(everything=False)
        except ClusterError as error:
            if watch is not None:
                watch.halted = watch.halted or str(error)

    search = StudySearch(
        space,
        study=settings.study_name,
        storage=settings.study_storage,
        seed=settings.seed,
        trials=trials,
        iterations=settings.fixed["iterations"],
        written=push,
    )
    before = search.study.get_trials(deepcopy=False)
    watch = SearchWatch(before)
    left = trials - sum(trial.state.is_finished() for trial in before)
    budget = settings.time_budget_s
    seconds_left = None if budget is None else budget - progress.seconds().get(SECONDS[settings.stage], 0.0)
    began = time.monotonic()
    if left and not watch.stop_all() and (seconds_left is None or seconds_left > 0):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, work=work), resources.per_worker),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the searcher says when there is none left
                search_alg=search,
                # Every trial of a study goes to its end, whatever it reaches on the way.
                scheduler=None if space.variants else ReferenceSafeASHA(settings.fixed, before),
                # Without a number here the searcher is asked for one trial at a time, and an autoscaler sees one.
                max_concurrent_trials=resources.workers(settings.concurrent),
                reuse_actors=True,
                time_budget_s=seconds_left,
                trial_name_creator=name_trial,
                trial_dirname_creator=name_trial,
            ),
            run_config=tune.RunConfig(
                name=settings.tune_name,
                storage_path=settings.tune_folder,
                callbacks=[SearchLedger(search, watch, lambda: progress.spend(SECONDS[settings.stage])), *callbacks],
                stop=watch,
                # A trial keeps its own checkpoint, and goes on from it.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=LOST_PROCESSES),
                verbose=0,
            ),
        )
        tuner.fit()
    out_of_time = seconds_left is not None and time.monotonic() - began >= seconds_left
    if out_of_time:
        search.end_unfinished("the time budget")
    ended = read_trials(search.study, space, settings.stage)
    # Tune's `fit` returns from a signal as if all were well.
    interrupted = len(ended) < trials and not out_of_time and not watch.stop_all()
    return SearchOutcome(ended, watch.halted, watch.hopeless, interrupted)


def _failure(trial: FrozenTrial) -> str | None:
    """Return why a trial failed, if it did."""
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
