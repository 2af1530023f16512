"""The main job in real processes: Ray, SQLite and MLflow as a user gets them."""

import json
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

from orchestrator.results.trials import images_of
from search_spaces import load
from tests.support.processes import assert_refused, run
from tests.support.sweeps import SMALL, Sweep
from trainables.data.synthetic import read_challenge, read_synthetic
from trainables.storage.checkpoints import read_checkpoint

pytestmark = pytest.mark.slow


class TestWhatASweepLeaves:
    def test_result_has_the_form_of_the_contract(self, first: Sweep) -> None:
        result = first.result
        assert list(result) == [
            "version", "sweep", "space", "status", "seed", "dataset", "trials", "best", "paper", "movement", "finals",
            "comparisons", "experts", "workers", "arithmetic", "seconds", "planned_trial", "mlflow", "files",
        ]  # fmt: skip
        assert result["version"] == 1 and result["sweep"] == "first" and result["space"] == "digits"
        assert result["status"] == "finished" and result["seed"] == 0
        assert sum(result["trials"].values()) == 4 and result["trials"]["failed"] == 0
        assert set(result["finals"]) == {"winner", "paper_setting", "random_real", "full_data"}
        assert result["arithmetic"] == {"device": "cpu", "precision": "fp32", "deterministic": False}
        assert set(result["experts"]) == {"count", "trained", "reused", "epochs", "bytes"}
        assert set(result["seconds"]) == {"experts", "search", "finals", "total"}
        assert set(result["mlflow"]) == {"tracking_uri", "experiment_id", "parent_run_id", "compare_url"}
        for place in result["files"].values():
            assert (first.folder / place).stat().st_size > 0

    def test_finals_are_summaries_of_their_values(self, first: Sweep) -> None:
        for metrics in first.result["finals"].values():
            assert set(metrics) == {"accuracy", "macro_f1", "macro_recall"}
            for summary in metrics.values():
                values = summary["values"]
                assert summary["n"] == len(values) == 2
                assert all(0 <= value <= 1 for value in values)
                assert summary["mean"] == pytest.approx(np.mean(values))
                assert summary["std"] == pytest.approx(np.std(values, ddof=1))

    def test_trial_0_ran_the_reference_setting_to_its_end(self, first: Sweep) -> None:
        paper = first.result["paper"]
        assert paper["trial"] == "trial-000"
        reference = load("digits").first()
        assert {key: paper["config"][key] for key in reference} == reference
        table = pq.read_table(first.folder / "trials.parquet").to_pylist()
        assert table[0]["status"] == "finished" and table[0]["iterations_done"] == 20

    def test_the_best_trial_is_the_best_of_those_that_went_furthest(self, first: Sweep) -> None:
        rows = pq.read_table(first.folder / "trials.parquet").to_pylist()
        furthest = max(row["iterations_done"] for row in rows)
        accuracy = max(row["validation_accuracy_last"] for row in rows if row["iterations_done"] == furthest)
        assert first.result["best"]["validation_accuracy"] == accuracy

    def test_trials_parquet_has_a_row_a_trial_and_a_column_a_rung(self, first: Sweep) -> None:
        rows = pq.read_table(first.folder / "trials.parquet").to_pylist()
        assert [row["number"] for row in rows] == [0, 1, 2, 3]
        for row in rows:
            rungs = {key: row[f"validation_accuracy_{key}"] for key in (5, 10, 15, 20)}
            reached = [rung for rung in rungs if rung <= row["iterations_done"]]
            assert all((rungs[rung] is not None) == (rung in reached) for rung in rungs)
            assert row["validation_accuracy_last"] == rungs[reached[-1]]
            assert row["validation_accuracy_best"] == max(rungs[rung] for rung in reached)
            assert row["seconds"] > 0
            assert row["status"] == ("finished" if row["iterations_done"] == 20 else "pruned")
            assert (row["reason"] == "") == (row["status"] == "finished")

    def test_the_synthetic_set_says_what_it_is(self, first: Sweep) -> None:
        synthetic = read_synthetic(first.folder / "synthetic.safetensors")
        assert synthetic.images.shape == (10, 1, 8, 8) and synthetic.images.dtype == torch.float32
        assert synthetic.labels.tolist() == list(range(10))
        assert synthetic.dataset == "digits" and synthetic.method == "M-DATM" and synthetic.ipc == 1
        assert synthetic.config == first.result["best"]["config"]
        assert synthetic.provenance["sweep"] == "first"
        assert synthetic.provenance["trial"] == first.result["best"]["trial"]
        bare, _ = read_challenge(first.folder / "synthetic.pt", classes=10, channels=1, image_size=8)
        assert torch.equal(bare, synthetic.images)

    def test_the_report_answers_and_shows(self, first: Sweep) -> None:
        report = (first.folder / "report.md").read_text()
        mean = first.result["finals"]["winner"]["accuracy"]["mean"]
        assert f"**{first.result['best']['trial']}**" in report and f"{mean:.3f}" in report
        for number in range(4):
            assert f"trial-{number:03d}" in report
        page = (first.folder / "report.html").read_text()
        assert page.count('src="data:image/png') == report.count("![") and "http" not in page
        for figure in ("figures/synthetic.png", "figures/trials.png"):
            assert figure in report
            with Image.open(first.folder / figure) as picture:
                assert len(picture.convert("L").getcolors(maxcolors=256) or [0] * 256) > 8

    def test_the_report_can_be_made_again_from_what_was_left(self, first: Sweep) -> None:
        pages = [first.folder / name for name in ("report.md", "report.html", "figures/trials.png")]
        before = [page.read_bytes() for page in pages]
        for page in pages:
            page.unlink()
        done = run("orchestrator.report", "--workdir", first.workdir, "--sweep", "first")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{first.folder}/report.html"
        assert [page.read_bytes() for page in pages] == before

    def test_several_sweeps_have_a_page(self, first: Sweep, second: Sweep) -> None:
        done = run("orchestrator.report", "--workdir", first.workdir, "--sweep", "first,second")
        assert done.returncode == 0, done.stderr
        page = Path(done.stdout.strip())
        assert page == first.workdir / "reports" / "first+second.html"
        text = page.read_text()
        assert text.count('src="data:image/png') == 4 and "http" not in text
        assert "first − second" in text and "no test: n = 2" in text
        unfinished = run("orchestrator.report", "--workdir", first.workdir, "--sweep", "first,other")
        assert_refused(unfinished, "no sweep named 'other'", "first", "second")

    def test_the_study_tells_pruned_from_complete(self, first: Sweep) -> None:
        study = optuna.load_study(study_name="first", storage=f"sqlite:///{first.workdir / 'optuna.db'}")
        rows = {row["number"]: row for row in pq.read_table(first.folder / "trials.parquet").to_pylist()}
        for trial in study.trials:
            row = rows[trial.number]
            assert trial.state.name == {"finished": "COMPLETE", "pruned": "PRUNED"}[row["status"]]
            assert max(trial.intermediate_values) == row["iterations_done"]
            assert trial.value == row["validation_accuracy_last"]


