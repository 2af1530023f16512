"""The live view on consoles of fixed width: states, reasons, the best accuracy, and trials of an earlier driver."""

import io
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from orchestrator.results.trials import TrialRecord
from orchestrator.results.under_way import StageAtWork
from orchestrator.search.remaining import Later, StoppingRule
from orchestrator.search.status import SearchStatus, State
from orchestrator.search.view import SearchView
from tests.support.builders import trial_record
from tests.support.losses import lose_process
from trainables.storage.checkpoints import checkpoint_place, write_checkpoint
from trainables.workers.rung import Halted, RungResult, SettingsFailed

FAILED = SettingsFailed("diverged: no finite update in iterations 25 to 49 (α = [1e+30]); lower alpha_init or lr_pixel")
NOTHING = Later()
STAGE = StageAtWork(name="search", since=datetime(2026, 11, 30, tzinfo=UTC), unit="trials", total=6)
HALTED = Halted("no room for the checkpoint /data/trial-003.safetensors; free space there")


def rung(iteration: int, accuracy: float) -> RungResult:
    return RungResult(iteration=iteration, validation_accuracy=accuracy)


def stop(iteration: int, end: SettingsFailed | Halted) -> RungResult:
    return RungResult(iteration=iteration, validation_accuracy=math.nan, done=True, end=end)


def record(number: int, status: str, rungs: dict[int, float], reason: str = "", **settings: Any) -> TrialRecord:
    return trial_record(number, status=status, settings=settings, rungs=rungs, reason=reason)


def new_status(later: Later = NOTHING) -> SearchStatus:
    rule = StoppingRule(100, {0: 1.0})
    return SearchStatus(trials=6, rung_iterations=25, rule=rule, workers=1, later=later)


class Screen:
    """A view whose console writes into memory, and the calls that Tune makes of it; its clock is set by the test."""

    def __init__(self, width: int = 160, *, terminal: bool = False, checkpoints: str = "/nowhere") -> None:
        self._written = io.StringIO()
        self.now_s = 0.0
        console = Console(file=self._written, width=width, height=60, force_terminal=terminal, color_system=None)
        self.view = SearchView(console, new_status(), checkpoints, clock=lambda: self.now_s)

    def start(self, number: int) -> None:
        self.view.on_trial_start(0, [], trial(number))

    def report(self, number: int, result: RungResult, **config: Any) -> None:
        self.view.on_trial_result(0, [], trial(number, **config), result.to_report())

    def complete(self, number: int) -> None:
        self.view.on_trial_complete(0, [], trial(number))

    @property
    def text(self) -> str:
        return self._written.getvalue()

    def run_all_states(self) -> None:
        """Report a trial that runs, and one that ends in every way."""
        for number in range(5):
            self.report(number, rung(25, 0.5 + number / 100))
        for iteration in (50, 75, 100):
            self.report(0, rung(iteration, 0.6))
        self.complete(0)
        self.complete(1)
        self.report(2, stop(50, FAILED))
        self.complete(2)
        self.report(3, stop(50, HALTED))
        self.complete(3)


def trial(number: int, **config: Any) -> SimpleNamespace:
    return SimpleNamespace(
        config={"trial_number": number, **config}, error_file=None, pickled_error_file=None, path="/tune/trial"
    )


def table(screen: Screen, width: int) -> list[str]:
    """Return the lines of a view's table."""
    written = io.StringIO()
    Console(file=written, width=width, color_system=None).print(screen.view._table())
    return written.getvalue().splitlines()


