"""The search: Optuna proposes, Ray Tune runs, ASHA stops weak trials. docs/ray.md, "Tune".

This module alone configures Tune; it keeps no state. Proposals, reports and ends of trials are in the study, distilled
images are in the trials' checkpoints, so an interrupted search is resumed by running it again.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")  # its snapshots are never read, and take 11 kB a trial

import optuna
from ray import tune

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.signals import ends_by_signal
from orchestrator.errors import ClusterError
from orchestrator.results.trials import TrialRecord, trial_name
from orchestrator.search.kept_trials import read_trials
from orchestrator.search.outcome import SearchOutcome
from orchestrator.search.proposals import StudySearch
from orchestrator.search.scheduler import ReferenceSafeASHA
from orchestrator.search.tune_errors import losses_known_to_tune
from orchestrator.search.watch import RESTARTS, Furthest, SearchLedger, SearchWatch
from orchestrator.state.progress import Progress
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import seconds_key
from trainables.workers.trial import DistillationTrial
from trainables.workers.workbench import TrialWork

__all__ = ["run_search"]


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Tune would print the traceback of every failed trial; it is in the trial's error.txt, and the view says so.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    search = _Search(
        settings=settings, resources=resources, patience=patience, callbacks=callbacks, written=written,
        trainable=tune.with_parameters(trainable, work=work),
        spend=partial(progress.spend, seconds_key(settings.stage)),
        furthest=Furthest(settings.places.checkpoints),
        ends=time.monotonic() + _seconds_left(settings, progress),
    )  # fmt: skip
    current = _Round(search)
    if current.left and not current.watch.given_up and not search.out_of_time():
        add_ended(read_trials(current.before, settings.space, settings.stage))
        with losses_known_to_tune():
            while not current.run() and current.watch.pausing and not current.watch.given_up:
                try:
                    patience.wait()
                except KeyboardInterrupt:  # like Tune's `fit`, which returns normally after a signal
                    break
                if search.out_of_time():
                    break
                current = _Round(search)
    return current.outcome()


def _seconds_left(settings: SweepSettings, progress: Progress) -> float:
    """Return the seconds that the time budget leaves for a stage; infinity without a budget."""
    budget_s = settings.time_budget_s
    return math.inf if budget_s is None else budget_s - progress.seconds().get(seconds_key(settings.stage), 0.0)


@dataclass(frozen=True, kw_only=True)
class _Search:
    """What all rounds of a search share; see `run_search`."""

    settings: SweepSettings
    resources: Resources
    patience: Patience
    callbacks: Sequence[tune.Callback]
    written: Callable[[], None]
    trainable: Any
    """The class of a trial, with its work, as Tune takes it."""
    spend: Callable[[], None]
    """Adds the time since its last call."""
    furthest: Furthest
    ends: float
    """When the time budget ends, on the monotonic clock in seconds; infinity without a budget."""

    @property
    def workers(self) -> int:
        """Trials at once, unless the patience has lowered them."""
        return self.resources.workers(self.settings.concurrent)

    def out_of_time(self) -> bool:
        """Whether the time budget has ended."""
        return time.monotonic() >= self.ends


class _Round:
    """A round of Tune, which starts with the unfinished trials of the study."""

    def __init__(self, search: _Search) -> None:
        """Open the study.

        Raises:
            ClusterError: The database does not work.
        """
        self._search = search
        self.watch = SearchWatch()
        settings = search.settings
        self._study = StudySearch(
            settings.space,
            study=settings.places.study_name,
            storage=settings.places.study_storage,
            seed=settings.seed,
            trials=settings.fixed["trials"],
            iterations=settings.fixed["iterations"],
            at_once=lambda: search.patience.workers(search.workers),
            written=self._push,
            halt=self.watch.halt,
        )
        self.before = self._study.study.get_trials(deepcopy=False)
        """The trials of earlier rounds and drivers."""
        self.watch.note_earlier(self.before)

    @property
    def left(self) -> int:
        """Number of trials that had not ended before."""
        return int(self._search.settings.fixed["trials"]) - sum(trial.state.is_finished() for trial in self.before)

    def run(self) -> bool:
        """Run until no trial is left or all are to pause, and return whether a signal ended the round."""
        try:
            return ends_by_signal(self._tuner().fit)
        except Exception as error:
            if (cause := _cluster_error(error)) is None:
                raise
            self.watch.halt(str(cause))
            return False

    def outcome(self) -> SearchOutcome:
        """Return the outcome of the search if this is its last round."""
        settings, out_of_time = self._search.settings, self._search.out_of_time()
        if out_of_time:
            self._study.pause()
        records = read_trials(
            self._study.study.get_trials(deepcopy=False), settings.space, settings.stage,
            running="paused" if out_of_time else None,
        )  # fmt: skip
        # Tune's `fit` returns normally after a signal.
        interrupted = len(records) < settings.fixed["trials"] and not out_of_time and not self.watch.given_up
        return SearchOutcome(records, self.watch.halted, self.watch.hopeless, interrupted)

    def _tuner(self) -> tune.Tuner:
        search, settings = self._search, self._search.settings
        name_trial = partial(_name_trial, settings.stage)
        return tune.Tuner(
            tune.with_resources(search.trainable, search.resources.per_worker),
            tune_config=tune.TuneConfig(
                num_samples=-1,  # the searcher reports when no trial is left
                search_alg=self._study,
                # No trial of a grid is stopped early, whatever its accuracy.
                scheduler=None if settings.space.is_grid else ReferenceSafeASHA(settings.fixed, self.before),
                # Without a limit Tune asks for one trial at a time, and an autoscaler sees the demand of one.
                max_concurrent_trials=search.workers,
                reuse_actors=True,
                time_budget_s=None if math.isinf(search.ends) else search.ends - time.monotonic(),
                trial_name_creator=name_trial,
                trial_dirname_creator=name_trial,
            ),
            run_config=tune.RunConfig(
                name=settings.places.tune_name,
                storage_path=settings.places.tune_folder,
                callbacks=[
                    SearchLedger(self._study, self.watch, search.spend, search.patience, search.furthest),
                    *search.callbacks,
                ],
                stop=self.watch,
                # A trial writes its own checkpoint and resumes from it.
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                verbose=0,
            ),
        )

    def _push(self) -> None:
        """Call `written`; after its error no trial continues. Tune would take a raised error for the trial's."""
        try:
            self._search.written()
        except ClusterError as error:
            self.watch.halt(str(error))


def _name_trial(stage: str, trial: Any) -> str:
    """Return a trial's name; Tune pickles this function, so it holds no round."""
    return trial_name(trial.config["trial_number"], stage)


def _cluster_error(error: BaseException | None) -> ClusterError | None:
    """Return the ClusterError that a callback raised in Tune, which raises an error of its own in its place."""
    while error is not None and not isinstance(error, ClusterError):
        error = error.__cause__ or error.__context__
    return error
