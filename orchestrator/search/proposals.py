"""The proposals: Optuna's study as Ray Tune's searcher. docs/ray.md, "Optuna".

The study in its database holds the whole state of a search: proposals, reports and how trials ended. Tune and this
process keep nothing, so a search resumes when its study is opened: first the unfinished trials, then new ones.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from orchestrator.errors import ClusterError
from orchestrator.search.database import open_storage
from orchestrator.search.storage import OwnStudyStorage
from search_spaces import Space
from trainables.seeding import seed_of
from trainables.workers.rung import Halted, RungResult, SettingsFailed

__all__ = ["StudySearch"]


class NamedTPE(BaseSampler):
    """Optuna's TPE, whose random choices for a trial follow from the sweep's seed and the trial's number.

    A trial's proposal so depends on the trials before it, and not on the state of a process that may have died.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        """Draw the first `startup_trials` trials at random."""
        self._seed = seed
        self._startup_trials = startup_trials
        self._space = self._tpe()  # keeps the search space that all trials have in common

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are drawn together."""
        return self._space.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a trial's parameters together."""
        return self._tpe(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one of a trial's parameters."""
        return self._tpe(trial.number, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _tpe(self, *name: int | str) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                seed=seed_of(self._seed, "proposal", *name) % 2**32,  # NumPy's seeds have 32 bits
                multivariate=True,
                constant_liar=True,
                n_startup_trials=self._startup_trials,
            )


class StudySearch(Searcher):
    """Draws a space's settings, and records in the study whether trials were complete, pruned or failed."""

    def __init__(
        self,
        space: Space,
        *,
        study: str,
        storage: str,
        seed: int,
        trials: int,
        iterations: int,
        at_once: Callable[[], int] | None = None,
        written: Callable[[], None] = lambda: None,
        halt: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Open or create the study, and enqueue once the points that run before any proposal.

        `at_once` returns how many trials may run now; None: all.
        `written` is called after each write to the study, before a trial continues. `halt` is called with the reason if
        the database fails: a trial whose report or end is not recorded resumes from its checkpoint in a later driver,
        and reports it again. Tune would take a raised error for the trial's.

        Raises:
            ClusterError: The database does not work.
        """
        super().__init__(metric=RungResult.METRIC, mode="max")
        self._at_once, self._written, self._halt = at_once, written, halt
        self._halted = False
        self._space = space
        self._iterations = iterations
        self._storage = OwnStudyStorage(open_storage(storage))
        self.study = optuna.create_study(
            study_name=study,
            storage=self._storage,
            # All points of a grid are enqueued and none is drawn; TPE would fit its model at every point.
            sampler=optuna.samplers.RandomSampler(0)
            if space.is_grid
            else NamedTPE(seed, startup_trials=min(10, max(2, trials // 3))),
            pruner=optuna.pruners.NopPruner(),
            direction="maximize",
            load_if_exists=True,
        )
        for point in space.points():
            self.study.enqueue_trial(point, skip_if_exists=True)
        begun = [trial for trial in self.study.get_trials() if trial.state != TrialState.WAITING]
        self._new = trials - len(begun)  # Tune keeps asking for proposals, also after the last one
        self._unfinished: list[FrozenTrial | optuna.Trial] = [
            trial for trial in begun if trial.state == TrialState.RUNNING
        ]
        self._trials: dict[str, optuna.Trial] = {}
        self._last: dict[int, RungResult] = {}
        """The last rung of each running trial, by its number."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the functions: Tune's snapshot, which is never read, cannot hold them."""
        functions = ("_at_once", "_written", "_halt")
        return {name: value for name, value in self.__dict__.items() if name not in functions}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a string
        """Return the number and the varied settings of an unfinished trial, or else of a new one.

        When all trials are assigned, this is None while a trial may still be requeued, and then `FINISHED`. It is None
        too while as many trials run as may.
        """
        if self._at_once is not None and len(self._trials) >= self._at_once():
            return None
        proposal: dict[str, Any] | str | None = Searcher.FINISHED
        if not self._halted:
            with self._halting():
                proposal = self._propose(trial_id)
        return proposal

    def _propose(self, trial_id: str) -> dict[str, Any] | str | None:
        trial = self._next_unfinished() or self._next_new()
        if trial is None:
            return None if self._trials else Searcher.FINISHED
        rest = self._space.draw(trial)  # parameters of an unfinished trial are not drawn again
        self._storage.write(trial._trial_id)
        self._trials[trial_id] = trial
        self._written()
        _, own = self._space.split({**trial.params, **rest})
        return {**own, "trial_number": trial.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report a rung under its distillation iteration; a rung that the study has is ignored."""
        if self._halted:
            return
        trial, rung = self._trials[trial_id], RungResult.from_report(result)
        self._last[trial.number] = rung
        with self._halting():
            if self._report(trial, rung):
                self._written()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record in the study how a trial ended: complete only if it did all its iterations.

        Settings that failed are recorded as pruned, with the reason: TPE avoids pruned settings and ignores failed
        ones. A halted trial has not ended. Errors are recorded by `fail`, which has the reason.
        """
        if error or not result or trial_id not in self._trials or self._halted:
            return
        rung = RungResult.from_report(result)
        if isinstance(rung.end, Halted):
            return
        trial = self._trials.pop(trial_id)
        self._last.pop(trial.number, None)
        with self._halting():
            self._record_end(trial, rung)

    def _record_end(self, trial: optuna.Trial, rung: RungResult) -> None:
        _note(trial, rung)
        if isinstance(rung.end, SettingsFailed):
            self._end(trial, TrialState.PRUNED, outcome="failed", reason=rung.end.reason)
            return
        self._report(trial, rung)
        if rung.finishes(self._iterations):
            self.study.tell(trial, rung.validation_accuracy)
            self._written()
        else:
            self._end(trial, TrialState.PRUNED, reason=f"stopped by ASHA at iteration {rung.iteration}")

    def fail(self, trial_id: str, reason: str) -> None:
        """Record in the study that a trial's process failed."""
        if self._halted:
            return
        trial = self._trials.pop(trial_id)
        self._last.pop(trial.number, None)
        with self._halting():
            self._end(trial, TrialState.FAIL, reason=reason)

    def requeue(self, trial_id: str) -> None:
        """Propose again a trial whose process was lost before the trial could begin."""
        self._unfinished.append(self._trials.pop(trial_id))

    def pause(self) -> None:
        """Record the time and the measures of the running trials; they stay unfinished, and a later search goes on."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.number in self._last:
                _note(optuna.Trial(self.study, frozen._trial_id), self._last[frozen.number])
        self._written()

    def save(self, checkpoint_path: str) -> None:
        """Write the file that Tune expects; the search's state is in the study."""
        Path(checkpoint_path).write_text(f"study {self.study.study_name}\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a search is resumed by opening its study again."""
        raise NotImplementedError("open the study again to resume the search")

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """Halt the search if the database fails; from then on it is not called, because every call would wait."""
        try:
            yield
        except ClusterError as error:
            self._halted = True
            self._halt(str(error))

    def _next_unfinished(self) -> optuna.Trial | None:
        return optuna.Trial(self.study, self._unfinished.pop(0)._trial_id) if self._unfinished else None

    def _next_new(self) -> optuna.Trial | None:
        if self._new <= 0:
            return None
        self._new -= 1
        return self.study.ask()

    def _end(self, trial: optuna.Trial, state: TrialState, **facts: str) -> None:
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, state=state)
        self._written()

    def _report(self, trial: optuna.Trial, rung: RungResult) -> bool:
        """Report a rung unless the study has it, and return whether it was reported."""
        if rung.iteration in trial.storage.get_trial(trial._trial_id).intermediate_values:
            return False
        trial.report(rung.validation_accuracy, rung.iteration)
        return True


def _note(trial: optuna.Trial, rung: RungResult) -> None:
    """Record a trial's time and its measures at its last rung."""
    trial.set_user_attr("seconds", rung.trial_seconds)
    trial.set_user_attr("measures", rung.kept)