class TestStatus:
    def test_a_trial_whose_settings_failed_has_failed_and_counts_for_nothing(self) -> None:
        status = new_status()
        status.add_report(0, "a", stop(0, FAILED))
        assert status.end(0, 0.0).state is State.FAILED and status.trials[0].reason == FAILED.reason
        assert status.best is None
        assert status.summary(status.left(9.0)) == "1/6 done, best –, ? left"

    def test_a_failure_at_the_last_iteration_is_not_finished(self) -> None:
        status = new_status()
        ends: tuple[SettingsFailed | Halted, ...] = (FAILED, HALTED)
        for number, end in enumerate(ends):
            status.add_report(number, "a", stop(100, end))
        assert [status.end(number, 0.0).state for number in range(2)] == [State.FAILED, State.HALTED]

    def test_a_halted_trial_has_not_ended(self) -> None:
        status = new_status()
        status.add_report(0, "a", rung(25, 0.5))
        status.add_report(0, "a", stop(50, HALTED))
        assert status.end(0, 0.0).state is State.HALTED and status.trials[0].reason == HALTED.remedy
        assert status.summary(None).startswith("0/6 done, best 0.500")

    def test_a_trial_is_finished_with_all_its_iterations_and_else_pruned(self) -> None:
        status = new_status()
        for number, last in enumerate((100, 75)):
            for iteration in range(25, last + 1, 25):
                status.add_report(number, "a", rung(iteration, iteration / 200))
        assert [status.end(number, 0.0).state for number in range(2)] == [State.FINISHED, State.PRUNED]
        assert status.best == 0.5

    def test_the_best_is_that_of_a_last_rung(self) -> None:
        status = new_status()
        status.add_report(0, "a", rung(25, 0.9))
        status.add_report(0, "a", rung(50, 0.3))
        status.add_report(1, "b", rung(25, 0.4))
        status.add_report(1, "b", stop(50, FAILED))
        assert status.best == 0.4

    def test_a_trial_whose_process_was_lost_is_resumed_by_its_next_report_and_repeats_no_rung(self) -> None:
        status = new_status()
        status.add_report(0, "a", rung(25, 0.5))
        status.fail(0, "a", "the trial's process died", 0.0)
        assert [status.trials[0].state] == [State.FAILED]
        status.add_report(0, "a", rung(25, 0.5))
        assert (status.trials[0].state, status.trials[0].reason) == (State.RESUMED, "")
        assert status.trials[0].rungs == {25: 0.5}
        status.resume(0)
        assert [status.trials[0].state, status.end(0, 0.0).state] == [State.RESUMED, State.PRUNED]

    def test_a_trial_that_begins_with_a_later_rung_is_resumed(self) -> None:
        status = new_status()
        for number, first in enumerate((25, 50)):
            status.add_report(number, "a", rung(first, 0.5))
        assert [each.state for each in status.trials.values()] == [State.RUNNING, State.RESUMED]

    def test_trials_of_an_earlier_driver_count_and_their_time_does_not(self) -> None:
        status = new_status(Later(distillations=1, iterations=50.0, seconds=7.0))
        for number in range(2):
            status.add_ended(record(number, "finished", {25: 0.1, 50: 0.2, 75: 0.3, 100: 0.7}), "a")
        assert status.summary(status.left(0.0)) == "2/6 done, best 0.700, ? left"
        status.begin(10.0)
        status.start(2, "c", 10.0)
        status.add_report(2, "c", rung(25, 0.5))
        # 25 iterations of a worker took 2 s; 75 are left of this trial, and 3 trials of 100 have not begun.
        left = status.left(12.0)
        assert left is not None and left.stage_s == pytest.approx(375 * 2 / 25)
        assert left.in_all_s == pytest.approx((375 + 100 + 50) * 2 / 25 + 7)
        assert status.summary(left) == "2/6 done, best 0.700, 0:00:30 left"
        assert status.speed(12.0).of_all == pytest.approx(12.5)

    def test_the_first_iterations_tell_no_pace(self) -> None:
        """They wait for a compilation, and for α to be found."""
        status = new_status()
        status.start(0, "a", 0.0)
        for iteration, known in ((1, False), (4, False), (5, True)):
            status.advance(0, iteration)
            assert (status.left(100.0) is not None) == known

    def test_a_time_budget_ends_the_search_before_its_trials_do(self) -> None:
        rule = StoppingRule(100, {0: 1.0})
        status = SearchStatus(trials=6, rung_iterations=25, rule=rule, workers=1, later=NOTHING, budget_s=20.0)
        status.begin(10.0)
        status.start(0, "a", 10.0)
        status.add_report(0, "a", rung(25, 0.5))
        for now_s, left_s in ((15.0, 15.0), (29.0, 1.0), (40.0, 0.0)):
            left = status.left(now_s)
            assert left is not None and left.stage_s == left_s

    def test_what_a_resumed_trial_had_before_is_not_this_drivers_work(self) -> None:
        status = new_status()
        status.begin(0.0)
        status.start(0, "a", 0.0)
        status.advance(0, 60)  # its checkpoint within the rung from 50 on
        assert status.speed(2.0).iterations == 10
        status.advance(0, 55)  # an older checkpoint
        assert status.trials[0].iteration == 60


