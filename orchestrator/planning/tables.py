"""What `--plan` prints: what a sweep would run, and what it would cost."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from orchestrator.errors import UserError
from orchestrator.planning.devices import GPUS, SHARE_REACHED
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.reach import reach_text
from orchestrator.planning.workers import workers_here
from orchestrator.state.settings import SweepSettings
from search_spaces import Comparison
from search_spaces.name_lists import REGIMES, listed

__all__ = ["print_plan"]


def print_plan(console: Console, settings: SweepSettings, gpu: str | None = None) -> None:
    """Print what a sweep would run and cost.

    Args:
        console: The terminal.
        settings: The sweep's.
        gpu: A name of `GPUS`, whose cost is shown by stage; None: all GPUs, in all.

    Raises:
        UserError: The GPU does not have the precision.
    """
    plan = make_plan(settings)
    if gpu and not GPUS[gpu].has(plan.on_gpu.precision):
        raise UserError(f"--gpu {gpu}: it has no {plan.on_gpu.precision}; set precision to fp32")
    _print_work(console, settings, plan)
    _print_cost(console, settings, plan, gpu)


def _print_work(console: Console, settings: SweepSettings, plan: Plan) -> None:
    """Print what a sweep would run, and what memory and disk it would take."""
    fixed = settings.fixed
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
        f"{plan.graph_bytes / 2**20:,.1f} MiB ({plan.gpu_graph_bytes / 2**20:,.1f} on a GPU) for each of the 1 to "
        f"{plan.chunk:,} images of a step taken at a time, as many as memory allows (--memory-budget)",
    )
    if not isinstance(settings.space, Comparison):
        first, largest = (_duration(plan.core_s(work)) for work in (plan.work.first, plan.work.largest))
        what.add_row(
            "time of one trial",
            f"{first} on one CPU core for trial 0" if first == largest else
            f"{first} on one CPU core for trial 0, {largest} for the largest N and batch_syn of the space",
        )  # fmt: skip
    console.print(what)
    for line in settings.notes:
        console.print(f"Note: {line}", markup=False, soft_wrap=True)


def _print_cost(console: Console, settings: SweepSettings, plan: Plan, gpu: str | None) -> None:
    """Print what a sweep would cost on a CPU core and on GPUs."""
    cost = Table(title="Cost, nothing stopped early", title_justify="left")
    headings = ["stage", "operations", "one CPU core", *([f"one {gpu}"] if gpu else [])]
    for heading in headings:
        cost.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, work in (plan.work.stages | {"total": plan.whole}).items():
        operations = work.operations(plan.work.network)
        on_gpu = [_range(plan.gpu_s(work, GPUS[gpu]), _duration)] if gpu else []
        cost.add_row(stage, f"{operations:.2e}", _duration(plan.core_s(work)), *on_gpu)
    console.print(cost)
    console.print(_gpu_table(settings, plan, [gpu] if gpu else list(GPUS)))
    of = "of the variants on average" if settings.space.is_grid else "of trial 0 for all trials"
    low, high = (f"{share:.0%}" for share in SHARE_REACHED)
    how = "compiled" if plan.on_gpu.compiled else "not compiled"
    console.print(
        f"The total is {plan.core_s(plan.whole) / 3600:,.2f} CPU-core-hours, with N and batch {of}. The CPU core is "
        "one of two x86 cores that were measured. No GPU was measured: the estimates are for kernels that reach "
        f"{low} to {high} of the data sheet's rates, in {plan.on_gpu.precision}, {how}; `python -m benchmarks.gpu` "
        "measures yours.",
        soft_wrap=True,
    )


def _gpu_table(settings: SweepSettings, plan: Plan, names: Sequence[str]) -> Table:
    """Return a table of the estimates for GPUs: an iteration, all stages, and what the iteration waits for."""
    table = Table(title="On one GPU, estimated", title_justify="left")
    for heading in ("GPU", "memory", "an iteration of trial 0", "all stages", "waits for"):
        table.add_column(heading, justify="left" if heading in ("GPU", "waits for") else "right")
    compared = isinstance(settings.space, Comparison)
    for name in names:
        gpu, work = GPUS[name], plan.whole if compared else plan.work.iteration
        memory = f"{gpu.memory_bytes / 1e9:.0f} GB"
        if not gpu.has(plan.on_gpu.precision):
            table.add_row(name, memory, "–", "–", f"has no {plan.on_gpu.precision}")
            continue
        iteration = "–" if compared else _range(plan.gpu_s(work, gpu), _seconds)
        table.add_row(
            name, memory, iteration, _range(plan.gpu_s(plan.whole, gpu), _duration),
            gpu.binding(work, plan.work.network, plan.on_gpu),
        )  # fmt: skip
    return table


def _workers(settings: SweepSettings, plan: Plan) -> str:
    """Return how many workers would run at once, and why."""
    if settings.address == "local":
        return str(workers_here(settings, plan.worker_bytes))
    return f"{settings.concurrent or 'all'} that fit on the cluster, {plan.worker_bytes / 2**30:.1f} GiB each"


def _range(seconds: tuple[float, float], text: Callable[[float], str]) -> str:
    return " – ".join(text(each) for each in seconds)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s"


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 24:
        return str(timedelta(seconds=round(seconds)))
    return f"{hours:,.0f} h" if hours < 10_000 else f"{hours / 24:,.0f} days"
