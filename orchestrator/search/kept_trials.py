"""The trials that a stage's study keeps, read while the stage runs and after it."""

from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from orchestrator.results.trials import TrialRecord
from orchestrator.search.database import open_storage
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import SEARCH
from search_spaces import Space

__all__ = ["KeptTrials", "read_trials"]

_STATUS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_REASONS = {"paused": "the time budget ended"}


class KeptTrials:
    """Reads the trials of a stage's study again and again; a trial that has ended is read once."""

    def __init__(self, settings: SweepSettings) -> None:
        """Take the settings of a stage; the database is opened at the first reading."""
        self._settings = settings
        self._study: optuna.Study | None = None
        self._ended: dict[int, TrialRecord] = {}

    def read(self) -> list[TrialRecord]:
        """Return the trials by number, unfinished ones too; none if the study does not exist yet.

        Raises:
            UserError: The database's driver is missing.
            ClusterError: The database does not answer.
        """
        study = self._open()
        if study is None:
            return []
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in self._ended]
        settings = self._settings
        new = read_trials(trials, settings.space, settings.stage, running="unfinished")
        running = {trial.number for trial in trials if trial.state == TrialState.RUNNING}
        self._ended |= {record.number: record for record in new if record.number not in running}
        unfinished = {record.number: record for record in new if record.number in running}
        return [record for _, record in sorted({**self._ended, **unfinished}.items())]

    def _open(self) -> optuna.Study | None:
        """Return the study; None if it does not exist yet: reading must not create a database."""
        places = self._settings.places
        if self._study is None and _exists(places.study_storage):
            storage = open_storage(places.study_storage)
            if places.study_name in optuna.get_all_study_names(storage):
                self._study = optuna.load_study(study_name=places.study_name, storage=storage)
        return self._study


def _exists(uri: str) -> bool:
    """Return whether a SQLite file exists; a server's database always does."""
    url = make_url(uri)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


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
