"""When a sweep is finished: what its result.json says, and how much time its search has now."""

from pathlib import Path

import pytest

from orchestrator.results.result_json import finished_result, trials_left, write_result
from orchestrator.state.settings import SweepSettings
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings


def settings_with(folder: Path, budget_s: float | None) -> SweepSettings:
    space = load("digits").override({"trials": 6})
    settings = sweep_settings(space=space, workdir=Workdir(folder), time_budget_s=budget_s)
    settings.places.folder.mkdir(parents=True, exist_ok=True)
    return settings


@pytest.mark.parametrize(
    ("budget_s", "trials", "continues"),
    [
        (60, {"finished": 2, "pruned": 1, "failed": 1, "paused": 1}, False),  # nothing of the budget is left
        (61, {"finished": 2, "pruned": 1, "failed": 1, "paused": 1}, True),
        (None, {"finished": 2, "pruned": 1, "failed": 1, "paused": 1}, True),
        (61, {"finished": 2, "pruned": 1, "failed": 1, "paused": 0}, True),  # two have not begun
        (61, {"finished": 4, "pruned": 1, "failed": 1, "paused": 0}, False),
    ],
)
def test_a_search_that_its_budget_ended_continues_with_a_larger_one(
    tmp_path: Path, budget_s: float | None, trials: dict[str, int], continues: bool
) -> None:
    settings = settings_with(tmp_path, budget_s)
    result = {"status": "finished", "trials": trials, "seconds": {"search": 60.5, "total": 99.0}}
    write_result(settings, result)
    assert finished_result(settings) == (None if continues else result)
    assert trials_left(settings, result) == 6 - sum(trials.values()) + trials["paused"]


def test_what_is_not_finished_is_no_result(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, None)
    assert finished_result(settings) is None
    write_result(settings, {"status": "stopped", "trials": {}, "seconds": {}})
    assert finished_result(settings) is None