class TestFinalSeeds:
    def test_the_settings_are_distilled_again_whole_with_seeds_of_their_own(self, second: Sweep) -> None:
        repeats, best = second.result["repeats"], second.result["best"]
        names = ["winner"] if best["trial"] == "trial-000" else ["winner", "paper_setting"]
        assert list(repeats["variants"]) == names
        rows = pq.read_table(second.folder / "repeats.parquet").to_pylist()
        assert [(row["variant"], row["repeat"]) for row in rows] == [(name, k) for k in range(2) for name in names]
        for key in ("N", "T_minus", "T_plus", "lr_pixel"):
            assert {row[key] for row in rows if row["variant"] == "winner"} == {best["config"][key]}
        checkpoints = second.folder / "checkpoints"
        images = [
            images_of(read_checkpoint(str(place)) or {})
            for place in (
                checkpoints / f"{best['trial']}.safetensors",
                *sorted(checkpoints.glob("final/*0.safetensors")),
            )
        ]
        assert len(images) == 2 and not torch.equal(*images)

    def test_a_value_is_a_distillation_and_the_mean_of_its_networks(self, second: Sweep) -> None:
        networks = pq.read_table(second.folder / "finals.parquet").to_pylist()
        rows = pq.read_table(second.folder / "repeats.parquet").to_pylist()
        for row in rows:
            reached = [each["accuracy"] for each in networks if each["set"] == row["trial"]]
            assert len(reached) == row["networks"] == 2 and row["accuracy"] == pytest.approx(np.mean(reached))
        for name, variant in second.result["repeats"]["variants"].items():
            assert variant["accuracy"]["values"] == [row["accuracy"] for row in rows if row["variant"] == name]

    def test_the_headline_speaks_of_them_and_of_too_few_to_test(self, second: Sweep) -> None:
        report, summary = (second.folder / "report.md").read_text(), second.result["repeats"]["variants"]["winner"]
        assert f"**{summary['accuracy']['mean']:.3f} ± {summary['accuracy']['std']:.3f}** test accuracy" in report
        assert "over 2 distillations with seeds that the search never saw" in report
        assert "no test: n = 2" in report
        assert "Distilled again with fresh seeds" in second.output


