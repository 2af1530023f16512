"""The benchmarks run, and say what they measured; how fast anything was is not asserted."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import evaluator, experts, gradient, headline, kept_graphs, soak
from benchmarks.measure import fresh_process
from benchmarks.pictures import draw_curve_plainly
from benchmarks.published import PUBLISHED, settings_of
from benchmarks.record import VERSION
from benchmarks.servers import postgresql_programs
from tests.support.paths import ROOT
from trainables.workers.process import ALLOCATOR

SMALL = {"--steps": 2, "--images": 4, "--width": 8, "--size": 8, "--threads": 1, "--rounds": 1}
NUMBERS = {"seconds", "seconds_by_round", "peak_mb", "relative_error", "reference", "speed"}
IDENTITY = {"method", "allocator", "steps", "dtype", "device", "fits", "setting"}


def records_of(command: Any, path: Path, options: dict[str, Any], *more: str) -> list[dict[str, Any]]:
    words = [str(word) for pair in options.items() for word in pair]
    done = CliRunner().invoke(command, [*words, *more, "--json", str(path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    records: list[dict[str, Any]] = json.loads(path.read_text())
    return records


@pytest.mark.slow
def test_a_gradient_has_a_record_for_each_method_and_allocator(tmp_path: Path) -> None:
    methods = ("--method", "unrolled,truncated,exact")
    records = records_of(gradient.main, tmp_path / "gradient.json", SMALL, *methods)
    assert [(record["method"], record["allocator"]) for record in records] == [
        ("unrolled", "default"),
        ("unrolled", "tuned"),
        ("truncated", "tuned"),
        ("exact", "tuned"),
    ]
    assert all(record.keys() == IDENTITY | NUMBERS and record["fits"] for record in records)
    unrolled, tuned, truncated, exact = records
    assert unrolled["speed"] == 1 and unrolled["reference"] == "unrolled fp64"
    assert max(unrolled["relative_error"], tuned["relative_error"], exact["relative_error"]) < 1e-3
    assert truncated["relative_error"] > exact["relative_error"]
    assert exact["setting"]["images"] == 4


def test_a_method_that_does_not_fit_is_estimated_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "HEADROOM", 0)
    records = records_of(gradient.main, tmp_path / "gradient.json", SMALL, "--method", "unrolled")
    assert [record["allocator"] for record in records] == ["default", "tuned"]
    for record in records:
        assert not record["fits"]
        assert record["estimated_peak_mb"] > 0 and record["free_mb"] > 0
        assert record["seconds"] is record["peak_mb"] is record["speed"] is None


def test_a_process_has_the_allocator_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ((name, value),) = ALLOCATOR.items()
    monkeypatch.setenv(name, "glibc.malloc.check=0")
    with fresh_process() as usual, fresh_process(allocator=True) as tuned:
        assert usual.submit(os.getenv, name).result() is None
        assert tuned.submit(os.getenv, name).result() == value
    assert os.environ[name] == "glibc.malloc.check=0"


@pytest.mark.slow
def test_the_evaluator_and_the_experts_write_a_list_of_records(tmp_path: Path) -> None:
    small = {"--images": 8, "--size": 8, "--classes": 2, "--width": 4, "--epochs": 1}
    ways = records_of(evaluator.main, tmp_path / "ways.json", {**small, "--networks": 2, "--repeats": 1})
    assert [record["way"] for record in ways] == ["one at a time", "side by side"]
    assert ways[0]["speed"] == 1 and all(record["peak_bytes"] > 0 and "date" in record["setting"] for record in ways)
    costs = records_of(experts.main, tmp_path / "experts.json", {**small, "--at-once": 2, "--turns": 1})
    assert [record["variant"] for record in costs] == ["one at a time", "2 at once", "22 epochs", "100 epochs"]
    assert costs[0]["seconds_ratio"] == 1 and costs[1]["peak_bytes"] > 0 and "cpu" in costs[0]["setting"]


@pytest.mark.slow
def test_kept_graphs_have_a_record_for_each_variant_and_take_memory(tmp_path: Path) -> None:
    small = {"--steps": 6, "--kept": "0,2,6", "--images": 8, "--width": 8, "--size": 8, "--rounds": 1}
    records = records_of(kept_graphs.main, tmp_path / "kept.json", small)
    kept = ["0 graphs kept", "2 graphs kept", "6 graphs kept"]
    assert [record["variant"] for record in records] == [*kept_graphs.LAYERS, *kept]
    assert all(record["seconds"] > 0 and record["speed"] > 0 for record in records)
    none, few, all_of_them = (record["live_bytes"] for record in records[-3:])
    assert 0 < none < few < all_of_them
    assert records[0]["speed"] == 1 and records[0]["setting"]["kept"] == [0, 2, 6]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for one another: what they cost on a busy machine, a small network never pays back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_headline_goes_from_experts_to_the_test_split(tmp_path: Path) -> None:
    common = ["--dataset", "digits", "--ipc", "1", "--width", "8", "--workdir", str(tmp_path / "work")]
    tiny = ["--budget-s", "40", "--experts", "2", "--iterations", "3", "--networks", "2", "--set", "N=5"]
    tiny += ["--set", "expert_batch_size=512"]  # few steps: two experts fit into their share on a busy machine too
    headline.main([*common, *tiny, "--out", str(tmp_path / "first")])
    record = json.loads((tmp_path / "first" / "headline.json").read_text())
    assert record["finished"] and record["version"] == VERSION
    assert (record["experts"]["count"], record["experts"]["found"], record["experts"]["epochs"]) == (2, 0, 9)
    first, *_, last = record["curve"]
    assert (first["iteration"], first["matching_loss"], last["iteration"]) == (0, None, 3)
    assert first["seconds"] < last["seconds"] and 0 <= last["validation_accuracy"] <= 1 and last["matching_loss"] > 0
    assert record["test"]["n"] == len(record["test"]["values"]) == 2 and record["test"]["epochs"] <= 1001
    assert record["published_accuracy"] is None
    for text in ("experts: 2 of 9 epochs", "3 of 150 iterations", "N = 5", "width 8", "2 networks"):
        assert any(text in deviation for deviation in record["deviations"]), text
    assert torch.load(tmp_path / "first" / "synthetic.pt", weights_only=True).shape == (10, 1, 8, 8)
    for name in ("curve.png", "images.png"):
        assert min(Image.open(tmp_path / "first" / name).size) > 100

    (lost,) = (tmp_path / "work" / "experts").glob("*/expert-0000.arrow")
    lost.unlink()
    headline.main([*common, *tiny, "--out", str(tmp_path / "second")])
    again = json.loads((tmp_path / "second" / "headline.json").read_text())
    assert (again["experts"]["count"], again["experts"]["found"]) == (2, 1)
    assert any("not in this budget: 1" in deviation for deviation in again["deviations"])
    assert again["curve"][-1]["alpha"] == last["alpha"]  # the lost expert is the same again, and so is what follows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ipc", "3"], "no setting is known for digits at 3 images per class"),
        (["--set", "iterations=3"], "--set does not take iterations here"),
        (["--set", "Q=3"], "unknown parameter Q"),
        (["--set", "N"], "--set takes NAME=VALUE, not 'N'"),
        (["--set", "precision=tf32"], "precision tf32 needs a GPU"),
        (["--budget-s", "soon"], "must be a number of seconds larger than 0, not 'soon'"),
        (["--budget-s", "0.01"], "raise --budget-s"),
        (["--classes", "11"], "classes must be 0 (all) or 2 to 10"),
    ],
)
def test_what_a_headline_cannot_do_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        headline.main(["--dataset", "digits", "--ipc", "1", "--budget-s", "60", "--out", str(out), *words])
    assert end.value.code == 2 and not out.exists()
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.rare
@pytest.mark.skipif(postgresql_programs() is None, reason="Debian's postgresql is not installed")
def test_a_soak_counts_a_run_a_trial(tmp_path: Path) -> None:
    (record,) = records_of(soak.main, tmp_path / "soak.json", {"--trials": 8, "--concurrent": 1, "--rungs": 1})
    assert record["trials"] == record["results"] == record["mlflow_runs"] == record["mlflow_trials"] == 8
    assert record["mlflow_entries_left"] == 0 and record["samples"][-1]["trials"] == 8
    assert all(record["after"][name] > 0 for name in ("memory_bytes", "handles", "threads"))


def test_a_slope_is_the_growth_a_trial_after_the_warm_up() -> None:
    memory = [(1, 5_000), (2, 9_000), (4, 10_000), (8, 14_000), (16, 22_000)]
    samples = [soak.Sample(trials=trials, memory_bytes=size, handles=1, threads=1) for trials, size in memory]
    assert soak.slope(samples) == pytest.approx(1_000)


def test_a_headline_needs_few_packages() -> None:
    unwanted = "ray", "optuna", "mlflow", "safetensors", "click", "rich", "pandas", "sklearn", "matplotlib"
    text = f"import sys, benchmarks.headline; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("dataset", "published"), [("cifar100", 0.4061), ("tiny_imagenet", 0.1831)])
def test_the_published_settings_are_those_of_the_paper(dataset: str, published: float) -> None:
    source, settings = settings_of(dataset, 10)
    assert "M-DATM Table 1" in source and PUBLISHED[dataset, 10] == published
    assert (settings["N"], settings["M"], settings["T_width"], settings["T_growth"]) in [(40, 2, 15, 5), (25, 2, 15, 5)]
    assert settings["net_depth"] == 3 and settings["label_mode"] == "hard" and not settings["zca"]


def test_without_matplotlib_a_curve_is_drawn_all_the_same(tmp_path: Path) -> None:
    draw_curve_plainly(tmp_path / "curve.png", [3.0, 5.0, 9.0], [0.1, 0.3, 0.4], "digits, 1 per class", 2.0)
    assert len(Image.open(tmp_path / "curve.png").convert("RGB").getcolors(10**6) or []) > 3
