"""Every worker's process has the arithmetic of its sweep, and PyTorch's switches for it agree with one another."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import trainables.workers
from tests.support.experts import expert_identity
from trainables.config.arithmetic import IEEE, PRECISIONS, Arithmetic
from trainables.errors import ConfigError
from trainables.experts.store import TrajectoryStore
from trainables.networks.convnet import ConvNet
from trainables.workers.baselines import BaselineMaker
from trainables.workers.correlation import RealSubset, measure_set
from trainables.workers.diagnostics import distances_of_experts, losses_of_trial
from trainables.workers.distilled_set import distil_set
from trainables.workers.expert import ExpertActor, ExpertWork
from trainables.workers.final import train_and_test
from trainables.workers.footprint import measure_footprint
from trainables.workers.process import CUBLAS_WORKSPACE, prepare_process, use_arithmetic
from trainables.workers.trial import DistillationTrial

DETERMINISTIC = Arithmetic(precision="fp32", deterministic=True)
TF32 = Arithmetic(precision="tf32", deterministic=False)
NOWHERE = Path("/nowhere/dataset.arrow")


def switches() -> dict[str, Any]:
    """What PyTorch's switches say, older and newer ones, and those that the compiler reads."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return {
        "tf32": {cuda.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision() == "high"}
        | {precision == "tf32" for precision in (cuda.fp32_precision, cudnn.conv.fp32_precision)},  # type: ignore[attr-defined]
        "deterministic": {torch.are_deterministic_algorithms_enabled(), cudnn.deterministic},
        "benchmark": cudnn.benchmark,
    }


def said(arithmetic: Arithmetic) -> dict[str, Any]:
    return {"tf32": {arithmetic.tf32}, "deterministic": {arithmetic.deterministic}, "benchmark": False}


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The switches are the process's; nothing else of the tests reads them on a CPU."""
    monkeypatch.setenv(CUBLAS_WORKSPACE[0], "")
    yield
    use_arithmetic("cpu", IEEE)


@pytest.mark.parametrize("before", [IEEE, TF32, DETERMINISTIC, None])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_all_switches_say_the_same_whatever_they_said(
    before: Arithmetic | None, precision: str, deterministic: bool
) -> None:
    if before is not None:
        use_arithmetic("cuda", before)
    else:  # as a user's code may have left them, with the newer switches
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    arithmetic = Arithmetic(precision=precision, deterministic=deterministic)
    use_arithmetic("cuda", arithmetic)
    assert switches() == said(arithmetic)
    assert os.environ[CUBLAS_WORKSPACE[0]] == (CUBLAS_WORKSPACE[1] if deterministic or before is DETERMINISTIC else "")


def test_a_step_compiles_with_the_switches_set() -> None:
    use_arithmetic("cuda", TF32)
    with torch.no_grad():
        compiled = torch.compile(lambda x, w: torch.conv2d(x, w) + 1, fullgraph=True)
        x, w = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
        assert torch.equal(compiled(x, w), torch.full((1, 1, 2, 2), 10.0))
    assert switches() == said(TF32)


def test_the_variable_of_cublas_cannot_come_after_cuda_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(RuntimeError, match="CUBLAS_WORKSPACE_CONFIG=:4096:8 must be set before CUDA starts"):
        use_arithmetic("cuda", DETERMINISTIC)


def test_a_cpu_computes_as_it_does_without_the_keys() -> None:
    prepare_process("cpu", DETERMINISTIC)
    assert switches() == said(IEEE) and torch.get_num_threads() == 1
    with pytest.raises(ConfigError, match="precision tf32 needs a GPU"):
        prepare_process("cpu", TF32)


def test_an_expert_on_a_cpu_has_the_same_bits_whatever_the_key(
    digits_path: Path, small_network: ConvNet, tmp_path: Path
) -> None:
    experts = []
    for arithmetic in (IEEE, DETERMINISTIC):
        identity = expert_identity(small_network, ("rotate", "scale"), arithmetic=arithmetic)
        store = TrajectoryStore(tmp_path, identity)
        actor = ExpertActor(
            ExpertWork(dataset=digits_path, store=store, epochs=2, device="cpu", kept=digits_path.parent), 0.0
        )
        actor.begin([0], ())
        actor.train_epoch()
        store.record(actor.train_epoch().finished)
        experts.append(store.open([0], 2).snapshot(0, 2))
    assert torch.equal(*experts)


def work(arithmetic: Arithmetic) -> Any:
    return SimpleNamespace(device="cuda", arithmetic=arithmetic, dataset=NOWHERE, store=None)


TRAIN_AND_TEST: Any = train_and_test  # without a network, a protocol and an augmentation
ENTRIES: dict[str, Callable[[Arithmetic, Path], object]] = {
    "baselines": lambda arithmetic, _: BaselineMaker(work(arithmetic), 0),
    "correlation": lambda arithmetic, _: measure_set(work(arithmetic), RealSubset(1, 0)),
    "diagnostics": lambda arithmetic, _: distances_of_experts(work(arithmetic), 1),
    "diagnostics, losses": lambda arithmetic, _: losses_of_trial(work(arithmetic), {}, None, 1, 1, 0),
    "distilled_set": lambda arithmetic, folder: distil_set(work(arithmetic), {}, f"{folder}/none.safetensors"),
    "expert": lambda arithmetic, _: ExpertActor(work(arithmetic), 1.0),
    "final": lambda arithmetic, _: TRAIN_AND_TEST(NOWHERE, None, None, None, None, 0, "cuda", arithmetic),
    "footprint": lambda arithmetic, _: measure_footprint(work(arithmetic), {}),
    "trial": lambda arithmetic, _: object.__new__(DistillationTrial).setup({}, work(arithmetic)),
}
"""The work of each function and class that Ray runs, on a dataset that is not there: it fails after its first line."""


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("arithmetic", [IEEE, TF32, DETERMINISTIC], ids=["IEEE", "TF32", "deterministic"])
def test_every_worker_begins_with_its_sweeps_arithmetic(entry: str, arithmetic: Arithmetic, tmp_path: Path) -> None:
    use_arithmetic("cuda", IEEE if arithmetic is not IEEE else TF32)
    with pytest.raises(Exception):  # noqa: B017 - what fails first depends on the worker
        ENTRIES[entry](arithmetic, tmp_path)
    assert switches() == said(arithmetic)


def test_experts_that_are_to_have_the_same_bits_again_are_trained_one_by_one() -> None:
    actor: Any = object.__new__(ExpertActor)
    actor._work, actor._gpu_share = work(DETERMINISTIC), 1.0
    actor._trainer = None
    assert actor.at_once() == 1
    actor._work = work(IEEE)
    with pytest.raises(AttributeError):  # the trainer is asked, which is not there
        actor.at_once()


def test_these_are_all_workers() -> None:
    modules = Path(trainables.workers.__path__[0]).glob("*.py")
    prepared = {module.stem for module in modules if "prepare_process(" in module.read_text()} - {"process"}
    assert prepared == {entry.partition(",")[0] for entry in ENTRIES}
