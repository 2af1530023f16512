"""A study in memory whose every change is written to its database: a search reads its own writes without SQL.

Optuna's own cache reads unfinished trials from the database each time, which was half of what a result cost the driver.
A study has one writer, the sweep's driver, so that its memory is never behind the database.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.errors import ClusterError

__all__ = ["OwnStudyStorage"]


class OwnStudyStorage(InMemoryStorage):
    """Holds one study, read from the database when it is opened; only this process writes the study.

    A new trial is written when its proposal is complete, by `write`: in one transaction, and not one per parameter. All
    later changes, and trials that are enqueued, are written at once, first to the database and then to memory.
    """

    def __init__(self, database: RDBStorage) -> None:
        """Use a database; the study is opened by `optuna.create_study`."""
        super().__init__()
        self._database: BaseStorage = optuna.storages.get_storage(database)
        self._written: dict[int, int] = {}
        """Ids of trials in the database, by their ids in memory."""
        self._study = -1  # the study's id in the database

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create the study, or read it if the database has it."""
        study_id = super().create_new_study(directions, study_name)
        name = self.get_study_name_from_id(study_id)
        try:
            self._study = self._database.create_new_study(directions, name)
        except DuplicatedStudyError:
            self._study = self._database.get_study_id_from_name(name)
        for key, value in self._database.get_study_user_attrs(self._study).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in self._database.get_study_system_attrs(self._study).items():
            super().set_study_system_attr(study_id, key, value)
        for trial in self._database.get_all_trials(self._study, deepcopy=False):
            self._written[super().create_new_trial(study_id, trial)] = trial._trial_id
        return study_id

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of the study."""
        self._database.set_study_user_attr(self._study, key, value)
        super().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of the study, of Optuna's own."""
        self._database.set_study_system_attr(self._study, key, value)
        super().set_study_system_attr(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial, in memory alone if it has no template; see `write`."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None:
            self.write(trial_id)
        return trial_id

    def write(self, trial_id: int) -> None:
        """Write a trial to the database, unless it has the trial.

        Raises:
            ClusterError: Another process has written the study.
        """
        if trial_id in self._written:
            return
        trial = self.get_trial(trial_id)
        written = self._database.create_new_trial(self._study, trial)
        if (number := self._database.get_trial_number_from_id(written)) != trial.number:
            raise ClusterError(
                f"another process writes the study {self.get_study_name_from_id(0)!r}: it has a trial {number}; end it"
            )
        self._written[trial_id] = written

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter."""
        if trial_id in self._written:
            self._database.set_trial_param(self._written[trial_id], param_name, param_value_internal, distribution)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set the state and the value."""
        self.write(trial_id)
        self._database.set_trial_state_values(self._written[trial_id], state, values)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the value at a step."""
        self.write(trial_id)
        self._database.set_trial_intermediate_value(self._written[trial_id], step, intermediate_value)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute."""
        self.write(trial_id)
        self._database.set_trial_user_attr(self._written[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's own."""
        if trial_id in self._written:
            self._database.set_trial_system_attr(self._written[trial_id], key, value)
        super().set_trial_system_attr(trial_id, key, value)
