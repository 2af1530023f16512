"""Studies: the summaries by hand, and a small one through the real sweep."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

from orchestrator.reporting.sections.study import draw_study
from orchestrator.reporting.tables import study_figure_table, study_table
from orchestrator.results.finals import CHALLENGE, name_finals, write_finals
from orchestrator.results.study import study_rows, summarize_study, variant_range, write_study
from orchestrator.results.trials import TrialRecord, images_of, trial_name
from orchestrator.state.space import load_space
from search_spaces import Study, load
from tests.support.builders import trial_record
from tests.support.processes import run
from tests.support.studies import load_study
from tests.support.sweeps import SMALL, Sweep
from trainables.data.synthetic import read_synthetic
from trainables.evaluation.metrics import Metrics

SPACE = load_study("digits_range_study").override({"repeats": 2})


def record(number: int, status: str = "finished", last: float = 0.5) -> TrialRecord:
    settings = SPACE.resolve(SPACE.points()[number])
    return trial_record(number, status=status, settings=settings, rungs={150: last})


def networks(*accuracies: float) -> list[Metrics]:
    """All ten images are of one class; what is not predicted so is predicted as another, which so has a recall of 0."""
    hits = [round(10 * accuracy) for accuracy in accuracies]
    return [Metrics(((each, 10 - each), (0, 0))) for each in hits]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Points: early 0, medium 0, late 0, early 1, medium 1, late 1; late never got to its end."""
    records = [record(0, last=0.8), record(1), record(2, "failed"), record(3, last=0.6), record(4), record(5, "pruned")]
    values = {0: (0.9, 0.7), 1: (0.5, 0.5), 3: (0.6, 0.6), 4: (0.3, 0.5), 5: (1.0, 1.0)}
    measured = {trial_name(number): networks(*each) for number, each in values.items()}
    return study_rows(SPACE, records, {**measured, "full_data": networks(1.0, 1.0)})


def _summaries(study: dict[str, Any]) -> list[dict[str, Any]]:
    both = (
        study["variants"][name][metric] for name in SPACE.variants for metric in ("accuracy", "validation_accuracy")
    )
    return [summary for summary in both if summary]


class TestSummaries:
    def test_a_row_is_a_trial_that_went_to_its_end_with_the_mean_over_its_networks(self, rows: Any) -> None:
        assert [(row["variant"], row["repeat"], row["trial"]) for row in rows] == [
            ("early", 0, "trial-000"), ("medium", 0, "trial-001"), ("early", 1, "trial-003"),
            ("medium", 1, "trial-004"),
        ]  # fmt: skip
        assert rows[0]["accuracy"] == pytest.approx(0.8) and rows[0]["macro_recall"] == pytest.approx(
            0.8
        )  # of the class that occurs
        assert (rows[0]["T_minus"], rows[0]["T"], rows[0]["T_plus"], rows[0]["networks"]) == (0, 6, 8, 2)

    def test_n_counts_repeats_and_std_is_theirs(self, rows: Any) -> None:
        variants = summarize_study(SPACE, rows)["variants"]
        early = variants["early"]
        assert early["accuracy"]["values"] == pytest.approx([0.8, 0.6])
        assert early["accuracy"]["n"] == 2 and early["accuracy"]["mean"] == pytest.approx(0.7)
        assert early["accuracy"]["std"] == pytest.approx(0.2 / np.sqrt(2))
        assert early["validation_accuracy"]["values"] == [0.8, 0.6]
        assert early["settings"] == {"T_minus": 0, "T_width": 6, "T_growth": 2}
        assert variants["medium"]["macro_recall"]["mean"] == pytest.approx((0.5 + 0.4) / 2)

    def test_a_variant_without_a_repeat_has_no_summary(self, rows: Any, tmp_path: Path) -> None:
        study = summarize_study(SPACE, rows)
        late = study["variants"]["late"]
        assert [late[metric] for metric in ("validation_accuracy", "accuracy", "macro_f1", "macro_recall")] == [
            None
        ] * 4
        assert list(study_table(study, SPACE).columns[2].cells) == ["0.700 ± 0.141", "0.500 ± 0.000", "–"]
        table = study_figure_table(study)  # the figure's data: a row a variant and split, with every repeat
        assert list(table.columns[0].cells) == ["early", "early", "medium", "medium"]
        assert next(iter(table.columns[5].cells)) == "0.8000  0.6000"
        assert list(table.columns[4].cells) == [str(early["n"]) for early in _summaries(study)]
        draw_study(tmp_path / "study.png", SPACE, rows)
        with Image.open(tmp_path / "study.png") as picture:
            colors = picture.convert("RGB").getcolors(maxcolors=1 << 24)
            assert colors is not None and len(colors) > 8

    def test_a_single_repeat_has_no_spread(self, rows: Any) -> None:
        study = summarize_study(SPACE, rows[:1])
        assert next(iter(study_table(study, SPACE).columns[3].cells)) == "0.800"

    def test_the_file_has_the_rows(self, rows: Any, tmp_path: Path) -> None:
        write_study(tmp_path / "study.parquet", rows)
        assert pq.read_table(tmp_path / "study.parquet").to_pylist() == rows

    def test_ranges_are_written_as_papers_do(self) -> None:
        assert [variant_range(SPACE, variant) for variant in SPACE.variants] == ["0–6→8", "8–14→16", "16–21→23"]
        assert variant_range(load_study("ti_ablation"), "datm") == "10–50"


