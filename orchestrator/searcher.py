"""The proposals: Optuna's study as Ray Tune's searcher. RAY.md, "Tune with OptunaSearch".

The study in its database is all there is to know: what was proposed, reported and how it ended. Nothing of a search is
kept in Tune or in this process, so whoever opens the study goes on with it: first with the trials that had not ended.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from orchestrator.study_storage import open_storage
from search_spaces import Space
from trainables.seeding import seed_of

__all__ = ["MEASURES", "METRIC", "StudySearch", "ended_as_planned"]

METRIC = "validation_accuracy"
MEASURES = (
    "matching_loss", "distribution_loss", "gradient_loss", "alpha", "skip_rate", "image_displacement",
    "label_inconsistency",
)  # fmt: skip
"""What the study keeps of a trial's last rung besides its accuracy, as far as it was reported."""


class NamedTPE(BaseSampler):
    """Optuna's TPE, whose random choices for a trial are named by the sweep's seed and the trial's number.

    So a trial's proposal depends on the trials before it, and on nothing that a dead process took with it.
    """

    def __init__(self, seed: int, startup_trials: int) -> None:
        """Draw the first `startup_trials` trials at random."""
        self._seed = seed
        self._startup_trials = startup_trials
        self._space = self._tpe()  # knows what all trials have in common

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is drawn together."""
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
                seed=seed_of(self._seed, "proposal", *name) % 2**32,  # NumPy takes no longer one
                multivariate=True,
                constant_liar=True,
                n_startup_trials=self._startup_trials,
            )


class StudySearch(Searcher):
    """A space's own draw function over a study that tells pruned from complete and from failed."""

    def __init__(
        self,
        space: Space,
        *,
        study: str,
        storage: str,
        seed: int,
        trials: int,
        iterations: int,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        """Open or create the study; what is to run before anything is proposed is enqueued once.

        `written` is called when something was written into the study, before a trial goes on.
        """
        super().__init__(metric=METRIC, mode="max")
        self._written = written
        self._space = space
        self._iterations = iterations
        self.study = optuna.create_study(
            study_name=study,
            storage=open_storage(storage),
            # A study's points are all enqueued, and nothing is drawn; TPE would model them at every one of them.
            sampler=optuna.samplers.RandomSampler(0)
            if space.variants
            else NamedTPE(seed, startup_trials=min(10, max(2, trials // 3))),
            pruner=optuna.pruners.NopPruner(),
            direction="maximize",
            load_if_exists=True,
        )
        for point in space.points():
            self.study.enqueue_trial(point, skip_if_exists=True)
        begun = [trial for trial in self.study.get_trials() if trial.state != TrialState.WAITING]
        self._new = trials - len(begun)  # Tune asks for proposals all the time, also when there are none
        self._unfinished: list[FrozenTrial | optuna.Trial] = [
            trial for trial in begun if trial.state == TrialState.RUNNING
        ]
        self._trials: dict[str, optuna.Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override] # FINISHED is a word
        """Return the settings of a trial that had not ended, or of a new one, with its number among them.

        When all trials are given out it is None while one may still come back, and then `FINISHED`.
        """
        trial = self._next_unfinished() or self._next_new()
        if trial is None:
            return None if self._trials else Searcher.FINISHED
        rest = self._space.draw(trial)  # a parameter that was drawn before is not drawn again
        self._trials[trial_id] = trial
        self._written()
        return {**trial.params, **rest, "trial_number": trial.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report a rung under its distillation iteration; one that is known already changes nothing."""
        trial = self._trials[trial_id]
        if result["iteration"] not in self._reported(trial):
            trial.report(result[METRIC], result["iteration"])
            self._written()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended: complete only if it did all its iterations.

        Settings that failed are told as pruned, with the reason: TPE keeps away from what was pruned and never looks at
        what failed. A trial that was halted has not ended. Of an error `fail` tells, which is given the reason.
        """
        if error or not result or "halted" in result or trial_id not in self._trials:
            return
        trial = self._trials.pop(trial_id)
        trial.set_user_attr("seconds", result["trial_seconds"])
        trial.set_user_attr("measures", {name: result[name] for name in MEASURES if name in result})
        if "failed" in result:
            self._end(trial, TrialState.PRUNED, outcome="failed", reason=result["failed"])
            return
        if result["iteration"] not in self._reported(trial):
            trial.report(result[METRIC], result["iteration"])
        if ended_as_planned(result, self._iterations):
            self.study.tell(trial, result[METRIC])
            self._written()
        else:
            self._end(trial, TrialState.PRUNED, reason=f"stopped by ASHA at iteration {result['iteration']}")

    def fail(self, trial_id: str, reason: str) -> None:
        """Tell the study that a trial's process failed."""
        self._end(self._trials.pop(trial_id), TrialState.FAIL, reason=reason)

    def give_out_again(self, trial_id: str) -> None:
        """Propose a trial again whose process was lost before it could begin."""
        self._unfinished.append(self._trials.pop(trial_id))

    def end_unfinished(self, reason: str) -> None:
        """Tell the study that trials which are not to go on were stopped."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            last = max(frozen.intermediate_values, default=0)
            trial = optuna.Trial(self.study, frozen._trial_id)
            self._end(trial, TrialState.PRUNED, reason=f"stopped by {reason} at iteration {last}")

    def save(self, checkpoint_path: str) -> None:
        """Leave Tune a file to keep; the study is elsewhere."""
        Path(checkpoint_path).write_text(f"study {self.study.study_name}\n")

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a new search on the same study is how one goes on."""
        raise NotImplementedError("open the study again instead")

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

    def _reported(self, trial: optuna.Trial) -> dict[int, float]:
        return trial.storage.get_trial(trial._trial_id).intermediate_values


def ended_as_planned(result: dict[str, Any] | None, iterations: int) -> bool:
    """Say whether a trial's last result, if it has one, is that of its last iteration."""
    return bool(result and "failed" not in result and result.get("iteration", 0) >= iterations)
