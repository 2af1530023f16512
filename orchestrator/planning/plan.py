"""The plan of a sweep: its trials and cost, by arithmetic alone. Nothing is started; torch and ray are not loaded.

Work is counted in multiply-adds of the convolutions and the linear layer. Everything else (norm, activation, pooling,
augmentation) is part of the rate, which is that of a whole step, not the peak of the hardware.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.planning.reach import reach_text
from orchestrator.planning.workers import workers_here
from orchestrator.state.settings import SweepSettings
from search_spaces import Comparison
from search_spaces.name_lists import REGIMES, listed

__all__ = ["Plan", "make_plan", "print_plan"]

CPU_RATE_NARROW, CPU_RATE_WIDE = 1.2e10, 5.5e10
"""Floating-point operations a second and core that whole steps reach, measured on a two-core x86 machine: at the
digits' size, where calls dominate, and with the challenge's network, 128 wide on 32 × 32 pixels."""
WIDE = 64
"""Width from which a network counts as wide."""
GPU_RATE = 1.5e13
"""The same for one data-centre GPU in float32: assumed, not measured."""

# Copies of an image's activations in a Hessian-vector product: trainables/distillation/micro_batches.py, three a block.
GRAPH_COPIES = 12

FASTEST_GRAPH_BYTES = 18 * 2**20
"""Bytes of convolution outputs of a micro-batch on a CPU: trainables/distillation/micro_batches.py, CPU_BYTES."""
PROCESS_BYTES = 400 * 2**20
"""Memory of a worker's process with torch, Ray and Tune loaded, without their files, which workers share: 380 MiB,
measured."""
TRAINING_COPIES = 2
"""Copies of a batch's activations while a network is trained on it: 1.9, measured at 32 × 32 pixels and width 128."""
BATCH = 256
"""Images of a batch in every protocol: trainables/config/protocol.py."""

# Passes of one step, in units of one forward pass of its images.
EXPERT_PASSES = {"sgd": 3, "gsam": 6}
MATCHING_PASSES = 3 + 3 * 3
EVALUATION_PASSES = 3
SCORING_EPOCHS = 10 * 10
"""Epochs of the early runs that score images for coresets, beside one full training: see `coresets.scoring_runs`."""


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
    """Memory of the graph for one image of a micro-batch, whose size does not change the gradient."""
    worker_bytes: int
    """Memory of a worker's process on a CPU: an expert, a trial or a network, whichever takes most."""
    chunk: int
    """Images of an inner step of trial 0."""
    operations: dict[str, float]
    """Floating-point operations by stage."""
    trial_operations: tuple[float, float]
    """Operations of trial 0, and of the trial with the largest N and batch of the space; 0: a comparison has none."""
    matching_operations: float
    """The search's operations for inner steps and their derivatives."""
    networks_operations: float
    """The finals' operations without their distillations."""
    cpu_rate: float
    """Operations a second of one CPU core."""

    @property
    def networks_in_trials(self) -> float:
        """The finals' work without their distillations, as the trials of the search that take as many operations."""
        return self.networks_operations / (self.operations["search"] / self.trials)

    def hours(self, stage: str | None = None, *, gpu: bool = False) -> float:
        """Hours of a stage, or of all stages, on one CPU core or one GPU."""
        total = sum(self.operations.values()) if stage is None else self.operations[stage]
        return total / (GPU_RATE if gpu else self.cpu_rate) / 3600


