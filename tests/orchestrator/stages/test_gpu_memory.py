"""Workers whose GPU has too little memory, in a real Ray: every stage ends with the remedy and exit code 3."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

import orchestrator.stages.baselines
import trainables.workers.expert
from orchestrator.cluster.connection import connected
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import run_tasks
from orchestrator.errors import GpuMemoryError
from orchestrator.results.entries import ComparedSet
from orchestrator.stages import comparison, correlation, diagnostics, finals
from orchestrator.stages.baselines import Baselines
from orchestrator.stages.experts import ensure_experts
from orchestrator.stages.inputs import Inputs, prepare_inputs
from orchestrator.state.progress import Progress
from orchestrator.state.workdir import Workdir
from search_spaces import load
from tests.support.builders import sweep_settings, trial_record
from tests.support.gpu_memory import GPU_MEMORY_ERRORS
from tests.support.losses import patience
from trainables.workers.baselines import BaselineMaker
from trainables.workers.correlation import RealSubset

pytestmark = pytest.mark.slow

Stage = Callable[[Inputs, Resources, pytest.MonkeyPatch], None]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def resources() -> Iterator[Resources]:
    with connected("local", None, workers=1) as resources:
        yield resources


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    space = load("digits").override({"baselines": "random"})
    return prepare_inputs(sweep_settings(space=space, workdir=Workdir(tmp_path_factory.mktemp("memory"))), QUIET)


def failing(name: str) -> Callable[..., Any]:
    """A worker's function that finds no memory."""
    error = GPU_MEMORY_ERRORS[name]

    def fail(_: Any = None, *__: Any, **___: Any) -> Any:  # of a method, Ray takes the first for its self
        raise error

    return fail


def in_an_expert_actor(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    methods = {"train_epoch": failing("cuDNN's engines")}
    patch.setattr(
        trainables.workers.expert, "ExpertActor", type("A", (trainables.workers.expert.ExpertActor,), methods)
    )
    ensure_experts(inputs, resources, QUIET, patience())


def in_the_start_of_an_expert_actor(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    methods = {"__init__": failing("the driver")}
    patch.setattr(
        trainables.workers.expert, "ExpertActor", type("A", (trainables.workers.expert.ExpertActor,), methods)
    )
    ensure_experts(inputs, resources, QUIET, patience())


def in_the_finals(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(finals, "train_and_test", failing("PyTorch's allocator"))
    finals.run_finals(
        inputs, resources, {}, Progress(inputs.settings.places.folder), lambda: None, QUIET, patience(),
        best="", save_model=lambda _: None, follow=lambda _: None,
    )  # fmt: skip


def in_a_distillation_of_a_comparison(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(comparison, "distil_set", failing("cuBLAS"))
    inputs = replace(inputs, settings=replace(inputs.settings, space=load("digits_regimes")))
    task = comparison._distillation(inputs, resources, ComparedSet("m_datm", 1), 0)
    run_tasks({"a": task}, resources, patience(), lambda *_: None)


def in_a_baseline(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    maker = type("B", (BaselineMaker,), {"make": failing("the driver")})
    patch.setattr(orchestrator.stages.baselines, "BaselineMaker", maker)
    tasks = Baselines(inputs, resources, [ComparedSet("herding", 1)], teacher=False).tasks()
    run_tasks(tasks, resources, patience(), lambda *_: None)


def in_the_diagnostics(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(diagnostics, "distances_of_experts", failing("Triton"))
    settings = inputs.settings.space.resolve(inputs.settings.space.first())
    diagnostics.measure_diagnostics(
        inputs, resources, trial_record(settings=settings), None, QUIET, patience(), follow=lambda _: None
    )


def in_a_measurement_for_dcs(inputs: Inputs, resources: Resources, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(correlation, "measure_set", failing("cuDNN's handle"))
    sources = {("random", 1): RealSubset(ipc=1, seed=0)}
    work: Any = None  # the worker fails before it reads it
    correlation._measure(work, sources, resources, None, QUIET, patience())


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        (in_an_expert_actor, "the training of experts (GET was unable to find an engine"),
        (in_the_start_of_an_expert_actor, "the start of an expert actor (CUDA error: out of memory)"),
        (in_the_finals, "network 0 on full_data (challenge) (CUDA out of memory)"),
        (in_a_distillation_of_a_comparison, "the distillation of m_datm-1, repeat 0 (CUDA error: CUBLAS_STATUS_ALLOC"),
        (in_a_baseline, "the set herding-1 (CUDA error: out of memory)"),
        (in_the_diagnostics, "the distances of experts (Triton Error [CUDA]: out of memory)"),
        (in_a_measurement_for_dcs, "the measurement of random, ipc 1 (cuDNN error: CUDNN_STATUS_ALLOC_FAILED)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_gpu_without_memory_ends_a_stage_with_the_remedy(
    stage: Stage, what: str, inputs: Inputs, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GpuMemoryError) as ended:
        stage(inputs, resources, monkeypatch)
    said = str(ended.value)
    assert said.startswith(f"the GPU's memory does not suffice for {what}")
    assert said.endswith(
        "let fewer workers share a GPU (--gpus-per-trial 1), or use GPUs with more memory, then run the same command "
        "again"
    )
    assert "\n" not in said and ended.value.exit_code == 3
