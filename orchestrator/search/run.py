"""The search: Optuna proposes, Ray Tune runs, ASHA stops weak trials. docs/ray.md, "Tune".

This module alone configures Tune; it keeps no state. Proposals, reports and ends of trials are in the study, distilled
images are in the trials' checkpoints, so an interrupted search is resumed by running it again.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")  # its snapshots are never read, and take 11 kB a trial

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray import tune

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.signals import ends_by_signal
from orchestrator.errors import ClusterError
from orchestrator.results.trials import TrialRecord, trial_name
from orchestrator.search.proposals import StudySearch
from orchestrator.search.scheduler import ReferenceSafeASHA
from orchestrator.search.tune_errors import losses_known_to_tune
from orchestrator.search.watch import RESTARTS, Furthest, SearchLedger, SearchWatch
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import SEARCH, seconds_key
from search_spaces import Space
from trainables.workers.trial import DistillationTrial
from trainables.workers.workbench import TrialWork

__all__ = ["SearchOutcome", "read_trials", "run_search"]

_STATUS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_REASONS = {"paused": "the time budget ended"}


@dataclass(frozen=True)
class SearchOutcome:
    """The outcome of a search."""

    trials: list[TrialRecord]
    """Trials that have ended, by number; if the time budget has ended, also those that it paused."""
    halted: str | None
    """Why no trial could continue, though its settings are valid; None if none was halted."""
    hopeless: str | None
    """The error of all trials, for which the search was given up; else None."""
    interrupted: bool
    """Whether the search was stopped by a signal."""


def run_search(
    settings: SweepSettings,
    resources: Resources,
    work: TrialWork,
    progress: Progress,
    callbacks: Sequence[tune.Callback],
    patience: Patience,
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
        patience: Decides when trials whose process was lost continue, and how many run at once.
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

    def open_search() -> StudySearch:
        return StudySearch(
            space,
            study=settings.places.study_name,
            storage=settings.places.study_storage,
            seed=settings.seed,
            trials=trials,
            iterations=settings.fixed["iterations"],
            at_once=lambda: patience.workers(workers),
            written=push,
            halt=halt,
        )

    def make_tuner(search: StudySearch, watch: SearchWatch, before: list[FrozenTrial]) -> tune.Tuner:
        """Return a round of Tune, which starts with the unfinished trials of the study."""
        spend = partial(progress.spend, seconds_key(settings.stage))
        return tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, work=work), resources.per_worker),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the searcher reports when no trial is left
                search_alg=search,
                # No trial of a grid is stopped early, whatever its accuracy.
                scheduler=None if space.is_grid else ReferenceSafeASHA(settings.fixed, before),
                # Without a limit Tune asks for one trial at a time, and an autoscaler sees the demand of one.
                max_concurrent_trials=workers,
                reuse_actors=True,
                time_budget_s=None if seconds_left is None else began + seconds_left - time.monotonic(),
                trial_name_creator=name_trial,
                trial_dirname_creator=name_trial,
            ),
            run_config=tune.RunConfig(
                name=settings.places.tune_name,
                storage_path=settings.places.tune_folder,
                callbacks=[SearchLedger(search, watch, spend, patience, furthest), *callbacks],
                stop=watch,
                # A trial writes its own checkpoint and resumes from it.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                verbose=0,
            ),
        )

    def run_round(search: StudySearch, watch: SearchWatch, before: list[FrozenTrial]) -> bool:
        """Run a round of Tune, and return whether a signal ended it."""
        try:
            return ends_by_signal(make_tuner(search, watch, before).fit)
        except Exception as error:
            if (cause := _cluster_error(error)) is None:
                raise
            halt(str(cause))
            return False

    workers, furthest = resources.workers(settings.concurrent), Furthest(settings.places.checkpoints)
    search = open_search()
    before = search.study.get_trials(deepcopy=False)
    watch = SearchWatch(before)
    left = trials - sum(trial.state.is_finished() for trial in before)
    budget = settings.time_budget_s
    seconds_left = None if budget is None else budget - progress.seconds().get(seconds_key(settings.stage), 0.0)
    began = time.monotonic()
    if left and not watch.given_up and (seconds_left is None or seconds_left > 0):
        add_ended(read_trials(before, space, settings.stage))
        with losses_known_to_tune():
            while not run_round(search, watch, before) and watch.pausing and not watch.given_up:
                try:
                    patience.wait()
                except KeyboardInterrupt:  # like Tune's `fit`, which returns normally after a signal
                    break
                if seconds_left is not None and time.monotonic() - began >= seconds_left:
                    break
                search = open_search()
                before = search.study.get_trials(deepcopy=False)
                watch = SearchWatch(before)
    out_of_time = seconds_left is not None and time.monotonic() - began >= seconds_left
    if out_of_time:
        search.pause()
    records = read_trials(
        search.study.get_trials(deepcopy=False), space, settings.stage, running="paused" if out_of_time else None
    )
    # Tune's `fit` returns normally after a signal.
    interrupted = len(records) < trials and not out_of_time and not watch.given_up
    return SearchOutcome(records, watch.halted, watch.hopeless, interrupted)


def _cluster_error(error: BaseException | None) -> ClusterError | None:
    """Return the ClusterError that a callback raised in Tune, which raises an error of its own in its place."""
    while error is not None and not isinstance(error, ClusterError):
        error = error.__cause__ or error.__context__
    return error


def read_trials(
    trials: Iterable[FrozenTrial], space: Space, stage: str = SEARCH, *, running: str | None = None
) -> list[TrialRecord]:
    """Return the trials of a stage's study that have ended, and on request the unfinished ones, in their order.

    Args:
        trials: Trials of the study.
        space: The stage's space.
        stage: The stage.
        running: The status of unfinished trials: paused or unfinished; None: they are left out. A trial whose proposal
            is incomplete is left out too.
    """
    statuses = _STATUS if running is None else {**_STATUS, TrialState.RUNNING: running}
    return [
        TrialRecord(
            number=trial.number,
            status=trial.user_attrs.get("outcome", statuses[trial.state]),
            settings=space.resolve(trial.params),
            rungs=dict(sorted(trial.intermediate_values.items())),
            seconds=float(trial.user_attrs.get("seconds", 0.0)),
            reason=trial.user_attrs.get("reason", _REASONS.get(statuses[trial.state], "")),
            measures=trial.user_attrs.get("measures", {}),
            stage=stage,
        )
        for trial in trials
        if trial.state in statuses and (trial.state.is_finished() or trial.params.keys() == space.first().keys())
    ]