class TestTracking:
    def test_one_parent_and_one_child_a_trial_with_params_metrics_status_and_images(self, first: Sweep) -> None:
        place = first.result["mlflow"]
        client = MlflowClient(place["tracking_uri"])
        parent = client.get_run(place["parent_run_id"])
        assert parent.info.status == "FINISHED" and parent.info.run_name == "first"
        assert parent.data.params["ipc"] == "1" and parent.data.params["seed"] == "0"
        winner = first.result["finals"]["winner"]["accuracy"]["mean"]
        assert parent.data.metrics["winner_accuracy"] == winner
        assert "report.md" in {file.path for file in client.list_artifacts(parent.info.run_id)}

        query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`mdatm.stage` = 'trial'"
        children = {
            run.info.run_name: run for run in client.search_runs([place["experiment_id"]], query, max_results=100)
        }
        rows = {row["id"]: row for row in pq.read_table(first.folder / "trials.parquet").to_pylist()}
        assert children.keys() == rows.keys()
        for name, child in children.items():
            row = rows[name]
            assert child.info.status == {"finished": "FINISHED", "pruned": "KILLED"}[row["status"]]
            assert child.data.tags["mdatm.outcome"] == row["status"]
            own = set(load("digits").trial_keys)
            assert child.data.params == {"trial_number": str(row["number"]), **{key: str(row[key]) for key in own}}
            assert not own & parent.data.params.keys()
            history = client.get_metric_history(child.info.run_id, "validation_accuracy")
            assert [(metric.step, metric.value) for metric in history] == [
                (rung, row[f"validation_accuracy_{rung}"]) for rung in range(5, row["iterations_done"] + 1, 5)
            ]
            for metric in ("matching_loss", "alpha", "skip_rate", "image_displacement", "seconds_per_iteration"):
                assert len(client.get_metric_history(child.info.run_id, metric)) == len(history)
            images = [file.path.split("+")[:3] for file in client.list_artifacts(child.info.run_id, "images")]
            steps = [step for step in range(5, row["iterations_done"] + 1, 5) for _ in range(2)]  # large and small
            assert sorted(int(step) for _, _, step in images) == steps

    def test_artifacts_lie_in_the_workdir(self, first: Sweep) -> None:
        assert list((first.workdir / "mlartifacts").rglob("synthetic+step+20+*.png"))

    def test_the_compare_address_names_every_trial(self, first: Sweep) -> None:
        assert first.result["mlflow"]["compare_url"].startswith("http://127.0.0.1:5000/#/compare-runs?runs=")
        assert first.result["mlflow"]["compare_url"].count("%22%2C%20%22") == 3


class TestAgain:
    def test_trains_no_expert_and_says_so(self, first: Sweep, second: Sweep) -> None:
        assert first.result["experts"]["trained"] == 2 and first.result["experts"]["reused"] == 0
        assert second.result["experts"]["trained"] == 0 and second.result["experts"]["reused"] == 2
        assert "0 trained, 2 reused" in second.output

    def test_makes_identical_proposals_and_images_bit_for_bit(self, first: Sweep, second: Sweep) -> None:
        tables = [pq.read_table(sweep.folder / "trials.parquet").drop_columns(["seconds"]) for sweep in (first, second)]
        assert tables[0].to_pylist() == tables[1].to_pylist()
        sets = [read_synthetic(sweep.folder / "synthetic.safetensors") for sweep in (first, second)]
        assert torch.equal(sets[0].images, sets[1].images)
        finals = second.result["finals"]  # whatever else they measure
        assert first.result["finals"] == {name: finals[name] for name in first.result["finals"]}
        assert {"k_center", "rded"} <= finals.keys() and list(second.result["regimes"]) == ["soft", "soft_kd"]

    def test_the_same_command_shows_what_is_finished(self, first: Sweep) -> None:
        before = json.dumps(first.result)
        command = ("orchestrator.sweep", *SMALL, "--workdir", first.workdir, "--name", "first")
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert "best trial" in done.stdout and "Experts:" not in done.stdout
        assert json.dumps(first.result) == before
        assert run(*command, "--quiet").stdout == done.stdout  # which leaves out all but the result