class TestFinals:
    def test_names_point_at_trials_and_a_trial_without_a_set_has_no_entry(self) -> None:
        measured = {"trial-003": networks(0.9, 0.7), "random_real": networks(0.2), "full_data": networks(1.0)}
        finals = name_finals(measured, "trial-003", "trial-000")
        assert list(finals) == ["winner", "random_real", "full_data"]
        assert finals["winner"]["accuracy"]["values"] == [0.9, 0.7]
        measured["trial-000"] = networks(0.5, 0.5)
        both = name_finals(measured, "trial-003", "trial-000")
        assert list(both) == ["winner", "paper_setting", "random_real", "full_data"]
        assert name_finals(measured, "trial-000", "trial-000")["winner"] == both["paper_setting"]

    def test_the_file_has_every_network_and_the_classes_names(self, tmp_path: Path) -> None:
        write_finals(tmp_path / "finals.parquet", {CHALLENGE: {"trial-003": networks(0.9, 0.7)}}, ["cat", "dog"])
        table = pq.read_table(tmp_path / "finals.parquet")
        assert table.column("confusion").to_pylist() == [[9, 1, 0, 0], [7, 3, 0, 0]]
        assert table.column("accuracy").to_pylist() == [0.9, 0.7]
        assert json.loads(table.schema.metadata[b"class_names"]) == ["cat", "dog"]

    def test_the_images_of_a_state_are_their_average_where_there_is_one(self) -> None:
        images, average = torch.zeros(2), torch.ones(2)
        assert images_of({"images": images}) is images
        assert images_of({"images": images, "ema": average}) is average


class TestPreset:
    def test_rules_come_before_set_and_before_options(self) -> None:
        space = load_space("digits", {"label_mode": "hard", "lr_label": "0"}, "datm", trials=3)
        assert space.parameters["label_mode"].source == "--set"
        assert space.parameters["zca"].source == "--preset datm"
        point = space.resolve(space.first())
        assert (point["label_mode"], point["zca"], point["trials"]) == ("hard", True, 3)

    def test_without_one_the_space_is_as_it_is(self) -> None:
        assert load_space("digits", {}) == load("digits")


# Two variants of the digits' range study, in a user's own file: less than the registered three.
MINE = """
from dataclasses import replace
from search_spaces import load

STUDY = load("digits_range_study")
VARIANTS = {name: STUDY.variants[name] for name in ("early", "late")}
PARAMETERS = {key: each for key, each in STUDY.parameters.items() if key != "trials"}
SPACE = replace(STUDY, name="mine", parameters=PARAMETERS, variants=VARIANTS)
"""


