"""Sweeps that are killed at any moment and resumed: they leave what an uninterrupted sweep leaves."""

import os
import signal
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from tests.support.processes import assert_refused, end, run, wait_until
from tests.support.sweep_records import different_files, rows, study, tracked
from tests.support.sweeps import MORE, SMALL, Sweep, begin, kill_when, resume
from trainables.data.synthetic import read_synthetic

pytestmark = pytest.mark.slow


def a_trial_ended_and_the_next_has_a_rung(workdir: Path, name: str) -> bool:
    if not (workdir / "sweeps" / name / "checkpoints" / "trial-001.safetensors").exists():
        return False
    trials = study(workdir, name)
    return trials[0].state.is_finished() and bool(trials[1].intermediate_values)


def a_distillation_of_the_finals_has_a_rung(workdir: Path, name: str) -> bool:
    return any((workdir / "sweeps" / name / "checkpoints" / "final").glob("*.safetensors"))


def test_a_sweep_killed_in_search_and_finals_is_the_undisturbed_one_bit_for_bit(second: Sweep, tmp_path: Path) -> None:
    moments = a_trial_ended_and_the_next_has_a_rung, a_distillation_of_the_finals_has_a_rung
    name = second.name  # it is in the files
    for reached in moments:
        sweep = begin(tmp_path, name, *MORE)  # the same command goes on
        kill_when(sweep, lambda reached=reached: reached(tmp_path, name))  # type: ignore[misc]
    resumed = resume(tmp_path, name)

    assert rows(resumed) == rows(second)
    assert tracked(resumed) == tracked(second)
    for part in ("finals", "repeats", "regimes", "trials", "best", "paper"):
        assert resumed.result[part] == second.result[part]
    assert different_files(second, resumed) == []

    again = resume(tmp_path, name)  # there is nothing left to do
    assert again.result == resumed.result and "best trial" in again.output


@pytest.mark.rare
@pytest.mark.timeout(1200)
def test_a_search_that_its_time_budget_cuts_off_ends_at_the_values_of_an_undisturbed_one(
    first: Sweep, second: Sweep
) -> None:
    name, budget_s = "budgeted", 4
    budgeted, cuts = Sweep(first.workdir, name, ""), 0
    command: tuple[object, ...] = (*SMALL, *MORE, "--name", name)
    while True:
        done = run("orchestrator.sweep", *command, "--workdir", first.workdir, "--time-budget", f"{budget_s}s")
        assert done.returncode in (0, 4), done.stdout + done.stderr  # 4: no rung yet
        if sum(budgeted.result["trials"].values()) == 4 and not paused(budgeted):
            break
        cuts += budgeted.result["status"] == "finished"
        command, budget_s = ("--resume", name), 3 * budget_s // 2
        if done.returncode == 0 and paused(budgeted):
            assert f"--resume {name}" in done.stdout + done.stderr
            row = next(row for row in rows(budgeted) if row["status"] == "paused")
            assert row["reason"] == "the time budget ended"
            (run_of,) = (told for each, told in tracked(budgeted).items() if each == row["id"])
            assert run_of[0] == "KILLED"
    assert cuts, "finals were made before the search had ended"
    assert rows(budgeted) == rows(second)
    for part in ("finals", "repeats", "regimes", "trials", "best", "paper"):
        assert budgeted.result[part] == second.result[part]
    images = [read_synthetic(sweep.folder / "synthetic.safetensors").images for sweep in (second, budgeted)]
    assert torch.equal(*images)
    once = budgeted.result
    assert resume(first.workdir, name).result == once, "no option: the stored budget"


def paused(sweep: Sweep) -> int:
    number: int = sweep.result["trials"]["paused"]
    return number


@pytest.mark.rare
def test_two_trials_at_once_lose_and_double_none(first: Sweep) -> None:
    name, options = "killed-with-two", ("--concurrent", 2, "--trials", 5)

    def further() -> bool:
        """Say whether two trials have ended while another runs."""
        if not has_study(first.workdir, name):
            return False
        states = [trial.state for trial in study(first.workdir, name)]
        return sum(state.is_finished() for state in states) >= 2 and TrialState.RUNNING in states

    kill_when(begin(first.workdir, name, *options), further)
    ended_before = {
        trial.number: trial.datetime_complete for trial in study(first.workdir, name) if trial.state.is_finished()
    }
    resumed = resume(first.workdir, name)

    trials = study(first.workdir, name)
    assert [trial.number for trial in trials] == list(range(5))
    assert all(trials[number].datetime_complete == when for number, when in ended_before.items())
    for row, trial in zip(rows(resumed), trials, strict=True):
        assert row["number"] == trial.number and row["status"] in ("finished", "pruned")
        assert list(trial.intermediate_values) == list(range(5, row["iterations_done"] + 1, 5))
    runs = {run: told for run, told in tracked(resumed).items() if run.startswith("trial-")}
    assert sorted(runs) == [f"trial-{number:03d}" for number in range(5)]
    for row in rows(resumed):
        status, _, metrics, _ = runs[row["id"]]
        assert status == {"finished": "FINISHED", "pruned": "KILLED"}[row["status"]]
        for history in (metrics[each] for each in metrics if not each.startswith("test_")):
            assert [step for step, _ in history] == list(range(5, row["iterations_done"] + 1, 5))


def has_study(workdir: Path, name: str) -> bool:
    return name in optuna.get_all_study_names(f"sqlite:///{workdir / 'optuna.db'}")


def test_a_sweep_has_one_driver_and_one_task(first: Sweep, tmp_path: Path) -> None:
    sweep = begin(first.workdir, "held")
    try:
        wait_until(sweep, (first.workdir / "sweeps" / "held" / "settings.json").exists)
        refused = run("orchestrator.sweep", "--resume", "held", "--workdir", first.workdir)
        assert_refused(refused, "another process works on the sweep 'held'", "--name")
    finally:
        os.kill(sweep.pid, signal.SIGKILL)
        end(sweep)
    other = run("orchestrator.sweep", *SMALL, "--seed", 5, "--workdir", first.workdir, "--name", "held")
    assert_refused(other, "with other settings (seed differ)", "--resume held")


def test_a_resumed_sweep_takes_its_settings_from_where_they_are(first: Sweep, tmp_path: Path) -> None:
    unknown = run("orchestrator.sweep", "--resume", "never", "--workdir", first.workdir)
    assert_refused(unknown, "no sweep named 'never'", "there are", "first")
    extra = run(
        "orchestrator.sweep", "--resume", "first", "--workdir", first.workdir, "--seed", 3, "--set", "N=3"
    )  # fmt: skip
    assert_refused(extra, "leave out --seed, --set")
    neither = run("orchestrator.sweep", "--workdir", tmp_path)
    assert_refused(neither, "--space NAME", "--resume SWEEP")
