"""`python -m benchmarks.gpu` as a whole: on a pretended GPU, without most packages, and with invalid input."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from benchmarks import gpu
from benchmarks.device.jobs import Job, Part
from benchmarks.device.record import Record
from benchmarks.device.results import Fact
from benchmarks.device.sizes import Shares, Sizes, cpu_sizes
from benchmarks.device.trainings import ExpertWork
from benchmarks.device.whole_run import HeadlineWork
from benchmarks.evaluation import Work
from benchmarks.matching import MatchingProblem
from tests.support.paths import ROOT
from tests.support.pretended_cuda import PretendedTensor, pretended_cuda, real

LACKING = ("ray", "mlflow", "optuna", "rich", "orchestrator", "psutil", "sklearn", "safetensors", "matplotlib")
"""Packages that a GPU machine may lack; what imports one there fails."""


def black_box(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Stands for torch.compile: tensors of the device go in and come out, and what is between is not ours."""

    def run(*arguments: Any) -> Any:
        results = function(*(real(value) if isinstance(value, Tensor) else value for value in arguments))
        return PretendedTensor(results) if isinstance(results, Tensor) else tuple(map(PretendedTensor, results))

    return run


@contextmanager
def pretended_gpu() -> Iterator[None]:
    torch.set_num_threads(1)
    absent = mock.patch.dict(sys.modules, dict.fromkeys(LACKING))
    with pretended_cuda(), mock.patch.object(torch, "compile", black_box), absent:
        yield


def tiny_sizes() -> Sizes:
    problem = MatchingProblem(
        images=8, classes=4, size=8, width=4, depth=1, steps=2, batch=6, families=("crop", "scale"), alpha=0.3
    )
    return replace(
        cpu_sizes(),
        shares=Shares(machine=0.9, correctness=0.9, gradient=0.9, experts=0.9, networks=0.9, sharing=0.9, headline=1.0),
        check=replace(problem, size=4),
        settings={"tiny": problem},
        precisions=("fp32", "tf32", "bf16"),
        compiled=(("tiny", "tf32"),),
        samples=1,
        compile_seconds=0.0,
        experts=ExpertWork(images=16, classes=4, size=8, width=4, depth=1, batch=8),
        networks=Work(device="cuda", networks=2, epochs=1, images=8, classes=4, channels=3, size=8, depth=1, width=4),
        shared=(problem,),
        share_seconds=0.01,
        headline=HeadlineWork(
            made_each=12,
            least_seconds=0.0,
            options=(
                *(
                    "--budget-s",
                    "30",
                    "--classes",
                    "2",
                    "--width",
                    "4",
                    "--experts",
                    "1",
                    "--iterations",
                    "1",
                    "--networks",
                    "1",
                ),
                *("--set", "N=2", "--set", "M=1", "--set", "T_width=1", "--set", "T_growth=0", "--set", "batch_syn=4"),
            ),
        ),
    )


@pytest.mark.slow
def test_it_runs_whole_on_a_pretended_gpu(tmp_path: Path) -> None:
    record = gpu.run(tiny_sizes(), device="cuda", minutes=6, out=tmp_path, around=pretended_gpu)
    content = json.loads((tmp_path / "gpu.json").read_text())
    ends = {(job["part"], job["job"]): (job["how"], job["reason"]) for job in content["jobs"]}
    assert set(ends.values()) == {("done", "")}, ends
    assert record.correct and content["finished"] and content["correct"]
    parts = {job["part"]: [result["name"] for result in job["results"]] for job in content["jobs"]}
    names = [result["name"] for job in content["jobs"] for result in job["results"] if result["kind"] == "measurement"]
    assert names == [
        "tiny, eager, fp32",
        "tiny, eager, fp32, graphs kept",
        "tiny, eager, tf32",
        "tiny, eager, tf32, graphs kept",
        "tiny, a weight term by wide convolutions, fp32",
        "tiny, a weight term by ordinary convolutions, fp32",
        "tiny, a weight term by wide convolutions, tf32",
        "tiny, a weight term by ordinary convolutions, tf32",
        "tiny, compiled, tf32",
        "experts, 1 at once, fp32",
        "experts, 2 at once, fp32",
        "experts, 1 at once, tf32",
        "experts, 2 at once, tf32",
        "2 networks on a set, one at a time, fp32",
        "2 networks on a set, side by side, fp32",
        "2 networks on a set, one at a time, tf32",
        "2 networks on a set, side by side, tf32",
        "8 images, 1 process",
        "8 images, 2 processes",
        "headline, an expert",
        "headline, an iteration",
        "headline, test accuracy",
    ]
    assert {"gpu", "GPU memory", "driver", "torch", "date"} <= set(parts["machine"])
    page = (tmp_path / "gpu.md").read_text()
    assert page == record.page() and all(f"| {name} |" in page for name in names)
    assert (tmp_path / "headline" / "synthetic.pt").exists()


def number(value: int, deadline: float) -> Iterator[Fact]:
    yield Fact(name="process", value=str(os.getpid()))
    if value < 0:
        raise ValueError(f"{value} is negative")


def test_a_failure_costs_its_process_and_a_job_without_time_is_skipped() -> None:
    jobs = [Job(name=str(value), run=number, arguments=(value,), fresh=value == 3) for value in (1, 2, -1, 3, 4, 5)]
    part, bench = Part(name="numbers", until=1.0, jobs=tuple(jobs)), gpu.Bench(nullcontext)
    try:
        far = time.monotonic() + 600
        outcomes = [bench.run(part, job, far if job.name != "5" else time.monotonic()) for job in jobs]
    finally:
        bench.end()
    assert [(outcome.job, outcome.how, outcome.reason) for outcome in outcomes] == [
        ("1", "done", ""),
        ("2", "done", ""),
        ("-1", "failed", "ValueError: -1 is negative"),
        ("3", "done", ""),
        ("4", "done", ""),
        ("5", "skipped", "no time was left for it"),
    ]
    processes = [outcome.results for outcome in outcomes]
    first, second, failed, fresh, last, none = processes
    assert first == second == failed != fresh == last and none == ()


def test_it_is_imported_without_what_a_gpu_machine_may_lack() -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({LACKING})); import benchmarks.gpu"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--device cuda needs a CUDA device, and this machine has none; use --device cpu"),
        (["--device", "cpu", "--data", "EMPTY"], "holds none of the datasets tiny_imagenet, cifar100, cifar10"),
        (["--device", "cpu", "--minutes", "0"], "'--minutes'"),
    ],
)
def test_invalid_input_is_refused_before_any_work(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path / "empty") if word == "EMPTY" else word for word in words]
    done = CliRunner().invoke(gpu.main, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and said in done.output and not (tmp_path / "out").exists()
    assert sum(line.startswith("Error:") for line in done.output.splitlines()) == 1


def test_a_wrong_value_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(device="cpu", minutes=1, sizes=cpu_sizes())  # nothing was checked
    monkeypatch.setattr(gpu, "run", lambda sizes, **options: record)
    done = CliRunner().invoke(gpu.main, ["--device", "cpu", "--out", str(tmp_path)])
    assert done.exit_code == 1 and "## Correctness: not all checked" in done.output
