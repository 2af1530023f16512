"""The bulletin: result.json and trials.parquet are there from the start, follow the sweep, and outlive what ends it."""

import json
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.errors import Stopped
from orchestrator.results.result_json import finished_result, stored_result, write_result
from orchestrator.results.under_way import StageAtWork, UnderWay
from orchestrator.stages import bulletin as module
from orchestrator.stages.bulletin import Bulletin, mark_ended
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.steps import Steps
from tests.support.unfinished import at_work, search_under_way


def content(settings: SweepSettings) -> dict[str, Any]:
    result = stored_result(settings)
    assert result is not None
    return result


def test_it_is_there_from_the_start_and_says_what_is_done(tmp_path: Path) -> None:
    settings, bulletin = search_under_way(tmp_path, "a")
    with bulletin:
        assert content(settings)["status"] == "running" and content(settings)["under_way"]["stage"] == "start"
        bulletin.begin("search", unit="trials", total=12)
        bulletin.follow(at_work)
        bulletin.write()
        result = content(settings)
        assert finished_result(settings) is None
    assert result["trials"] == {"finished": 1, "pruned": 1, "failed": 1, "paused": 0}
    assert result["best"]["trial"] == "trial-003" and result["paper"]["trial"] == "trial-000"
    said = UnderWay.from_json(result["under_way"])
    assert (said.stage.name, said.stage.done, said.stage.total) == ("search", 3, 12)
    assert dict(said.stage.running) == {"trial-003": 150} and said.stage.seconds_left_in_all == 600.0
    assert said.begun <= said.stage.since <= said.written and said.to_json() == result["under_way"]
    rows = pq.read_table(settings.places.folder / "trials.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["finished", "pruned", "failed", "unfinished"]


def test_the_thread_follows_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    settings, bulletin = search_under_way(tmp_path, "a")
    looked = threading.Semaphore(0)

    def look(stage: StageAtWork) -> StageAtWork:
        looked.release()
        return at_work(stage)

    with bulletin:
        bulletin.begin("search", unit="trials", total=12)
        bulletin.follow(look)
        for _ in range(3):  # nobody else calls it
            assert looked.acquire(timeout=60)
    assert content(settings)["under_way"]["running"] == {"trial-003": 150}


def test_whatever_ends_the_sweep_is_said_with_what_had_ended(tmp_path: Path) -> None:
    for error, status in ((Stopped("stopped by hand;\nresume"), "stopped"), (ValueError("boom [red]"), "failed")):
        settings, bulletin = search_under_way(tmp_path, status)
        with pytest.raises(type(error)), bulletin:
            bulletin.begin("search", unit="trials", total=12)
            bulletin.follow(at_work)
            raise error
        bulletin.end(status, error)
        result = content(settings)
        assert result["status"] == status and sum(result["trials"].values()) == 3
        assert result["under_way"]["reason"] == " ".join(str(error).split())
        assert result["under_way"]["stage"] == "search" and result["under_way"]["running"] == {}


def test_results_that_cannot_be_read_at_the_end_are_those_that_were_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, known = search_under_way(tmp_path, "a")
    known.write()

    def fail(status: str, under_way: UnderWay) -> None:
        raise OSError("the database is locked")

    Bulletin(fail, settings).end("failed", RuntimeError("lost"))
    result = content(settings)
    assert result["status"] == "failed" and result["under_way"]["reason"] == "lost"
    assert sum(result["trials"].values()) == 3
    assert "the database is locked" in caplog.text


def test_a_finished_sweep_stays_finished(tmp_path: Path) -> None:
    settings, bulletin = search_under_way(tmp_path, "a")
    write_result(settings, {"status": "finished"})
    bulletin.end("failed", OSError("the URI does not answer"))
    assert content(settings) == {"status": "finished"}


def test_a_fault_of_the_thread_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.001)
    settings, _ = search_under_way(tmp_path, "a")
    calls = threading.Semaphore(0)

    def write(status: str, under_way: UnderWay) -> None:
        calls.release()
        if threading.current_thread() is not threading.main_thread():
            raise OSError("no space left")

    with Bulletin(write, settings):
        for _ in range(5):
            assert calls.acquire(timeout=60)
    assert [record.getMessage() for record in caplog.records] == [
        "result.json is not up to date (OSError: no space left)"
    ]


def test_steps_complete_their_stage(tmp_path: Path) -> None:
    settings, bulletin = search_under_way(tmp_path, "a")
    now_s = 0.0
    steps = Steps(40, clock=lambda: now_s)
    bulletin.begin("experts", unit="epochs")
    bulletin.count(steps)
    for now_s in (1.0, 2.0, 3.0, 4.0):
        steps.advance(int(5 * now_s))
    bulletin.write()
    said = json.loads(settings.places.result_file.read_text())["under_way"]
    assert (said["done"], said["total"], said["unit"]) == (20, 40, "epochs")
    assert said["rate"] == pytest.approx(5.0) and said["seconds_left"] == pytest.approx(4.0)


def test_the_end_of_the_sweep_is_told_in_every_stage(tmp_path: Path) -> None:
    settings, filled = search_under_way(tmp_path, "a")
    now_s = 0.0
    bulletin = Bulletin(filled._write, settings, clock=lambda: now_s)

    def told() -> float | None:
        bulletin.write()
        left: float | None = content(settings)["under_way"]["seconds_left_in_all"]
        return left

    steps = Steps(40, clock=lambda: now_s)
    bulletin.begin("experts", unit="epochs")
    assert told() is None
    bulletin.count(steps, later=3.0, overhead_s=20.0)
    now_s = 0.4
    steps.advance(2)
    assert told() is None
    for now_s in (1.0, 2.0, 3.0, 4.0):
        steps.advance(int(5 * now_s))
    assert told() == pytest.approx(4.0 + 3 * 8.0 + 20.0)
    bulletin.begin("search", unit="trials", total=12)  # nothing is known of its own speed yet
    now_s = 8.0
    assert told() == pytest.approx(44.0)
    bulletin.follow(at_work)
    assert told() == 600.0
    bulletin.begin("report")
    now_s = 108.0
    assert told() == pytest.approx(500.0)
    now_s = 700.0  # it should have ended
    assert told() is None


def test_a_driver_that_is_lost_leaves_what_it_knew_and_another_process_says_why(tmp_path: Path) -> None:
    settings, bulletin = search_under_way(tmp_path, "a")
    assert mark_ended(settings, "failed", "its raylet is gone") is None
    assert stored_result(settings) is None
    bulletin.write()
    known = content(settings)
    assert mark_ended(settings, "failed", "its raylet is gone") == known["under_way"]["written"]
    told = {**known["under_way"], "reason": "its raylet is gone"}
    assert content(settings) == {**known, "status": "failed", "under_way": told}
    assert mark_ended(settings, "stopped", "another reason") is None
