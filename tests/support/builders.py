"""Builders of the records that many tests need: a test names the fields that it is about."""

from pathlib import Path
from typing import Any

from orchestrator.results.trials import TrialRecord
from orchestrator.state.settings import SweepSettings
from orchestrator.state.workdir import Workdir
from search_spaces import load


def trial_record(number: int = 0, **changed: Any) -> TrialRecord:
    """Build the record of a trial that finished after a second; `changed` are fields of `TrialRecord`."""
    values: dict[str, Any] = {"status": "finished", "settings": {}, "rungs": {}, "seconds": 1.0, "reason": ""}
    return TrialRecord(number=number, **{**values, **changed})


def sweep_settings(**changed: Any) -> SweepSettings:
    """Build the settings of a sweep over the digits; `changed` are fields of `SweepSettings`.

    The workdir is a folder that does not exist, for tests that write nothing.
    """
    values: dict[str, Any] = {"space": load("digits"), "name": "a", "seed": 0, "workdir": Workdir(Path("none"))}
    return SweepSettings(**{**values, **changed})
