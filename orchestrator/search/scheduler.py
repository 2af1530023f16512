"""The scheduler: ASHA, which stops weak trials, with rungs that outlive the process. docs/ray.md, "Tune".

Tune does not restore ASHA's rungs. They follow from the reported accuracies, and the study has all of those, so a new
scheduler fills its rungs from the study.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import ASHAScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from orchestrator.results.trials import REFERENCE_TRIAL
from trainables.workers.rung import RungResult

__all__ = ["ReferenceSafeASHA"]

_NO_CONTROLLER: Any = None  # ASHA does not use it


class ReferenceSafeASHA(ASHAScheduler):
    """ASHA that counts the reference trial but never stops it: every sweep compares its winner with that trial."""

    def __init__(self, fixed: Mapping[str, Any], before: list[FrozenTrial]) -> None:
        """Take the rungs from a space's fixed values, and fill them from the trials that ended under earlier drivers.

        The rungs of an unfinished trial are filled when it resumes.
        """
        super().__init__(
            time_attr=RungResult.TIME,
            metric=RungResult.METRIC,
            mode="max",
            max_t=fixed["iterations"],
            grace_period=fixed["first_rung_iterations"],
            reduction_factor=fixed["reduction_factor"],
        )
        self._unfinished = {trial.number: trial for trial in before if trial.state == TrialState.RUNNING}
        for trial in before:
            if trial.state.is_finished() and trial.intermediate_values:
                stand_in: Any = SimpleNamespace(trial_id=f"before-{trial.number}")
                super().on_trial_add(_NO_CONTROLLER, stand_in)
                last = self._refill(stand_in, trial)
                super().on_trial_complete(_NO_CONTROLLER, stand_in, last)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial, with its earlier reports if it resumes."""
        super().on_trial_add(tune_controller, trial)
        before = self._unfinished.pop(trial.config["trial_number"], None)
        if before is not None:
            self._refill(trial, before)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial continues after a rung."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        unfinished = not RungResult.from_report(result).finishes(self._max_t)
        if decision == TrialScheduler.STOP and unfinished and trial.config["trial_number"] == REFERENCE_TRIAL:
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Count a trial's last rung, unless its last report is a failure or a halt."""
        if RungResult.from_report(result).end is None:
            super().on_trial_complete(tune_controller, trial, result)
        else:
            super().on_trial_remove(tune_controller, trial)

    def _refill(self, trial: Any, before: FrozenTrial) -> dict[str, Any]:
        """Fill the rungs with a trial's earlier reports, and return the last of them."""
        result: dict[str, Any] = {}
        for iteration, accuracy in sorted(before.intermediate_values.items()):
            result = RungResult(iteration=iteration, validation_accuracy=accuracy).to_report()
            super().on_trial_result(_NO_CONTROLLER, trial, result)  # the decision was made then
        return result
