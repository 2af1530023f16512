"""The study and the scheduler against a real SQLite study, without a cluster."""

import contextlib
import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from orchestrator.results.trials import REFERENCE_TRIAL, best_trial, ranked
from orchestrator.search import database
from orchestrator.search.kept_trials import read_trials
from orchestrator.search.proposals import StudySearch
from orchestrator.search.scheduler import ReferenceSafeASHA
from orchestrator.search.watch import SearchWatch
from orchestrator.state import databases
from search_spaces import load
from trainables.workers.rung import Halted, RungResult, SettingsFailed

SPACE = load("digits").override({"iterations": 100})
FIXED = {key: dimension.value for key, dimension in SPACE.fixed.items()}


def open_search(folder: Path, seed: int = 0, study: str = "study") -> StudySearch:
    storage = f"sqlite:///{folder / 'optuna.db'}"
    return StudySearch(SPACE, study=study, storage=storage, seed=seed, trials=8, iterations=100)


def report(iteration: int, accuracy: float) -> dict[str, Any]:
    """Return a rung's report with what Tune adds to it."""
    rung = RungResult(iteration=iteration, validation_accuracy=accuracy, trial_seconds=1.5)
    return {**rung.to_report(), "training_iteration": iteration // 25}


def stopping(end: SettingsFailed | Halted, iteration: int = 0) -> dict[str, Any]:
    return RungResult(
        iteration=iteration, validation_accuracy=math.nan, trial_seconds=1.5, done=True, end=end
    ).to_report()


def failing(reason: str) -> dict[str, Any]:
    return stopping(SettingsFailed(reason))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a locked database for a moment, not for minutes."""
    monkeypatch.setattr(database, "ATTEMPT_S", 0.01)
    monkeypatch.setattr(databases, "PAUSE_S", 0.01)
    monkeypatch.setattr(databases, "PATIENCE_S", 0.2)


def whole_search(folder: Path, before: Callable[[str], None], halted: list[str]) -> StudySearch:
    """Propose two trials, report and end them; `before` is called with the name of each step."""
    search = open_search(folder)
    search._halt = halted.append
    search._halted = False
    for step in ("suggest", "report", "complete", "fail"):
        before(step)
        match step:
            case "suggest":
                for name in ("whole", "lost"):
                    search.suggest(name)
            case "report":
                search.on_trial_result("whole", report(25, 0.5))
            case "complete":
                search.on_trial_complete("whole", report(100, 0.6))
            case "fail":
                search.fail("lost", "gone")
    return search


class TestLockedDatabase:
    @pytest.mark.parametrize("moment", ["suggest", "report", "complete", "fail"])
    def test_is_waited_for_at_every_moment(
        self, moment: str, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(databases, "PATIENCE_S", 60.0)
        halted: list[str] = []
        (tmp_path / "free").mkdir()
        free = whole_search(tmp_path / "free", lambda step: None, halted)
        holder = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None, check_same_thread=False)

        def hold(step: str) -> None:
            if step == moment:
                holder.execute("BEGIN EXCLUSIVE")
                threading.Timer(0.3, lambda: holder.execute("COMMIT")).start()

        with contextlib.closing(holder):
            search = whole_search(tmp_path, hold, halted)
        assert halted == []
        assert [(trial.state, trial.params, trial.intermediate_values) for trial in search.study.trials] == [
            (trial.state, trial.params, trial.intermediate_values) for trial in free.study.trials
        ]

    @pytest.mark.parametrize("moment", ["suggest", "report", "complete", "fail"])
    def test_ends_the_search_when_patience_ends_and_the_next_driver_loses_nothing(
        self, moment: str, tmp_path: Path, impatient: None
    ) -> None:
        halted: list[str] = []
        holder = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)

        def hold(step: str) -> None:
            if step == moment:
                holder.execute("BEGIN EXCLUSIVE")

        with contextlib.closing(holder):
            search = whole_search(tmp_path, hold, halted)
            assert len(halted) == 1 and "optuna.db has been locked by another process" in halted[0]
            assert search.suggest("more") == search.FINISHED
        again = open_search(tmp_path)
        left = [again.suggest("whole"), again.suggest("lost")]
        numbers = {"suggest": [0, 1], "report": [0, 1], "complete": [0, 1], "fail": [1, 2]}[moment]
        assert [proposal["trial_number"] for proposal in left if isinstance(proposal, dict)] == numbers


class TestStudy:
    def test_the_first_proposal_is_the_reference_setting_and_the_rest_stay_in_the_space(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        proposals: list[Any] = [search.suggest(f"t{number}") for number in range(5)]
        assert [proposal["trial_number"] for proposal in proposals] == [0, 1, 2, 3, 4]
        assert proposals[0] == {**SPACE.split(SPACE.resolve(SPACE.first()))[1], "trial_number": 0}
        for proposal in proposals:
            assert proposal["T_minus"] < proposal["T"] <= proposal["T_plus"]
            assert proposal["T_plus"] + {**FIXED, **proposal}["M"] <= SPACE.horizon_epochs

    def test_a_trial_is_complete_only_if_it_did_all_its_iterations(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        for name in ("whole", "stopped", "broken", "cannot work", "no disk", "never ran"):
            search.suggest(name)
        search.on_trial_result("whole", report(50, 0.5))
        search.on_trial_complete("whole", report(100, 0.75))
        search.on_trial_result("stopped", report(25, 0.25))
        search.on_trial_complete("stopped", report(50, 0.5))
        search.on_trial_result("broken", report(25, 0.25))
        search.on_trial_complete("broken", error=True)
        search.fail("broken", "RuntimeError: boom")
        search.on_trial_complete("cannot work", failing("diverged"))
        search.on_trial_complete("no disk", stopping(Halted("no room")))
        search.on_trial_complete("never ran")

        study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
        states = [trial.state for trial in study.trials]
        assert states == [
            TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.PRUNED,  # TPE keeps away from the last
            TrialState.RUNNING, TrialState.RUNNING,  # these have not ended
        ]  # fmt: skip
        # The last report, which Tune passes only with the trial's end, is recorded too.
        assert study.trials[0].intermediate_values == {50: 0.5, 100: 0.75} and study.trials[0].value == 0.75
        assert study.trials[1].intermediate_values == {25: 0.25, 50: 0.5}
        records = read_trials(search.study.trials, SPACE)
        assert [(record.status, record.reason) for record in records] == [
            ("finished", ""), ("pruned", "stopped by ASHA at iteration 50"), ("failed", "RuntimeError: boom"),
            ("failed", "diverged"),
        ]  # fmt: skip
        assert [record.seconds for record in records] == [1.5, 1.5, 0, 1.5]

    def test_an_end_is_told_once(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        search.suggest("a")
        search.on_trial_complete("a", report(100, 0.5))
        search.on_trial_complete("a", report(100, 0.9))
        assert search.study.trials[0].value == 0.5

    def test_the_same_seed_proposes_the_same_after_the_same_results(self, tmp_path: Path) -> None:
        def proposals(seed: int, study: str) -> list[dict[str, Any]]:
            search = open_search(tmp_path, seed, study)
            made: list[Any] = []
            for number in range(8):
                made.append(search.suggest(str(number)))
                search.on_trial_complete(str(number), report(100 if number % 2 else 50, 0.1 * number))
            return made

        assert proposals(3, "a") == proposals(3, "b") != proposals(4, "c")

    def test_whoever_opens_the_study_goes_on_as_if_nothing_had_been(self, tmp_path: Path) -> None:
        def run(study: str, *, cut_at: tuple[int, ...]) -> list[dict[str, Any]]:
            """Propose eight trials; at an interruption, after a report, resume in a new searcher."""
            search = open_search(tmp_path, study=study)
            made: list[Any] = []
            for number in range(8):
                name = str(number)
                made.append(search.suggest(name))
                search.on_trial_result(name, report(25, 0.05 * number))
                if number in cut_at:
                    search = open_search(tmp_path, study=study)
                    name = f"{number} again"
                    assert search.suggest(name) == made[-1]
                    search.on_trial_result(name, report(25, 0.05 * number))
                search.on_trial_complete(name, report(100 if number % 2 else 50, 0.1 * number))
            return made

        assert run("cut", cut_at=(0, 3, 5, 6)) == run("whole", cut_at=())
        cut, whole = (open_search(tmp_path, study=study).study.trials for study in ("cut", "whole"))
        for one, other in zip(cut, whole, strict=True):
            assert (one.params, one.state, one.values) == (other.params, other.state, other.values)
            assert one.intermediate_values == other.intermediate_values

    def test_a_proposal_that_was_cut_off_in_the_middle_is_completed_as_it_would_have_been(self, tmp_path: Path) -> None:
        proposals = []
        for study, drawn in (("whole", 99), ("cut", 3)):
            search = open_search(tmp_path, study=study)
            for number in range(4):
                search.suggest(str(number))
                search.on_trial_complete(str(number), report(100, 0.1 * number))
            trial, left = search.study.ask(), drawn

            class Dying:
                def __getattr__(self, name: str, trial: optuna.Trial = trial) -> Any:
                    nonlocal left
                    left -= 1
                    return getattr(trial, name) if left >= 0 else (_ for _ in ()).throw(InterruptedError)

            with contextlib.suppress(InterruptedError):
                SPACE.draw(Dying())
            assert len(search.study.trials[4].params) == min(drawn, len(SPACE.searched))
            proposals.append(open_search(tmp_path, study=study).suggest("again"))
        assert proposals[0] == proposals[1]

    def test_a_trial_whose_process_was_lost_is_proposed_again_and_none_is_too_many(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        proposals = [search.suggest(str(number)) for number in range(8)]
        assert search.suggest("too many") is None  # one of them may come back
        search.requeue("2")
        assert search.suggest("2 again") == proposals[2]
        for name in ("0", "1", "2 again", *map(str, range(3, 8))):
            search.on_trial_complete(name, report(100, 0.5))
        assert search.suggest("too many") == "FINISHED"
        assert len(search.study.trials) == 8

    def test_a_trial_that_is_paused_has_a_value_and_goes_on_as_if_nothing_had_been(self, tmp_path: Path) -> None:
        made: dict[str, list[Any]] = {}
        for study in ("whole", "paused"):
            search = open_search(tmp_path, study=study)
            made[study] = [search.suggest("0")]
            search.on_trial_result("0", report(25, 0.5))
            if study == "paused":
                search.pause()
                assert read_trials(search.study.trials, SPACE) == []
                (record,) = read_trials(search.study.trials, SPACE, running="paused")
                assert (record.status, record.reason) == ("paused", "the time budget ended")
                assert (record.rungs, record.last, record.seconds) == ({25: 0.5}, 0.5, 1.5)
                assert best_trial([record]) is record
                search = open_search(tmp_path, study=study)
                assert search.suggest("0") == made[study][0]
            search.on_trial_complete("0", report(100, 0.75))
            made[study] += [search.suggest(str(number)) for number in range(1, 8)]
            (record,) = read_trials(search.study.trials, SPACE)
            assert (record.status, record.rungs) == ("finished", {25: 0.5, 100: 0.75})
        assert made["paused"] == made["whole"]

    def test_a_proposal_that_is_incomplete_is_not_shown_as_paused(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        search.suggest("0")
        search.study.ask().suggest_int("N", 10, 20)
        assert [record.number for record in read_trials(search.study.trials, SPACE, running="paused")] == [0]


class TestStudyOfVariants:
    def test_all_points_are_proposed_once_and_in_their_order_whatever_comes_of_them(self, tmp_path: Path) -> None:
        study = load("digits_range_study")
        search = StudySearch(
            study, study="study", storage=f"sqlite:///{tmp_path / 'optuna.db'}", seed=0, trials=9, iterations=100
        )
        proposals = []
        for number in range(9):
            proposals.append(search.suggest(str(number)))
            search.on_trial_complete(str(number), report(100 if number % 2 else 50, 0.1 * number))
        assert proposals == [
            {**study.split(study.resolve(point))[1], "trial_number": number}
            for number, point in enumerate(study.points())
        ]
        records = read_trials(search.study.trials, study)
        assert [(record.settings["variant"], record.settings["repeat"]) for record in records] == [
            (point["variant"], point["repeat"]) for point in study.points()
        ]


class TestRanking:
    def test_those_that_went_furthest_come_first_and_failures_never_win(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        ends = [(100, 0.6, False), (50, 0.9, False), (100, 0.7, False), (25, 0.99, True)]
        for number, (iteration, accuracy, error) in enumerate(ends):
            search.suggest(str(number))
            search.on_trial_result(str(number), report(iteration, accuracy))
            search.on_trial_complete(str(number), None if error else report(iteration, accuracy), error=error)
            if error:
                search.fail(str(number), "boom")
        records = read_trials(search.study.trials, SPACE)
        assert [record.number for record in ranked(records)] == [2, 0, 1, 3]
        assert [record.status for record in records] == ["finished", "pruned", "finished", "failed"]
        assert [record.reason for record in records] == ["", "stopped by ASHA at iteration 50", "", "boom"]
        best = best_trial(records)
        assert best is not None and best.number == 2 and best.last == 0.7

    def test_there_is_no_best_where_all_failed(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        search.suggest("a")
        search.fail("a", "boom")
        assert best_trial(read_trials(search.study.trials, SPACE)) is None


class TestASHA:
    @pytest.fixture
    def decide(self) -> Any:
        return deciding(ReferenceSafeASHA(FIXED, []))

    def test_stops_the_worse_half_at_a_rung(self, decide: Any) -> None:
        assert decide(1, 50, 0.8) == TrialScheduler.CONTINUE
        assert decide(2, 50, 0.9) == TrialScheduler.CONTINUE
        assert decide(3, 50, 0.1) == TrialScheduler.STOP

    def test_stops_nobody_before_the_first_rung(self, decide: Any) -> None:
        decide(1, 25, 0.9)
        assert decide(2, 25, 0.1) == TrialScheduler.CONTINUE

    def test_never_stops_the_reference_but_counts_it(self, decide: Any) -> None:
        decide(1, 50, 0.9)
        assert decide(REFERENCE_TRIAL, 50, 0.1) == TrialScheduler.CONTINUE
        # With 0.1 recorded the median of (0.9, 0.1, 0.6) is 0.6: trial 2 continues.
        assert decide(2, 50, 0.6) == TrialScheduler.CONTINUE

    @given(
        accuracies=st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=2, max_size=9),
        cut=st.integers(0, 35),
    )
    @settings(max_examples=25, deadline=None)
    def test_rungs_outlive_the_process(self, accuracies: list[list[int]], cut: int) -> None:
        def decisions(cut: int | None) -> list[str]:
            """Run trials one after the other; after `cut` reports, resume with a new scheduler."""
            study = optuna.create_study(direction="maximize")
            decide = deciding(ReferenceSafeASHA(FIXED, []))
            made: list[str] = []
            for number, values in enumerate(accuracies):
                trial = study.ask()
                for iteration, value in zip((25, 50, 75, 100), values, strict=True):
                    if len(made) == cut:
                        decide = deciding(ReferenceSafeASHA(FIXED, study.get_trials(deepcopy=False)))
                    made.append(decide(number, iteration, value / 10))
                    trial.report(value / 10, iteration)
                    if made[-1] == TrialScheduler.STOP:
                        break
                decide.complete(number, iteration, value / 10)
                study.tell(trial, state=TrialState.PRUNED)
            return made

        assert decisions(cut) == decisions(None)

    def test_the_last_words_of_settings_that_failed_are_no_rung(self, decide: Any) -> None:
        decide(1, 50, 0.5)
        decide(2, 25, 0.5)
        trial = decide.trials[2]
        decide.scheduler.on_trial_complete(None, trial, stopping(SettingsFailed("diverged"), 100))
        assert decide(3, 50, 0.5) == TrialScheduler.CONTINUE
        assert "nan" not in decide.scheduler.debug_string()


def deciding(scheduler: ReferenceSafeASHA) -> Any:
    """Return a function that asks the scheduler about a trial's report, as Tune does."""
    trials: dict[int, Any] = {}

    def trial_of(number: int) -> Any:
        if number not in trials:
            trials[number] = SimpleNamespace(trial_id=str(number), config={"trial_number": number})
            scheduler.on_trial_add(None, trials[number])
        return trials[number]

    def decide(number: int, iteration: int, accuracy: float) -> str:
        return scheduler.on_trial_result(None, trial_of(number), report(iteration, accuracy))

    asked: Any = decide
    asked.scheduler, asked.trials = scheduler, trials
    asked.complete = lambda number, iteration, accuracy: scheduler.on_trial_complete(
        None, trial_of(number), report(iteration, accuracy)
    )
    return asked


class TestGivingUp:
    def test_after_the_third_failure_alike_if_nothing_else_ever_happened(self) -> None:
        watch = SearchWatch()
        for alpha in (1e30, 2.5, 7e-3):
            assert not watch.stop_all()
            watch("t", failing(f"diverged: no finite update in iterations 0 to 24 (α = {alpha:.3g}); lower it"))
        assert watch.stop_all() and watch.hopeless is not None
        assert "all of the first 3 trials failed alike: diverged" in watch.hopeless and watch.halted is None

    def test_where_no_update_of_any_trial_is_accepted(self) -> None:
        watch = SearchWatch()
        for loss, alpha in ((61.2, 0.02), (1.5e3, 0.1), (23, 0.019)):
            assert not watch.stop_all()
            watch("t", failing(
                f"no update was accepted: in iterations 0 to 19 no matching loss was below {loss:.3g}, with α = "
                f"{alpha:.3g}, and max_matching_loss is 5; set alpha_init=auto, or raise max_matching_loss"
            ))  # fmt: skip
        assert watch.hopeless is not None and "set alpha_init=auto" in watch.hopeless

    def test_where_every_alpha_turns_negative(self) -> None:
        watch = SearchWatch()
        for alpha in (-0.017, -0.067, -3e-05):
            watch("t", failing(f"α became {alpha:.3g} in iteration 3, and inner steps go uphill; lower lr_alpha"))
        assert watch.hopeless is not None

    def test_not_where_failures_differ_or_a_trial_came_to_a_rung(self) -> None:
        differing, hopeful = SearchWatch(), SearchWatch()
        hopeful("t", report(25, 0.1))
        for reason in ("diverged", "diverged", "out of memory", "diverged"):
            differing("t", failing(reason))
            hopeful("t", failing("diverged"))
        assert not differing.stop_all() and not hopeful.stop_all()

    def test_counts_what_was_before(self, tmp_path: Path) -> None:
        search = open_search(tmp_path)
        for name in ("a", "b"):
            search.suggest(name)
            search.on_trial_complete(name, failing("diverged"))
        watch = SearchWatch()
        watch.note_earlier(search.study.get_trials())
        assert not watch.stop_all()
        watch.note_failure("diverged")
        assert watch.stop_all()

    def test_at_once_where_a_disk_is_full(self) -> None:
        watch = SearchWatch()
        watch("t", stopping(Halted("no room")))
        assert watch.stop_all() and watch.halted == "no room" and watch.hopeless is None
