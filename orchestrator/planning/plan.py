"""The plan of a sweep: its trials and cost, by arithmetic alone. Nothing is started; torch and ray are not loaded."""

import math
from dataclasses import dataclass

from orchestrator.planning.devices import CPU_CORE, Gpu, Multiplying
from orchestrator.planning.work import BATCH, SweepWork, Work, count_work
from orchestrator.state.settings import SweepSettings

__all__ = ["Plan", "make_plan"]

# Bytes of an image's graph, of its convolutions' outputs: trainables/distillation/micro_batches.py.
CPU_GRAPH_FACTOR = 36
GPU_GRAPH_FACTOR = {"fp32": 8, "tf32": 8, "bf16": 13}

FASTEST_GRAPH_BYTES = 18 * 2**20
"""Bytes of convolution outputs of a micro-batch on a CPU: trainables/distillation/micro_batches.py, CPU_BYTES."""
PROCESS_BYTES = 400 * 2**20
"""Memory of a worker's process with torch, Ray and Tune loaded, without their files, which workers share: 380 MiB,
measured."""
TRAINING_COPIES = 2
"""Copies of a batch's activations while a network is trained on it: 1.9, measured at 32 × 32 pixels and width 128."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of a sweep, before any pruning."""

    trials: int
    experts: int
    expert_epochs: int
    expert_bytes: int
    image_bytes: int
    """Disk that the prepared images of all classes take; as much again is needed while they are prepared."""
    trial_bytes: int
    """Memory of one trial beside the shared maps and the graph."""
    graph_bytes: int
    """Memory on a CPU of the graph for one image of a micro-batch, whose size does not change the gradient."""
    gpu_graph_bytes: int
    """The same on a GPU."""
    worker_bytes: int
    """Memory of a worker's process on a CPU: an expert, a trial or a network, whichever takes most."""
    chunk: int
    """Images of an inner step of trial 0."""
    work: SweepWork
    on_gpu: Multiplying
    """How inner steps multiply on a GPU."""

    @property
    def operations(self) -> dict[str, float]:
        """Floating-point operations by stage."""
        return {stage: work.operations(self.work.network) for stage, work in self.work.stages.items()}

    @property
    def whole(self) -> Work:
        """The work of all stages."""
        return sum(self.work.stages.values(), Work())

    @property
    def matching(self) -> Work:
        """The search's inner steps and their derivatives."""
        search = self.work.search
        return Work(matched=search.matched, matching_steps=search.matching_steps)

    def core_s(self, work: Work, *, compiled: bool = False) -> float:
        """Return the seconds of some work on one CPU core."""
        return CPU_CORE.seconds(work, self.work.network, compiled=compiled)

    def gpu_s(self, work: Work, gpu: Gpu) -> tuple[float, float]:
        """Return a low and a high estimate of the seconds of some work on one GPU.

        Raises:
            ValueError: The GPU does not have the precision.
        """
        return gpu.seconds(work, self.work.network, self.on_gpu)


def make_plan(settings: SweepSettings) -> Plan:
    """Estimate the operations and memory of a sweep.

    Raises:
        DatasetError: The dataset is unknown, has fewer classes than asked for, or lacks the files that describe it.
        ConfigError: The network is too deep for the images.
    """
    fixed, work = settings.fixed, count_work(settings)
    precision = settings.arithmetic.precision
    whole, network = settings.facts, work.network
    data = whole.first(fixed["classes"])
    first = settings.space.resolve(settings.space.points()[0])
    set_size = fixed["ipc"] * data.classes
    chunk = min(first["batch_syn"], set_size)
    epochs, activations = settings.space.horizon_epochs, network.activations
    trial_bytes = 4 * ((first["N"] + 6) * network.parameters + 4 * set_size * network.pixels)
    graph_bytes, gpu_graph_bytes = (
        4 * factor * network.outputs for factor in (CPU_GRAPH_FACTOR, GPU_GRAPH_FACTOR[precision])
    )
    at_once = max(1, min(chunk, FASTEST_GRAPH_BYTES // (4 * network.outputs)))
    graph = min(at_once * graph_bytes, settings.memory_budget_bytes or math.inf)
    train_images = round(data.train_images * (1 - fixed["validation_share"]))
    batch = min(max(BATCH, fixed["expert_batch_size"]), train_images)
    training = 4 * (TRAINING_COPIES * batch * activations + 2 * (epochs + 1) * network.parameters)
    return Plan(
        trials=fixed["trials"],
        experts=fixed["expert_count"],
        expert_epochs=fixed["expert_count"] * epochs,
        expert_bytes=fixed["expert_count"] * (epochs + 1) * network.parameters * 4,
        image_bytes=(whole.train_images + whole.test_images) * network.pixels,
        trial_bytes=trial_bytes,
        graph_bytes=graph_bytes,
        gpu_graph_bytes=gpu_graph_bytes,
        worker_bytes=PROCESS_BYTES + int(max(trial_bytes + graph, training)),
        chunk=chunk,
        work=work,
        on_gpu=Multiplying(precision=precision, compiled=precision == "bf16" or fixed["compile"] == "on"),
    )