class TestPlainLines:
    def test_say_how_every_trial_stopped_and_why(self) -> None:
        screen = Screen()
        screen.run_all_states()
        lines = "".join(line.rstrip() + " " for line in screen.text.splitlines())
        for expected in (
            "trial-000 finished at 100/100: validation accuracy 0.600; 1/6 done, best 0.600",
            "trial-001 pruned at 25/100: validation accuracy 0.510; 2/6 done",
            f"trial-002 failed at 50/100: {FAILED.reason}; 3/6 done",
            f"trial-003 halted at 50/100: {HALTED.remedy}; 3/6 done, best 0.600",
        ):
            assert expected in lines
        assert "nan" not in lines and "\x1b" not in screen.text and "trial-004" not in lines

    def test_a_search_in_which_nothing_has_worked_has_no_best(self) -> None:
        screen = Screen()
        screen.report(0, stop(0, FAILED))
        screen.complete(0)
        assert "best –" in screen.text and "nan" not in screen.text and "pruned" not in screen.text

    def test_an_error_is_named_with_the_place_of_its_traceback(self, tmp_path: Path) -> None:
        (tmp_path / "error.txt").write_text("Traceback\nValueError: [shape] is wrong\n")
        screen = Screen()
        broken = trial(1)
        broken.error_file = str(tmp_path / "error.txt")
        screen.view.on_trial_error(0, [], broken)
        assert (
            "trial-001 failed at 0/100: ValueError: [shape] is wrong; traceback in /tune/trial/error.txt; 1/6 done"
            in screen.text
        )

    def test_a_trial_whose_process_was_lost_has_not_ended(self, tmp_path: Path) -> None:
        screen, taken = Screen(), trial(1)
        screen.report(1, rung(25, 0.5))
        lose_process(taken, tmp_path)
        screen.view.on_trial_error(0, [], taken)
        assert screen.text == ""
        screen.report(1, rung(100, 0.6))
        screen.complete(1)
        assert screen.text.startswith("trial-001 finished at 100/100: validation accuracy 0.600; 1/6 done")


class TestBeforeTheFirstRung:
    """A trial on a large space reports after hours; its checkpoint within the rung says how far it is."""

    @pytest.fixture
    def under_way(self, tmp_path: Path) -> Callable[[int, int], None]:
        def write(number: int, iteration: int) -> None:
            state = {"images": torch.zeros(10), "iteration": iteration, "rung": []}
            write_checkpoint(checkpoint_place(str(tmp_path), number, within_rung=True), state)

        return write

    def test_the_table_has_the_trials_with_iteration_and_rate(
        self, tmp_path: Path, under_way: Callable[[int, int], None]
    ) -> None:
        screen = Screen(160, terminal=True, checkpoints=str(tmp_path))
        screen.start(0)
        screen.start(1)
        under_way(0, 7)
        screen.now_s = 2.0
        stage = screen.view.look(STAGE)
        assert dict(stage.running) == {"trial-000": 7, "trial-001": 0} and stage.rate == 3.5
        lines = table(screen, 160)
        assert "3.5 iterations/s" in lines[0] and "best –" in lines[0]
        assert [line.split()[5] for line in lines if "trial-00" in line] == ["0/100", "7/100"]

    def test_without_a_terminal_a_line_comes_after_ever_longer_silences(
        self, tmp_path: Path, under_way: Callable[[int, int], None]
    ) -> None:
        screen = Screen(checkpoints=str(tmp_path))
        screen.start(0)
        said = []
        for second in range(1, 201):
            screen.now_s = float(second)
            under_way(0, second // 10)
            before = screen.text
            screen.view.look(STAGE)
            if screen.text != before:
                said.append(second)
        assert said == [15, 45, 105]
        assert "Running: trial-000 at 1 of 100 iterations, 0.1 iterations/s; 0/6 done, best –" in screen.text

    def test_a_checkpoint_that_cannot_be_read_is_said_once_and_harms_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        Path(checkpoint_place(str(tmp_path), 0, within_rung=True)).write_bytes(b"no checkpoint")
        screen = Screen(checkpoints=str(tmp_path))
        screen.start(0)
        for _ in range(2):
            assert dict(screen.view.look(STAGE).running) == {"trial-000": 0}
        assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
            "the progress of trial-000 within its rung is not known"
        ]


