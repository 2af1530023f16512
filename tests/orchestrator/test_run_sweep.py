"""Sweeps from Python: the result, errors as exceptions, several calls in a process, and what is left as it was."""

import builtins
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import orchestrator
from orchestrator.results.sweep_result import Accuracy, Winner
from orchestrator.terminal.console import make_console
from search_spaces import load

SETTINGS = {
    "iterations": 10, "validation_every_iterations": 5, "first_rung_iterations": 5, "validation_epochs": 10,
    "validation_networks": 1, "protocol_epochs": 20, "full_data_epochs": 1,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "trials": 2, "experts": 1, "final_seeds": 0, "networks": 2, "baselines": "none", "concurrent": 1,
}  # fmt: skip
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def result(workdir: Path) -> orchestrator.SweepResult:
    before = [signal.getsignal(number) for number in SIGNALS]
    found = orchestrator.run_sweep(load("digits"), settings=SETTINGS, name="one", workdir=workdir, **SMALL)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not ray.is_initialized()
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestResult:
    def test_the_winner_is_that_of_the_record(self, result: orchestrator.SweepResult) -> None:
        winner, finals = result.winner, result.record["finals"]
        assert winner.trial == result.record["best"]["trial"]
        assert winner.accuracy == (finals["winner"]["accuracy"]["mean"], finals["winner"]["accuracy"]["std"], 2)
        assert set(winner.settings) == set(load("digits").varied)
        assert f"{winner.trial}: accuracy {winner.accuracy} on the test split (2 networks)" in str(winner)

    def test_the_images_are_the_winners(self, result: orchestrator.SweepResult) -> None:
        assert result.images.shape == (10, 1, 8, 8) and result.images.dtype == torch.float32
        assert result.labels.tolist() == list(range(10))

    def test_the_tables_have_a_row_for_each_trial_network_and_set(self, result: orchestrator.SweepResult) -> None:
        assert result.trials["id"].tolist() == ["trial-000", "trial-001"]
        accuracy = result.finals.groupby("set")["accuracy"].mean()
        assert accuracy[result.winner.trial] == pytest.approx(result.winner.accuracy.mean)
        assert {"random_real", "full_data"} <= set(result.comparisons["b"])
        assert set(result.comparisons["a"]) == {"winner"}

    def test_the_report_is_a_page_in_a_frame(self, result: orchestrator.SweepResult) -> None:
        page = result.report._repr_html_()
        assert page.startswith("<iframe srcdoc=") and page.count("<") == page.count("</") + 1 == 2
        assert Path(result.report).read_text().startswith("<!") and str(result.report) == str(result.report.path)

    def test_it_is_read_again(self, result: orchestrator.SweepResult, workdir: Path) -> None:
        again = orchestrator.open_sweep("one", workdir)
        assert again.record == result.record and torch.equal(again.images, result.images)
        assert repr(again) == f"<SweepResult 'one' in {workdir / 'sweeps' / 'one'}>"

    @pytest.mark.rare
    def test_a_second_call_in_another_thread_finds_the_same(
        self, result: orchestrator.SweepResult, workdir: Path
    ) -> None:
        found: list[orchestrator.SweepResult] = []

        def call() -> None:
            found.append(orchestrator.run_sweep("digits", settings=SETTINGS, name="two", workdir=workdir, **SMALL))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert torch.equal(found[0].images, result.images)
        assert found[0].record["finals"] == result.record["finals"]
        assert not ray.is_initialized()

    def test_a_name_that_was_asked_something_else_is_refused(
        self, result: orchestrator.SweepResult, workdir: Path
    ) -> None:
        with pytest.raises(orchestrator.UserError, match="with other settings"):
            orchestrator.run_sweep("digits", settings=SETTINGS, name="one", workdir=workdir, seed=1, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"space": "digit"}, orchestrator.SpaceError, "unknown space"),
        ({"settings": {"N": 0}}, orchestrator.SpaceError, "N"),
        ({"trials": 0}, orchestrator.SpaceError, "trials"),
        ({"baselines": ["nothing"]}, orchestrator.SpaceError, "baselines"),
        ({"name": "a/b"}, orchestrator.UserError, "one line of 1 to 200 bytes"),
        ({"name": ""}, orchestrator.UserError, "one line of 1 to 200 bytes"),
        ({"seed": -1}, orchestrator.UserError, "seed"),
        ({"concurrent": 0}, orchestrator.UserError, "concurrent"),
        ({"gpus_per_trial": 1.5}, orchestrator.UserError, "gpus_per_trial"),
        ({"gpus_per_trial": "some"}, orchestrator.UserError, "gpus_per_trial"),
        ({"time_budget_s": 0}, orchestrator.UserError, "time_budget_s"),
        ({"patience_s": 0}, orchestrator.UserError, "patience_s"),
        ({"memory_budget_bytes": -1.0}, orchestrator.UserError, "memory_budget_bytes"),
        ({"space": "digits_regimes"}, orchestrator.UserError, "comparison"),
        ({"space": "cifar10_ranges"}, orchestrator.InputError, "needs its files"),
        ({"address": "127.0.0.1:1"}, orchestrator.UserError, "no Ray cluster answers"),
    ],
)
def test_what_cannot_work_is_an_exception_before_anything_starts(
    arguments: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        orchestrator.run_sweep(**{"space": "digits", "workdir": tmp_path / "runs", **arguments})
    assert list(tmp_path.iterdir()) == [] and not ray.is_initialized()


def test_a_sweep_that_is_not_there_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(orchestrator.UserError, match="no sweep named 'one'"):
        orchestrator.open_sweep("one", tmp_path)


def test_a_winner_is_compared_in_words() -> None:
    winner = Winner(
        trial="trial-003",
        settings={"N": 3, "lr_pixel": 2.5},
        accuracy=Accuracy(0.891, 0.009, 5),
        reference=Accuracy(0.88, 0.01, 5),
        random_real=Accuracy(0.643, 0.0, 1),
        difference=0.011,
        p=0.04,
    )
    assert str(winner).splitlines() == [
        "trial-003: accuracy 0.891 ± 0.009 on the test split (5 networks)",
        "  settings: N = 3, lr_pixel = 2.5",
        "  reference setting (trial 0): 0.880 ± 0.010; the difference is +0.011 (Holm-corrected p = 0.04)",
        "  random real images: 0.643",
    ]


def test_a_notebook_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class ZMQInteractiveShell:
        """What a notebook's kernel has under this name, by which Rich knows it."""

    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    console = make_console()
    console.print("trial-000 finished")
    assert not console.is_terminal and not console.is_jupyter
    assert capsys.readouterr().out == "trial-000 finished\n"
