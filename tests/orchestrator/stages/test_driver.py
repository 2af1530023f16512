"""What the command says of a sweep whose driver Ray has ended."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.results.result_json import stored_result
from orchestrator.stages.driver import close_lost
from orchestrator.state.lock import exclusive_lock
from tests.support.tracking import callback, children, opened, parents, trial
from tests.support.unfinished import search_under_way


def test_a_sweep_whose_driver_is_lost_has_failed_in_its_result_and_in_mlflow(tmp_path: Path) -> None:
    settings, bulletin = search_under_way(tmp_path, "a")
    bulletin.write()
    run = opened(settings.workdir, "a")
    callback(run).on_trial_start(0, [], trial(0))
    run.flush()
    close_lost(settings, "Ray ended the driver")
    stored = stored_result(settings)
    assert stored is not None
    assert (stored["status"], stored["under_way"]["reason"]) == ("failed", "Ray ended the driver")
    client = MlflowClient(run.tracking_uri)
    assert [parent.info.status for parent in parents(client, run)] == ["FAILED"]
    assert [child.info.status for child in children(client, run).values()] == ["KILLED"]


def test_a_sweep_that_another_driver_continues_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, bulletin = search_under_way(tmp_path, "a")
    bulletin.write()
    with exclusive_lock(settings.places):
        close_lost(settings, "Ray ended the driver")
    stored = stored_result(settings)
    assert stored is not None and stored["status"] == "running"
    assert "another process works on the sweep 'a'" in capsys.readouterr().out