@pytest.mark.slow
class TestASmallStudy:
    @pytest.fixture(scope="class")
    def study(self, first: Sweep) -> Sweep:
        """Two variants, two repeats, with the experts of the first sweep."""
        space = first.workdir / "mine.py"
        space.write_text(MINE)
        small = [argument.replace("first_rung_iterations=5", "repeats=2") for argument in SMALL[4:]]
        done = run(
            "orchestrator.sweep", "--space", space, *small, "--set", "final_networks=2", "--set", "iterations=10",
            "--concurrent", 2, "--workdir", first.workdir, "--name", "study",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return Sweep(first.workdir, "study", done.stdout)

    @pytest.fixture(scope="class")
    def space(self, study: Sweep) -> Study:
        space = load(study.workdir / "mine.py")
        assert isinstance(space, Study)
        return space

    def test_result_has_a_summary_a_variant_over_its_repeats(self, study: Sweep, space: Study) -> None:
        result = study.result
        assert list(result).index("study") == list(result).index("comparisons") + 1
        assert result["trials"] == {"finished": 4, "pruned": 0, "failed": 0, "paused": 0}
        assert result["experts"]["trained"] == 0, "the experts are those of the digits' search"
        rows = pq.read_table(study.folder / "study.parquet").to_pylist()
        assert [(row["variant"], row["repeat"]) for row in rows] == [
            ("early", 0), ("late", 0), ("early", 1), ("late", 1),
        ]  # fmt: skip
        for name, variant in result["study"]["variants"].items():
            assert variant["settings"] == dict(space.variants[name])
            for metric in ("validation_accuracy", "accuracy", "macro_f1", "macro_recall"):
                values = [row[metric] for row in rows if row["variant"] == name]
                assert variant[metric]["values"] == values and variant[metric]["n"] == 2
                assert variant[metric]["mean"] == pytest.approx(np.mean(values))
                assert variant[metric]["std"] == pytest.approx(np.std(values, ddof=1))

    def test_the_winner_is_one_of_the_repeats_and_not_evaluated_again(self, study: Sweep) -> None:
        result = study.result
        assert set(result["finals"]) == {"winner", "paper_setting", "random_real", "full_data"}
        rows = {row["trial"]: row for row in pq.read_table(study.folder / "study.parquet").to_pylist()}
        for name, entry in (("winner", "best"), ("paper_setting", "paper")):
            summary = result["finals"][name]["accuracy"]
            assert summary["n"] == 2
            assert summary["mean"] == pytest.approx(rows[result[entry]["trial"]]["accuracy"])

    def test_trials_say_which_variant_and_repeat_they_are(self, study: Sweep) -> None:
        trials = pq.read_table(study.folder / "trials.parquet").to_pylist()
        assert [(row["variant"], row["repeat"], row["status"]) for row in trials] == [
            ("early", 0, "finished"), ("late", 0, "finished"), ("early", 1, "finished"), ("late", 1, "finished"),
        ]  # fmt: skip
        assert "trial-003 (late, repeat 1) finished at 10/10" in study.output
        settings = json.loads((study.folder / "settings.json").read_text())
        assert list(settings["space_record"]["variants"]) == ["early", "late"] and settings["fixed"]["trials"] == 4
        place = study.result["mlflow"]
        client = MlflowClient(place["tracking_uri"])
        parent = client.get_run(place["parent_run_id"])
        mean = study.result["study"]["variants"]["early"]["accuracy"]["mean"]
        assert parent.data.metrics["study_early_accuracy"] == mean
        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`mdatm.stage` = 'trial'"
        params = [child.data.params for child in client.search_runs([place["experiment_id"]], query)]
        assert sorted((each["variant"], each["repeat"]) for each in params) == [
            ("early", "0"), ("early", "1"), ("late", "0"), ("late", "1"),
        ]  # fmt: skip

    def test_repeats_have_seeds_of_their_own(self, study: Sweep) -> None:
        rows = pq.read_table(study.folder / "trials.parquet").to_pylist()
        measured = {(row["variant"], row["repeat"]): row["validation_accuracy_last"] for row in rows}
        assert any(measured[variant, 0] != measured[variant, 1] for variant in ("early", "late"))

    def test_table_report_and_pictures_show_every_variant(self, study: Sweep) -> None:
        report = (study.folder / "report.md").read_text()
        for name, variant in study.result["study"]["variants"].items():
            accuracy = variant["accuracy"]
            cell = f"{accuracy['mean']:.3f} ± {accuracy['std']:.3f}"
            assert name in study.output and cell in study.output and cell in report
        for figure in ("study.png", "variants.png", "synthetic.png", "trials.png"):
            assert f"figures/{figure}" in report
            with Image.open(study.folder / "figures" / figure) as picture:
                colors = picture.convert("RGB").getcolors(maxcolors=1 << 24)
                assert colors is not None and len(colors) > 8

    def test_the_set_is_named_by_its_variant(self, study: Sweep) -> None:
        synthetic = read_synthetic(study.folder / "synthetic.safetensors")
        assert synthetic.method == f"mine: {study.result['best']['config']['variant']}"
        assert synthetic.config == study.result["best"]["config"]
