"""`mdatm status`: sweeps in every state, what it says and gives as JSON, and that it disturbs no driver."""

import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.mdatm import main
from orchestrator.results.result_json import write_result
from orchestrator.state.lock import exclusive_lock, is_held
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.journal import Journal
from tests.support.builders import sweep_settings
from tests.support.processes import assert_refused, run
from tests.support.results import finished_result
from tests.support.unfinished import at_work, search_under_way


def status(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["status", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def facts(workdir: Path) -> dict[str, dict[str, Any]]:
    return {sweep["sweep"]: sweep for sweep in json.loads(status("--workdir", workdir, "--json"))}


@pytest.fixture
def five(tmp_path: Path) -> Any:
    """A workdir with a sweep in each of the five states; the running one's lock is held while the test runs."""
    for name in ("running", "killed", "stopped", "failed"):
        settings, bulletin = search_under_way(tmp_path, name)
        bulletin.begin("search", unit="trials", total=12)
        bulletin.follow(at_work)
        bulletin.write()
        if name in ("stopped", "failed"):
            bulletin.end(name, ValueError("the disk of /data/[a] is full"))
    Journal(settings.places.folder / "journal").add("sweep", ("params", {"a": "1"}), ("params", {"b": "2"}))
    finished = sweep_settings(name="finished", workdir=Workdir(tmp_path))
    write_settings(finished)
    write_result(finished, {**finished_result(), "status": "finished"})
    with exclusive_lock(sweep_settings(name="running", workdir=Workdir(tmp_path)).places):
        yield tmp_path


class TestFive:
    def test_each_is_told_by_its_state(self, five: Path) -> None:
        assert {name: sweep["state"] for name, sweep in facts(five).items()} == {
            name: name for name in ("running", "killed", "stopped", "failed", "finished")
        }

    def test_the_running_one_says_stage_trials_best_speed_and_time_left(self, five: Path) -> None:
        said = status("running", "--workdir", five)
        for words in (
            "search, since", "3 of 12 trials", "running: trial-003 at 150 of 150 iterations",
            "3 of 12 have ended: 1 finished, 1 pruned, 1 failed",
            "trial-003: validation accuracy 0.800; reference (trial-000) 0.700", "12.5 iterations/s",
            f"python -m orchestrator.ui --workdir {five} --sweep running",
        ):  # fmt: skip
            assert words in said, said
        assert "of this stage" in said and "of the sweep" in said and "--resume" not in said

    @pytest.mark.parametrize("name", ["killed", "stopped", "failed"])
    def test_one_that_ended_before_its_time_says_how_to_go_on(self, five: Path, name: str) -> None:
        said = status(name, "--workdir", five)
        assert f"python -m orchestrator.sweep --resume {name} --workdir {five}" in said
        assert said.startswith(f"{name}: {name} ") and "iterations/s" not in said
        assert ("the disk of /data/[a] is full" in said) == (name != "killed")

    def test_what_waits_for_mlflow_is_counted_and_the_journal_is_left_as_it_is(self, five: Path) -> None:
        database = five / "sweeps" / "failed" / "journal" / "journal.db"
        assert facts(five)["failed"]["unsent"] == 2 and facts(five)["running"]["unsent"] is None
        assert "2 entries wait to be sent" in status("failed", "--workdir", five)
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT count(*) FROM entries").fetchone() == (2,)

    def test_the_finished_one_has_its_report_and_nothing_to_go_on_with(self, five: Path) -> None:
        said = status("finished", "--workdir", five)
        assert "test accuracy 0.900" in said and "report.html" in said and "--resume" not in said

    def test_all_of_them_are_listed(self, five: Path) -> None:
        said = status("--workdir", five)
        assert [line.partition(":")[0] for line in said.splitlines() if line and line[0] != " "] == [
            "failed", "finished", "killed", "running", "stopped",
        ]  # fmt: skip

    def test_one_that_cannot_be_read_does_not_hide_the_others(self, five: Path) -> None:
        (five / "sweeps" / "killed" / "result.json").write_text("{")
        (five / "sweeps" / "stopped" / "settings.json").write_text('{"version": 1}')
        said = status("--workdir", five)
        assert "killed: cannot be read" in said and "stopped: cannot be read" in said and "failed: failed" in said
        assert_refused(run("orchestrator.status", "killed", "--workdir", five), "result.json cannot be read", code=3)

    def test_watching_ends_when_nothing_runs(self, five: Path) -> None:
        assert "failed: failed" in status("failed", "--workdir", five, "--watch")


def test_a_sweep_that_starts_has_no_result_yet(tmp_path: Path) -> None:
    settings = sweep_settings(name="a", workdir=Workdir(tmp_path))
    write_settings(settings)
    with exclusive_lock(settings.places):
        assert facts(tmp_path)["a"]["state"] == "starting"
    assert facts(tmp_path)["a"]["state"] == "killed"


def test_nothing_to_show_is_one_line(tmp_path: Path) -> None:
    assert_refused(run("orchestrator.status", "--workdir", tmp_path), "there is no sweep in", "--workdir")
    assert_refused(run("orchestrator.status", "no", "--workdir", tmp_path), "no sweep named 'no'")
    assert_refused(run("orchestrator.status", "--watch", "--json", "--workdir", tmp_path), "--watch or --json")
    assert list(tmp_path.iterdir()) == []


def test_it_loads_neither_torch_nor_ray(five: Path) -> None:
    code = (
        "import sys; from orchestrator.status import main\n"
        f"main(['--workdir', {str(five)!r}], standalone_mode=False)\n"
        "print('HEAVY', *sorted({'torch', 'ray', 'mlflow', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "HEAVY", done.stdout + done.stderr


class TestAsking:
    """Whoever asks about the lock neither takes it from a driver nor waits for one."""

    def test_a_held_lock_is_held_and_a_free_one_is_not(self, tmp_path: Path) -> None:
        places = search_under_way(tmp_path, "a")[0].places
        assert not is_held(places)
        with exclusive_lock(places):
            assert is_held(places)
        assert not is_held(places)

    def test_a_driver_gets_the_lock_however_often_it_is_asked_about(self, tmp_path: Path) -> None:
        places, ended = search_under_way(tmp_path, "a")[0].places, threading.Event()

        def ask() -> None:
            while not ended.is_set():
                is_held(places)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for _ in range(20):
                with exclusive_lock(places):
                    pass
        finally:
            ended.set()
            asking.join()

    def test_a_folder_that_was_never_driven_stays_as_it_is(self, tmp_path: Path) -> None:
        places = search_under_way(tmp_path, "a")[0].places
        before = sorted(places.folder.iterdir())
        assert not is_held(places) and sorted(places.folder.iterdir()) == before
