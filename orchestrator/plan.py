"""What a sweep would run and cost, from arithmetic alone: nothing is started, neither torch nor ray is loaded.

Work is counted in multiply-adds of the convolutions and the linear layer; everything else (norm, activation, pooling,
augmentation) is in the rate, which is what a whole step reaches, not what the hardware could.
"""

from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from orchestrator.settings import SweepSettings
from trainables.catalog import facts

__all__ = ["Plan", "make_plan", "print_plan"]

CPU_CORE_RATE = 6e9
"""Floating-point operations a second and core that whole steps reach at the digits' size, where calls dominate."""
CPU_CORE_RATE_WIDE = 60e9
"""The same for the challenge's network, 128 wide on 32 × 32 pixels."""
GPU_RATE = 15e12
"""Assumed for one data-centre GPU in float32; not measured."""

# Passes of one step, in units of one forward pass of its images.
EXPERT_PASSES = {"sgd": 3, "gsam": 6}
MATCHING_PASSES = 3 + 3 * 3
EVALUATION_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of a sweep, before any pruning."""

    trials: int
    experts: int
    expert_epochs: int
    expert_bytes: int
    trial_bytes: int
    """Memory of one trial beside the shared maps."""
    operations: dict[str, float]
    """Floating-point operations by stage."""
    rate: float
    """Operations a second of one worker."""
    on_gpu: bool

    def hours(self, stage: str | None = None) -> float:
        """Worker-hours of a stage or of all."""
        total = sum(self.operations.values()) if stage is None else self.operations[stage]
        return total / self.rate / 3600


def make_plan(settings: SweepSettings) -> Plan:
    """Count what a sweep would do.

    Raises:
        DatasetError: The dataset is unknown.
    """
    fixed, data = settings.fixed, facts(settings.space.dataset)
    train_images = round(data.train_images * (1 - fixed["validation_share"]))
    forward, parameters, activations = _network_cost(
        data.channels, data.image_size, data.classes, fixed["net_depth"], fixed["net_width"]
    )
    first = settings.space.resolve(settings.space.first())
    set_size = fixed["ipc"] * data.classes
    chunk = min(first["batch_syn"], set_size)
    rungs = fixed["iterations"] / fixed["validation_every_iterations"]
    training = forward * EVALUATION_PASSES
    validation = rungs * fixed["validation_networks"] * fixed["validation_epochs"] * set_size * training
    matching = fixed["iterations"] * first["N"] * chunk * forward * MATCHING_PASSES
    finals = (
        fixed["final_networks"]
        * training
        * (3 * set_size * fixed["protocol_epochs"] + train_images * fixed["full_data_epochs"])
    )
    epochs = settings.space.horizon_epochs
    expert = train_images * epochs * forward * EXPERT_PASSES[fixed["expert_optimizer"]]
    pixels = data.channels * data.image_size**2
    on_gpu = settings.gpus_per_trial is not None
    return Plan(
        trials=fixed["trials"],
        experts=fixed["expert_count"],
        expert_epochs=fixed["expert_count"] * epochs,
        expert_bytes=fixed["expert_count"] * (epochs + 1) * parameters * 4,
        trial_bytes=4 * ((first["N"] + 6) * parameters + 4 * set_size * pixels + 6 * chunk * activations),
        operations={
            "experts": fixed["expert_count"] * expert,
            "search": fixed["trials"] * (matching + validation),
            "finals": finals,
        },
        rate=GPU_RATE if on_gpu else (CPU_CORE_RATE_WIDE if fixed["net_width"] >= 64 else CPU_CORE_RATE),
        on_gpu=on_gpu,
    )


def print_plan(console: Console, settings: SweepSettings) -> None:
    """Print what a sweep would run and what it would cost."""
    plan, fixed = make_plan(settings), settings.fixed
    worker = "GPU" if plan.on_gpu else "CPU core"
    share = settings.gpus_per_trial or 1
    at_once = settings.concurrent or 1
    table = Table(
        title=f"Plan of {settings.space.name}: {settings.space.title}", title_justify="left", show_header=False
    )
    table.add_row("trials", f"{plan.trials}, the first is {settings.space.reference}")
    table.add_row(
        "stopped early",
        f"ASHA: rungs from iteration {fixed['first_rung_iterations']} to {fixed['iterations']}, "
        f"1 in {fixed['reduction_factor']} goes on",
    )
    table.add_row("one trial takes", f"1 CPU and {share:g} GPU" if plan.on_gpu else "1 CPU core, no GPU")
    table.add_row("at once", str(settings.concurrent or "all that fit"))
    table.add_row(
        "experts",
        f"{plan.experts} × {settings.space.horizon_epochs} epochs = {plan.expert_epochs}, less what is stored",
    )
    table.add_row("experts on disk", f"{plan.expert_bytes / 2**20:,.1f} MiB")
    table.add_row(
        "memory of one trial", f"{plan.trial_bytes / 2**20:,.0f} MiB beside the libraries and the shared experts"
    )
    for stage in plan.operations:
        table.add_row(
            f"{stage}", f"{plan.operations[stage]:.3g} operations, {_hours(plan.hours(stage))} of one {worker}"
        )
    table.add_row(
        "total, nothing pruned",
        f"{plan.hours():,.2f} {worker}-hours; {_hours(plan.hours() / at_once)} at {at_once} at once",
    )
    basis = "assumed, not measured" if plan.on_gpu else "measured on one core of a two-core x86 machine"
    table.add_row(
        "rests on", f"{plan.rate:.2g} operations a second and {worker}: {basis}; trial 0's N and batch for all trials"
    )
    console.print(table)


def _hours(hours: float) -> str:
    return str(timedelta(seconds=round(hours * 3600)))


def _network_cost(channels: int, side: int, classes: int, depth: int, width: int) -> tuple[float, int, int]:
    """Return operations of one image's forward pass, parameters, and activations of one image that a graph keeps."""
    operations, parameters, activations, inputs = 0.0, 0, channels * side * side, channels
    for _ in range(depth):
        operations += 2 * 9 * inputs * width * side * side
        parameters += 9 * inputs * width + 3 * width
        activations += 3 * width * side * side
        inputs, side = width, side // 2
    features = width * side * side
    return operations + 2 * features * classes, parameters + features * classes + classes, activations
