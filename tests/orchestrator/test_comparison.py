"""Comparisons: records, sentences and figure by hand, the command line, and a small one for real."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from orchestrator.planning.plan import make_plan
from orchestrator.reporting.comparison import draw_scalability, report_comparison
from orchestrator.reporting.summary import describe_comparison
from orchestrator.reporting.tables import records_table
from orchestrator.results.comparison import comparison_records, spreads
from orchestrator.state.settings import SweepSettings
from orchestrator.state.workdir import Workdir
from orchestrator.tracking.pages import prepare_pages
from search_spaces import SpaceError, load
from tests.support.builders import sweep_settings
from tests.support.processes import assert_refused, run
from trainables.evaluation.metrics import Metrics


def networks(*hits: int) -> list[Metrics]:
    """Of ten images of either class so many are right."""
    return [Metrics(((each, 10 - each), (10 - each, each))) for each in hits]


MEASURED = {
    "soft": {
        "m_datm-1": networks(8, 8, 9), "random-1": networks(7, 8, 7), "m_datm-5": networks(9, 9, 9),
        "random-5": networks(9, 10, 9),
    },
    "hard": {
        "m_datm-1": networks(8, 8, 9), "random-1": networks(4, 5, 3), "m_datm-5": networks(9, 9, 9),
        "random-5": networks(6, 7, 6),
    },
}  # fmt: skip


MLFLOW = {"tracking_uri": "sqlite:////runs/mlflow.db", "experiment_id": "3", "parent_run_id": "8f"}


@pytest.fixture
def settings(tmp_path: Path) -> SweepSettings:
    space = load("digits_regimes").override({"ipcs": "1,5"})
    return sweep_settings(space=space, workdir=Workdir(tmp_path))


@pytest.fixture
def records(settings: SweepSettings) -> list[dict[str, Any]]:
    return comparison_records(settings, MEASURED, images=100, classes=2)


def test_a_record_has_method_regime_size_figures_and_budget(records: list[dict[str, Any]]) -> None:
    assert [(each["method"], each["regime"], each["ipc"]) for each in records] == [
        (method, regime, ipc) for method in ("random", "m_datm") for regime in ("hard", "soft") for ipc in (1, 5)
    ]
    assert records[0]["mean"] == pytest.approx(0.4) and records[0]["std"] == pytest.approx(0.1)
    assert records[0]["n"] == 3 and records[0]["values"] == pytest.approx([0.4, 0.5, 0.3])
    assert [each["full_data_epochs"] for each in records[:2]] == [300 * 2 / 100, 300 * 10 / 100]


def test_methods_differ_more_with_hard_labels_here(records: list[dict[str, Any]]) -> None:
    found = spreads(records)
    assert found[1]["hard"] == pytest.approx((25 / 30 - 0.4) / 2**0.5)
    assert found[5]["soft"] == pytest.approx((28 / 30 - 0.9) / 2**0.5)


def test_the_best_coreset_is_told_beside_the_best_of_all(settings: SweepSettings) -> None:
    sets = {**MEASURED["hard"], "dm-1": networks(9, 9, 9)}
    text = describe_comparison(settings, {"records": comparison_records(settings, {"hard": sets}, 100, 2)})
    assert "M-DATM (0.833) beats the best coreset, random real images (0.400): +0.433 (" in text
    assert "); it does not beat the best other method, DM (0.900): -0.067 (" in text


def test_the_report_says_who_wins_where_and_the_files_are_there(
    settings: SweepSettings, records: list[dict[str, Any]]
) -> None:
    (settings.places.folder / "figures").mkdir(parents=True)
    skip_rates = {"m_datm-1": 0.6, "m_datm-5": 0.02}
    report_comparison(settings, {"records": records, "skip_rates": skip_rates, "mlflow": MLFLOW})
    text = (settings.places.folder / "report.md").read_text()
    assert (
        "- `hard`, 1 image per class: M-DATM (0.833) beats the best coreset, random real images (0.400): +0.433" in text
    )
    assert "- `soft`, 5 images per class: M-DATM (0.900) does not beat the best coreset" in text
    assert "**Updates were skipped** in more than 50% of the iterations of m_datm-1 (60%)" in text
    assert "Methods differ in the order `hard` > `soft` at 2 of 2 sizes." in text
    assert "| random real images | 0.400 ± 0.100 | 0.633 ± 0.058 | 3 |" in text
    with Image.open(settings.places.folder / "figures" / "scalability.png") as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or []) > 8
    assert "<img" in (settings.places.folder / "report.html").read_text()


def test_what_was_not_measured_is_a_dash(records: list[dict[str, Any]], tmp_path: Path) -> None:
    some = [each for each in records if (each["method"], each["ipc"]) != ("random", 5)]
    (table, _) = records_table(some)
    assert list(table.columns[2].cells) == ["–", "0.900 ± 0.000"]
    draw_scalability(tmp_path / "figure.png", some)


class TestSpaces:
    @pytest.mark.parametrize("text", ["", "0", "5,1", "1,1", "1,", "one", "-1"])
    def test_sizes_that_are_none(self, text: str) -> None:
        with pytest.raises(SpaceError, match="ipcs must be a word"):
            load("digits_regimes").override({"ipcs": text})

    def test_what_has_no_effect_is_refused(self) -> None:
        with pytest.raises(SpaceError, match="baselines has no effect in a comparison"):
            load("digits_regimes").override({"baselines": "rded"})
        with pytest.raises(SpaceError, match="methods has no effect in what compares no methods"):
            load("digits").override({"methods": "rded"})
        with pytest.raises(
            SpaceError, match="ipcs=1,5 is what a comparison measures at, and digits is none; write Comparison"
        ):
            load("digits").override({"ipcs": "1,5"})

    @pytest.mark.parametrize("name", ["methods", "regimes"])
    def test_nothing_to_compare(self, name: str) -> None:
        with pytest.raises(SpaceError, match=f"a comparison needs {name}, and they are none; name some, or all"):
            load("digits_regimes").override({name: "none"})


class TestRefused:
    def test_a_dataset_without_a_comparison(self, tmp_path: Path) -> None:
        done = run("orchestrator.baselines", "--dataset", "mnist", "--workdir", tmp_path / "runs")
        assert_refused(done, "--dataset (digits, cifar10) or --space", "not mnist")

    def test_an_unknown_method(self, tmp_path: Path) -> None:
        done = run("orchestrator.baselines", "--dataset", "digits", "--methods", "best", "--workdir", tmp_path / "runs")
        assert_refused(done, "methods must be a word", "k_center", "not 'best'")

    def test_a_dataset_and_a_space(self, tmp_path: Path) -> None:
        both = ("--dataset", "digits", "--space", "digits_regimes", "--workdir", tmp_path / "runs")
        assert_refused(run("orchestrator.baselines", *both), "--dataset digits or --space digits_regimes", "not both")

    @pytest.mark.rare
    def test_more_images_than_a_class_has_before_experts_are_trained(self, tmp_path: Path) -> None:
        asked = ("--dataset", "digits", "--ipc", "1,120", "--methods", "m_datm", "--workdir", tmp_path / "runs")
        assert_refused(run("orchestrator.baselines", *asked), "106 training images, fewer than ipc = 120; lower ipc")
        assert not list((tmp_path / "runs").glob("sweeps/*")) and not list((tmp_path / "runs").glob("experts/*"))


def test_the_plan_counts_every_set_and_network() -> None:
    few: dict[str, Any] = {
        "ipcs": "1,5",
        "methods": "random,m_datm",
        "regimes": "hard",
        "repeats": 3,
        "regime_epochs": 100,
    }
    plans = [
        make_plan(sweep_settings(space=load("digits_regimes").override(each)))
        for each in (few, few | {"methods": "random"}, few | {"regimes": "hard,soft"})
    ]
    forward = 2 * 9 * 1 * 32 * 64 + 2 * 9 * 32 * 32 * 16 + 2 * 128 * 10
    # 120 iterations of 10 steps on ten images, whatever the set's size, three times at two sizes.
    assert plans[0].operations["search"] == 3 * 2 * 120 * 10 * 10 * forward * 11
    assert plans[1].operations["search"] == 0
    networks = [each.operations["finals"] for each in plans]
    one_method = 3 * (10 + 50) * 100 * forward * 3
    assert networks[0] - networks[1] == pytest.approx(one_method, rel=1e-9)
    assert networks[2] - networks[0] == pytest.approx(2 * one_method, rel=1e-9)


# Everything of the digits' comparison, with less of each.
MINE = """
from dataclasses import replace
from search_spaces import Fixed, load

