"""The trials that a stage's study keeps, read while the stage runs and after it."""

from pathlib import Path

import optuna
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from orchestrator.results.trials import TrialRecord
from orchestrator.search.database import open_storage
from orchestrator.search.run import read_trials
from orchestrator.state.settings import SweepSettings

__all__ = ["KeptTrials"]


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