def make_plan(settings: SweepSettings) -> Plan:
    """Estimate the operations and memory of a sweep.

    Raises:
        DatasetError: The dataset is unknown, has fewer classes than asked for, or lacks the files that describe it.
        ConfigError: The network is too deep for the images.
    """
    fixed = settings.fixed
    settings.check_depth()
    whole = settings.facts
    data = whole.first(fixed["classes"])
    train_images = round(data.train_images * (1 - fixed["validation_share"]))
    forward, parameters, activations = _network_cost(
        data.channels, data.image_size, data.classes, fixed["net_depth"], fixed["net_width"]
    )
    points = [settings.space.resolve(point) for point in settings.space.points()]
    first = points[0]
    set_size = fixed["ipc"] * data.classes
    chunk = min(first["batch_syn"], set_size)
    pixels = data.channels * data.image_size**2
    whitening = 2 * pixels**2 if fixed["zca"] else 0  # operations of reading one real image
    training = forward * EVALUATION_PASSES
    steps = sum(point["N"] * min(point["batch_syn"], set_size) for point in points) / len(points)
    largest = max(
        point["N"] * min(point["batch_syn"], set_size)
        for point in (*points, *settings.space.extremes(("N", "batch_syn")))
    )
    scoring = (fixed["full_data_epochs"] + SCORING_EPOCHS) * train_images * training
    if isinstance(settings.space, Comparison):
        distillations, networks = _comparison(settings.space, fixed, data.classes, forward)
        networks += fixed["repeats"] * scoring
        matching = search = distillations
        finals = networks
        trials = (0.0, 0.0)
    else:
        rungs = fixed["iterations"] / fixed["validation_every_iterations"]
        validation = rungs * fixed["validation_networks"] * fixed["validation_epochs"] * set_size * training
        matching_step = fixed["iterations"] * forward * MATCHING_PASSES
        distillation = matching_step * steps + validation
        trials = (matching_step * first["N"] * chunk + validation, matching_step * largest + validation)
        # Sets: a search's winner and reference, both repeated with fresh seeds, or all of a study; random real images.
        again = 2 * fixed["final_seeds"]
        baselines = [name for name in settings.space.baselines if name != "random"]
        sets = 1 + len(baselines) + (len(points) if settings.space.is_grid else 2 + again)
        in_regimes = len(listed(fixed["regimes"], REGIMES)) * (2 + len(baselines))
        networks = (scoring if baselines else 0.0) + fixed["final_networks"] * (
            sets * set_size * fixed["protocol_epochs"] * training
            + in_regimes * set_size * fixed["regime_epochs"] * training
            + train_images * fixed["full_data_epochs"] * (training + whitening)
        )
        finals = again * distillation + networks
        matching = fixed["trials"] * fixed["iterations"] * steps * forward * MATCHING_PASSES
        search = fixed["trials"] * distillation
    epochs = settings.space.horizon_epochs
    expert = train_images * epochs * (forward * EXPERT_PASSES[fixed["expert_optimizer"]] + whitening)
    trial_bytes = 4 * ((first["N"] + 6) * parameters + 4 * set_size * pixels)
    graph_bytes = 4 * GRAPH_COPIES * activations
    at_once = max(1, min(chunk, FASTEST_GRAPH_BYTES * 3 // (4 * (activations - pixels))))
    graph = min(at_once * graph_bytes, settings.memory_budget_bytes or math.inf)
    batch = max(BATCH, fixed["expert_batch_size"])
    network = 4 * (TRAINING_COPIES * min(batch, train_images) * activations + 2 * (epochs + 1) * parameters)
    return Plan(
        trials=fixed["trials"],
        experts=fixed["expert_count"],
        expert_epochs=fixed["expert_count"] * epochs,
        expert_bytes=fixed["expert_count"] * (epochs + 1) * parameters * 4,
        image_bytes=(whole.train_images + whole.test_images) * pixels,
        trial_bytes=trial_bytes,
        graph_bytes=graph_bytes,
        worker_bytes=PROCESS_BYTES + int(max(trial_bytes + graph, network)),
        chunk=chunk,
        operations={
            "experts": fixed["expert_count"] * expert,
            "search": search,
            "finals": finals,
        },
        trial_operations=trials,
        matching_operations=matching,
        networks_operations=networks,
        cpu_rate=CPU_RATE_WIDE if fixed["net_width"] >= WIDE else CPU_RATE_NARROW,
    )


def _comparison(space: Comparison, fixed: Mapping[str, Any], classes: int, forward: float) -> tuple[float, float]:
    """Return the operations of a comparison's distillations, and of training the networks on all its sets."""
    methods = space.methods
    distillations = networks = 0.0
    for ipc in space.ipcs:
        set_size = ipc * classes
        networks += len(methods) * len(listed(fixed["regimes"], REGIMES)) * set_size * fixed["regime_epochs"]
        for name in space.distilled:
            point = space.resolve({"variant": name, "repeat": 0})
            steps = point["N"] * min(point["batch_syn"], set_size) * MATCHING_PASSES
            real = point["batch_real"] * classes + set_size
            of_method = {"distribution": real * EVALUATION_PASSES, "trajectory": steps}
            passes = of_method.get(point["method"], real * MATCHING_PASSES)  # another method: as DC
            distillations += point["iterations"] * passes * forward
    return fixed["repeats"] * distillations, fixed["repeats"] * networks * forward * EVALUATION_PASSES


def print_plan(console: Console, settings: SweepSettings) -> None:
    """Print what a sweep would run and cost."""
    plan, fixed = make_plan(settings), settings.fixed
    share = settings.gpus_per_trial
    what = Table(
        title=f"Plan of {settings.space.name}: {settings.space.title}", title_justify="left", show_header=False
    )
    what.add_row("trials", f"{plan.trials}, the first is {settings.space.reference}")
    if settings.space.is_grid:
        stopped = "none: every trial of a study runs to its end"
    else:
        stopped = (
            f"ASHA: rungs from iteration {fixed['first_rung_iterations']} to {fixed['iterations']}, "
            f"1 in {fixed['reduction_factor']} continues"
        )
    what.add_row("stopped early", stopped)
    of_a_gpu = "what its measured memory needs" if share == "auto" else share
    what.add_row("one trial takes", f"1 CPU core and {f'{of_a_gpu} of a GPU' if share else 'a GPU where there is one'}")
    what.add_row("workers at once", _workers(settings, plan))
    if not settings.space.is_grid:
        again = (
            f"winner and reference again with {fixed['final_seeds']} fresh seeds" if fixed["final_seeds"] else "none"
        )
        what.add_row("finals distil", again)
    what.add_row("networks on each set", str(fixed["final_networks"]))
    if isinstance(settings.space, Comparison):
        what.add_row("compared", ", ".join(settings.space.methods))
        what.add_row("images per class", ", ".join(map(str, settings.space.ipcs)))
    else:
        what.add_row("compared", ", ".join(dict.fromkeys(["random", *settings.space.baselines])))
    what.add_row("label regimes besides", ", ".join(listed(fixed["regimes"], REGIMES)) or "none")
    what.add_row(
        "experts",
        f"{plan.experts} × {settings.space.horizon_epochs} epochs = {plan.expert_epochs}, less what is stored",
    )
    if not isinstance(settings.space, Comparison):
        point = settings.space.resolve(settings.space.points()[0])
        images = settings.facts.first(fixed["classes"]).train_images * (1 - fixed["validation_share"])
        what.add_row("steps of trial 0", reach_text(point, round(images)))
    what.add_row("experts on disk", f"{plan.expert_bytes / 2**20:,.1f} MiB")
    what.add_row(
        "images on disk", f"{plan.image_bytes / 2**20:,.1f} MiB, and as much again while they are prepared, only once"
    )
    what.add_row(
        "memory of one trial",
        f"{plan.trial_bytes / 2**20:,.0f} MiB beside the libraries and the shared experts, and "
        f"{plan.graph_bytes / 2**20:,.1f} MiB for each of the 1 to {plan.chunk:,} images of a step taken at a time, as "
        "many as memory allows (--memory-budget)",
    )
    if not isinstance(settings.space, Comparison):
        first, largest = (_duration(operations / plan.cpu_rate / 3600) for operations in plan.trial_operations)
        what.add_row(
            "time of one trial",
            f"{first} on one CPU core for trial 0" if first == largest else
            f"{first} on one CPU core for trial 0, {largest} for the largest N and batch_syn of the space",
        )  # fmt: skip
    console.print(what)
    for line in settings.notes:
        console.print(f"Note: {line}", markup=False, soft_wrap=True)

    cost = Table(title="Cost, nothing stopped early", title_justify="left")
    for heading in ("stage", "operations", "one CPU core", "one GPU"):
        cost.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in (*plan.operations, None):
        operations = sum(plan.operations.values()) if stage is None else plan.operations[stage]
        times = [_duration(plan.hours(stage, gpu=gpu)) for gpu in (False, True)]
        cost.add_row(stage or "total", f"{operations:.2e}", *times)
    console.print(cost)
    of = "of the variants on average" if settings.space.is_grid else "of trial 0 for all trials"
    console.print(
        f"The total is {plan.hours():,.2f} CPU-core-hours or {plan.hours(gpu=True):,.2f} GPU-hours. It rests on N and "
        f"batch {of}, on {plan.cpu_rate:.1e} operations a second and CPU core (measured on two x86 cores) and "
        f"{GPU_RATE:.1e} a second and GPU (assumed, not measured)."
    )


def _workers(settings: SweepSettings, plan: Plan) -> str:
    """Return how many workers would run at once, and why."""
    if settings.address == "local":
        return str(workers_here(settings, plan.worker_bytes))
    return f"{settings.concurrent or 'all'} that fit on the cluster, {plan.worker_bytes / 2**30:.1f} GiB each"


def _duration(hours: float) -> str:
    return str(timedelta(seconds=round(hours * 3600))) if hours < 48 else f"{hours / 24:,.0f} days"


def _network_cost(channels: int, side: int, classes: int, depth: int, width: int) -> tuple[float, int, int]:
    """Return operations of an image's forward pass, number of parameters, and an image's activations in the graph."""
    operations, parameters, activations, inputs = 0.0, 0, channels * side * side, channels
    for _ in range(depth):
        operations += 2 * 9 * inputs * width * side * side
        parameters += 9 * inputs * width + 3 * width
        activations += 3 * width * side * side
        inputs, side = width, side // 2
    features = width * side * side
    return operations + 2 * features * classes, parameters + features * classes + classes, activations