ALL = load("digits_regimes")
SPACE = replace(
    ALL, name="mine",
    parameters={**ALL.parameters, "validation_every_iterations": Fixed(2)},
    variants={name: {**each, "iterations": 4} for name, each in ALL.variants.items()},
)
"""


@pytest.mark.slow
def test_a_small_one_is_whole_and_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    workdir, table = tmp_path / "runs", tmp_path / "table.json"
    command = (
        "orchestrator.baselines", "--space", tmp_path / "mine.py", "--ipc", "1,2", "--regimes", "hard,soft",
        "--seeds", 2, "--experts", 2, "--set", "regime_epochs=20", "--set", "full_data_epochs=3", "--workdir", workdir,
        "--name", "a", "--json", table,
    )  # fmt: skip
    methods = "random,rded,dc,m_datm"
    done = run(*command, "--methods", methods)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(table.read_text())
    assert {(each["method"], each["regime"], each["ipc"]) for each in records} == {
        (method, regime, ipc) for method in methods.split(",") for regime in ("hard", "soft") for ipc in (1, 2)
    }
    assert all(each["n"] == 2 and 0.05 < each["mean"] <= 1 for each in records)
    assert "soft: test accuracy" in done.stdout
    place = json.loads((workdir / "sweeps" / "a" / "result.json").read_text())["mlflow"]
    client = MlflowClient(place["tracking_uri"])
    parent = client.get_run(place["parent_run_id"])
    history = client.get_metric_history(place["parent_run_id"], "hard_m_datm")
    assert {(each.step, each.value) for each in history} == {
        (each["ipc"], each["mean"]) for each in records if (each["method"], each["regime"]) == ("m_datm", "hard")
    }
    assert parent.info.status == "FINISHED" and "M-DATM" in parent.data.tags["mlflow.note.content"]

    sets = client.search_runs([place["experiment_id"]], "tags.`mdatm.stage` = 'final'", max_results=50)
    assert {(each.data.params["method"], int(each.data.params["ipc"]), regime): (
        each.data.metrics[f"{regime}_test_accuracy_mean"]
    ) for each in sets for regime in ("hard", "soft")} == {
        (each["method"], each["ipc"], each["regime"]): pytest.approx(each["mean"]) for each in records
    }  # fmt: skip
    pages = prepare_pages(
        place["tracking_uri"], load("digits_regimes"), "a", place["experiment_id"], parent.info.run_id
    )
    best = max((each for each in records if each["regime"] == "hard"), key=lambda each: each["mean"])
    first = json.loads(unquote(pages["Compare the best sets"].partition("runs=")[2].partition("&")[0]))[0]
    assert client.get_run(first).data.metrics["hard_test_accuracy_mean"] == pytest.approx(best["mean"])

    # A driver that died before its last networks were measured.
    folder = workdir / "sweeps" / "a"
    before = json.loads((folder / "result.json").read_text())["records"]
    lines = (folder / "progress.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ((each := json.loads(line)).get("set") == "rded-2" and each["network"])]
    assert len(kept) < len(lines)
    (folder / "progress.jsonl").write_text("".join(kept))
    (folder / "result.json").unlink()
    again = run(*command, "--methods", methods, "--quiet")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout == done.stdout[done.stdout.index("hard: test accuracy") :]
    assert json.loads((folder / "result.json").read_text())["records"] == before
    report = (folder / "report.md").read_text()
    made = run("orchestrator.report", "--workdir", workdir, "--sweep", "a")
    assert made.returncode == 0 and (folder / "report.md").read_text() == report


@pytest.mark.slow
@pytest.mark.rare
def test_one_that_fails_tells_what_it_measured(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = run(
        "orchestrator.baselines", "--space", tmp_path / "mine.py", "--ipc", 1, "--regimes", "hard", "--seeds", 2,
        "--methods", "random,m_datm", "--set", "regime_epochs=20", "--set", "max_matching_loss=1e-9", "--experts", 1,
        "--workdir", tmp_path / "runs", "--name", "a",
    )  # fmt: skip
    assert_refused(done, "m_datm at ipc 1 skipped all of its 4 iterations")
    result = json.loads((tmp_path / "runs" / "sweeps" / "a" / "result.json").read_text())
    assert result["status"] == "failed"
    assert {each["method"] for each in result["records"]} <= {"random"}
    client = MlflowClient(result["mlflow"]["tracking_uri"])
    assert client.get_run(result["mlflow"]["parent_run_id"]).info.status == "FAILED"
