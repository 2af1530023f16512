"""Reports of sweeps that have not finished: what there is, the state first, and what is missing; no lock is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from orchestrator.report import main
from orchestrator.results.comparison import comparison_records
from orchestrator.results.result_json import dataset_entry, stored_result, write_result
from orchestrator.results.under_way import UnderWay
from orchestrator.stages.bulletin import Bulletin
from orchestrator.state.lock import exclusive_lock
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import write_settings
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings
from tests.support.unfinished import EXECUTION, at_work, search_under_way
from trainables.data.source import Findings
from trainables.evaluation.metrics import Metrics


def report(workdir: Path, *names: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["--workdir", str(workdir), "--sweep", ",".join(names)])
    assert done.exit_code == code, done.output
    return done.output.strip()


def in_its_search(folder: Path, name: str = "a", *, trials: bool = True) -> tuple[SweepSettings, Bulletin]:
    settings, bulletin = search_under_way(folder, name, trials=trials)
    bulletin.begin("search", unit="trials", total=12)
    bulletin.follow(at_work)
    bulletin.write()
    return settings, bulletin


class TestSweep:
    def test_one_that_runs_is_reported_while_its_driver_holds_the_lock(self, tmp_path: Path) -> None:
        settings, _ = in_its_search(tmp_path)
        with exclusive_lock(settings.places):
            place = report(tmp_path, "a")
        assert place == f"{settings.places.folder}/report.html"
        text = (settings.places.folder / "report.md").read_text()
        first, *rest = text.split("\n\n")
        assert first.startswith("# a: ") and rest[0].startswith("**This sweep is running.** The report has what it")
        for words in (
            "trial-003: validation accuracy 0.800; reference (trial-000) 0.700",
            "- 9 of 12 trials", "accuracy on the test split, beside real images",
            "| trial-003 | unfinished | 150 | 0.800 |", "| trial-002 | failed: diverged: α is \\[nan\\] | 0 | – |",
            "sqlite:////runs/mlflow.db", f"    python -m orchestrator.ui --workdir {tmp_path} --sweep a",
        ):  # fmt: skip
            assert words in text
        page = (settings.places.folder / "report.html").read_text()
        assert page.count('src="data:image/png') == text.count("![") == 1 and "http" not in page
        with Image.open(settings.places.folder / "figures" / "trials.png") as picture:
            assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 8
        assert [path.name for path in settings.places.folder.iterdir() if path.name.startswith(".figures")] == []
        assert "About the files" not in text

    def test_what_was_seen_in_the_files_of_the_dataset_is_said(self, tmp_path: Path) -> None:
        settings, bulletin = search_under_way(tmp_path, "a")
        bulletin.write()
        findings = Findings(
            layout="",
            skipped={"hidden": 3},
            test_from="test",
            notes=("class 'a|b' has no test images",),
            warnings=("1 of 2 test images is a training image",),
        )
        write_result(settings, {**(stored_result(settings) or {}), "dataset": dataset_entry(findings)})
        report(tmp_path, "a")
        text = (settings.places.folder / "report.md").read_text()
        said = ["class 'a\\|b' has no test images.", "Files or folders that were left out: 3 hidden."]
        assert "About the files of the dataset:\n\n- " + "\n- ".join(said) in text
        assert text.splitlines()[2] == "**Warning.** 1 of 2 test images is a training image."

    @pytest.mark.parametrize(
        ("status", "words"), [("stopped", "was stopped by hand"), ("failed", "failed and has not")]
    )
    def test_one_that_ended_says_why_and_how_to_go_on(self, tmp_path: Path, status: str, words: str) -> None:
        settings, bulletin = in_its_search(tmp_path)
        bulletin.end(status, ValueError("the raylet is gone"))
        report(tmp_path, "a")
        text = (settings.places.folder / "report.md").read_text()
        assert f"**This sweep {words}" in text and "the raylet is gone" in text and settings.resume_command in text

    def test_one_that_was_killed_is_no_longer_running(self, tmp_path: Path) -> None:
        settings, _ = in_its_search(tmp_path)
        report(tmp_path, "a")
        text = (settings.places.folder / "report.md").read_text()
        assert "**This sweep was killed, or lost with its machine" in text and settings.resume_command in text

    def test_one_without_a_rung_has_no_figure(self, tmp_path: Path) -> None:
        settings, _ = in_its_search(tmp_path, trials=False)
        report(tmp_path, "a")
        text = (settings.places.folder / "report.md").read_text()
        assert "no trial has reached a rung yet" in text and "![" not in text and "## MLflow" in text

    def test_one_that_has_not_begun_is_one_line(self, tmp_path: Path) -> None:
        write_settings(sweep_settings(name="a", workdir=Workdir(tmp_path)))
        assert "'a' is killed and has nothing to report yet; resume it" in report(tmp_path, "a", code=2)


class TestSeveral:
    def test_those_that_have_not_finished_are_shown_with_their_best_so_far(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            in_its_search(tmp_path, name)
        page = Path(report(tmp_path, "a", "b"))
        text = page.with_suffix(".md").read_text()
        assert "Not finished: a (killed), b (killed)." in text
        assert text.count("| trial-003 | validation 0.800 | – | – | 7 |") == 2

    def test_one_without_a_best_trial_is_refused_in_a_line(self, tmp_path: Path) -> None:
        in_its_search(tmp_path, "a")
        in_its_search(tmp_path, "b", trials=False)
        assert "'b' is killed, and no trial of it has reached a rung" in report(tmp_path, "a", "b", code=2)


class TestComparison:
    @pytest.fixture
    def under_way(self, tmp_path: Path) -> Callable[[dict[str, Any]], SweepSettings]:
        def write_all(measured: dict[str, Any]) -> SweepSettings:
            space = load("digits_regimes").override({"ipcs": "1,5"})
            settings = sweep_settings(name="c", space=space, workdir=Workdir(tmp_path))
            write_settings(settings)
            records = comparison_records(settings, measured, images=100, classes=2)

            def write(status: str, under_way: UnderWay) -> None:
                common = {"sweep": "c", "space": space.name, "status": status, "mlflow": EXECUTION.mlflow}
                write_result(settings, {**common, "records": records, "under_way": under_way.to_json()})

            Bulletin(write, settings).begin("networks", unit="networks", total=9)
            return settings

        return write_all

    def test_what_is_measured_so_far_is_shown(
        self, tmp_path: Path, under_way: Callable[[dict[str, Any]], SweepSettings]
    ) -> None:
        some = [Metrics(((8, 2), (1, 9)))]
        settings = under_way({"hard": {"random-1": some, "m_datm-1": some}, "soft": {"random-5": some}})
        report(tmp_path, "c")
        text = (settings.places.folder / "report.md").read_text()
        assert "**This comparison was killed" in text and "networks that are not tested yet" in text
        assert "| random real images | 0.850 | – | 1 |" in text and "| random real images | – | 0.850 | 1 |" in text
        assert "What soft labels hide" not in text and text.count("![") == 1

    def test_nothing_measured_yet_is_no_fault(
        self, tmp_path: Path, under_way: Callable[[dict[str, Any]], SweepSettings]
    ) -> None:
        settings = under_way({})
        report(tmp_path, "c")
        assert "![" not in (settings.places.folder / "report.md").read_text()
