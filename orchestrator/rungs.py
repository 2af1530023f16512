"""The scheduler: ASHA, which stops the hopeless, with rungs that outlive the process. RAY.md, "Killing the driver".

Tune does not restore ASHA's rungs. They follow from what was reported, and all that was reported is in the study: so a
new scheduler is told it again.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import ASHAScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from orchestrator.searcher import METRIC, ended_as_planned

__all__ = ["REFERENCE_TRIAL", "ReferenceSafeASHA"]

_NO_CONTROLLER: Any = None  # ASHA never looks at it

REFERENCE_TRIAL = 0
"""Number of the trial that runs the paper's, or our reference, setting."""


class ReferenceSafeASHA(ASHAScheduler):
    """ASHA that counts the reference trial but never stops it: every sweep must say whether it beat the paper's."""

    def __init__(self, fixed: Mapping[str, Any], before: list[FrozenTrial]) -> None:
        """Take the rungs from a space's fixed values, and fill them from the trials of a study that went before.

        Trials that have not ended fill theirs when they go on.
        """
        super().__init__(
            time_attr="iteration",
            metric=METRIC,
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
                last = self._tell(stand_in, trial)
                super().on_trial_complete(_NO_CONTROLLER, stand_in, last)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take a trial on, with what it reported before if it is one that goes on."""
        super().on_trial_add(tune_controller, trial)
        before = self._unfinished.pop(trial.config["trial_number"], None)
        if before is not None:
            self._tell(trial, before)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on after a rung."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        unfinished = not ended_as_planned(result, self._max_t)
        if decision == TrialScheduler.STOP and unfinished and trial.config["trial_number"] == REFERENCE_TRIAL:
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Count a trial's last rung; the last words of settings that failed are none."""
        if "failed" in result or "halted" in result:
            super().on_trial_remove(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, result)

    def _tell(self, trial: Any, before: FrozenTrial) -> dict[str, Any]:
        """Fill the rungs with what a trial reported; returns the last of it."""
        result: dict[str, Any] = {}
        for iteration, accuracy in sorted(before.intermediate_values.items()):
            result = {"iteration": iteration, METRIC: accuracy}
            super().on_trial_result(_NO_CONTROLLER, trial, result)  # it was decided on then
        return result