class TestTable:
    @pytest.mark.parametrize("width", [80, 200])
    def test_has_a_row_a_trial_with_its_state_and_reason(self, width: int) -> None:
        screen = Screen(width, terminal=True)
        screen.run_all_states()
        lines = table(screen, width)
        assert max(len(line) for line in lines) <= width
        states = {line.split()[1]: line.split()[3] for line in lines if "trial-00" in line and "/100" in line}
        assert states == {
            "trial-000": "finished", "trial-001": "pruned", "trial-002": "failed", "trial-003": "halted",
            "trial-004": "running",
        }  # fmt: skip
        cells = " ".join(line.rpartition("│")[0].rpartition("│")[2].strip() for line in lines)
        assert FAILED.reason in cells and HALTED.remedy in cells
        assert "best 0.600" in lines[0] and "nan" not in "".join(lines)

    def test_shows_how_far_the_images_moved_and_the_share_of_skipped_updates(self) -> None:
        screen = Screen(120, terminal=True)
        still = RungResult(iteration=25, validation_accuracy=0.159, skip_rate=0.96, image_displacement=0.0)
        screen.view.add_ended([trial_record(
            1, status="pruned", rungs={25: 0.2}, measures={"skip_rate": 0.0, "image_displacement": 0.314}
        )])  # fmt: skip
        screen.report(0, still)
        screen.report(2, rung(25, 0.3))
        cells = {line.split("│")[1].strip(): line.split("│")[4].strip() for line in table(screen, 120) if "│" in line}
        assert cells == {"trial-000": "0.00/96%", "trial-001": "0.31/0%", "trial-002": ""}
        ended = Screen()
        ended.report(0, still)
        ended.complete(0)
        assert "trial-000 pruned at 25/100: validation accuracy 0.159, 96% of its last updates skipped; " in ended.text

    def test_shows_as_many_rungs_as_a_line_has_room_for_the_newest_first(self) -> None:
        screen = Screen(80, terminal=True)
        for iteration in range(1, 31):
            screen.report(0, rung(iteration, iteration / 100))
        narrow, wide = ([line for line in table(screen, width) if "trial-000" in line] for width in (80, 200))
        assert len(narrow) == len(wide) == 1
        shown, all_shown = (line[0].split("│")[5].split() for line in (narrow, wide))
        assert shown[:3] == all_shown[:3] == ["0.300", "0.290", "0.280"] and "…" in shown[-1]
        assert len(all_shown) > 2 * len(shown)

    def test_a_reason_is_printed_above_it_and_an_ordinary_end_is_not(self) -> None:
        screen = Screen(200, terminal=True)
        screen.run_all_states()
        assert f"trial-002 failed at 50/100: {FAILED.reason}" in screen.text
        assert "trial-000 finished at" not in screen.text and "trial-001 pruned at" not in screen.text

    def test_names_a_studys_variant_and_repeat_under_every_driver(self) -> None:
        screen = Screen(80, terminal=True)
        point: dict[str, Any] = {"variant": "late", "repeat": 1}
        screen.view.add_ended([record(0, "finished", {100: 0.5}, **point), record(1, "failed", {}, "diverged")])
        screen.report(3, rung(50, 0.25), **point)
        text = "\n".join(table(screen, 80))
        assert "trial-000 (late, repeat 1)" in text and "trial-003 (late, repeat 1)" in text
        assert "resumed" in text and "diverged" in text and "2/6 done, best 0.500" in text
