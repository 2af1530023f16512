"""What keeping the graphs of inner steps saves, and what it takes: seconds and live memory of one matching gradient.

python -m benchmarks.kept_graphs                                       32 × 32, 32 wide, 100 images, N = 20, on the CPU
python -m benchmarks.kept_graphs --width 128 --images 25
python -m benchmarks.kept_graphs --size 8 --channels 1 --depth 2 --images 50

The first variant has PyTorch's own layers, and computes every graph again. The second has its norms replaced by ours,
the third its convolutions too, which InnerStep takes on a GPU. The others are InnerStep's choice with so many graphs
kept. All take turns in one process with the allocator's settings of a sweep's workers. A ratio is the median over the
rounds of the first variant's time divided by the variant's in the same round. Times on a CPU are the process's own, so
that other work on the machine counts less. Live tensors are counted in a run of their own.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measure import device_fault, fresh_process, surroundings, write_records
from orchestrator.terminal.values import ListCommand, ValueList

LAYERS = ("PyTorch's layers", "our norm", "our norm and convolution")
"""The variants that keep no graph, by their layers."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One gradient of the matching loss, of random images without augmentation."""

    images: int
    """All of them in every step."""
    channels: int
    size: int
    width: int
    depth: int
    classes: int
    steps: int
    kept: tuple[int, ...]
    """Numbers of graphs to keep."""
    precision: str
    device: str
    threads: int
    rounds: int
    """Measurements of each variant, after one that warms up."""


def measure(problem: Problem) -> list[dict[str, Any]]:
    """Measure all variants in turns, in this process; return a record a variant."""
    import torch

    torch.set_num_threads(problem.threads)
    gradients = variants(problem)
    clock = time.perf_counter if problem.device == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in gradients}
    for turn in range(problem.rounds + 1):
        for name, gradient in gradients.items():
            began = clock()
            gradient()
            if problem.device == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(clock() - began)
    first = next(iter(seconds.values()))
    return [
        {
            "variant": name,
            "seconds": statistics.median(seconds[name]),
            "seconds_by_round": seconds[name],
            "speed": statistics.median(a / b for a, b in zip(first, seconds[name], strict=True)),
            "live_bytes": live_bytes(gradient),
        }
        for name, gradient in gradients.items()
    ]


def variants(problem: Problem) -> dict[str, Callable[[], Any]]:
    """Return functions that compute the same gradient, by the variant's name."""
    import torch

    from trainables.config.arithmetic import Arithmetic
    from trainables.data.augmentation import Augmentation
    from trainables.distillation.inner_step import InnerStep
    from trainables.distillation.matching import Chunk, Matcher
    from trainables.distillation.micro_batches import micro_batch_for, spare_bytes
    from trainables.networks.convnet import ConvNet
    from trainables.networks.convolution import twice_differentiable_convolution
    from trainables.networks.layers import PLAIN, Layers, second_order_layers
    from trainables.seeding import generator
    from trainables.workers.process import use_arithmetic

    device = torch.device(problem.device)
    use_arithmetic(problem.device, Arithmetic(precision=problem.precision, deterministic=False))
    norm = second_order_layers(device, curvature=False).instance_norm
    chosen = dict(
        zip(
            LAYERS,
            (PLAIN, Layers(PLAIN.convolution, norm), Layers(twice_differentiable_convolution, norm)),
            strict=True,
        )
    )

    class Fixed(ConvNet):
        """A ConvNet that always has the same layers."""

        layers: Layers

        def logits(self, theta: torch.Tensor, images: torch.Tensor, layers: Layers = PLAIN) -> torch.Tensor:
            return super().logits(theta, images, self.layers)

    shape = {"channels": problem.channels, "image_size": problem.size, "classes": problem.classes}
    network = ConvNet(**shape, depth=problem.depth, width=problem.width)
    draws = generator("benchmark", "kept graphs")
    start = network.initial(draws)
    arguments: dict[str, Any] = {
        "start": start.to(device),
        "target": (start + 0.01 * torch.randn(start.shape, generator=draws)).to(device),
        "images": torch.randn(problem.images, problem.channels, problem.size, problem.size, generator=draws).to(device),
        "labels": (torch.arange(problem.images) * problem.classes // problem.images).to(device),
        "alpha": 0.01,
        "chunks": [Chunk(torch.randperm(problem.images, generator=draws).to(device), None)] * problem.steps,
    }
    micro_batch = micro_batch_for(network, problem.images, device=device, budget_bytes=spare_bytes(device))

    def gradient_of(network: ConvNet, kept_steps: int) -> Callable[[], Any]:
        step = InnerStep(network, precision=problem.precision, micro_batch=micro_batch)
        matcher = Matcher(step, Augmentation(), kept_steps=kept_steps)
        return lambda: matcher(**arguments)

    found = {}
    for name, layers in chosen.items() if problem.precision != "bf16" else ():  # bf16 has one network
        fixed = type("Fixed", (Fixed,), {"layers": layers})(**shape, depth=problem.depth, width=problem.width)
        found[name] = gradient_of(fixed, 0)
    return found | {f"{kept} graphs kept": gradient_of(network, kept) for kept in problem.kept}


def live_bytes(gradient: Callable[[], Any]) -> int:
    """Return the most memory that the tensors of one gradient take at once, in bytes."""
    from benchmarks.live_tensors import LiveTensors

    live = LiveTensors()
    with live:
        gradient()
    return live.peak_bytes


def show(records: list[dict[str, Any]], console: Console) -> None:
    """Print the records as a table."""
    table = Table("variant", "s / gradient", "× the first", "live tensors at most, MiB")
    for record in records:
        table.add_row(
            record["variant"],
            f"{record['seconds']:.3f}",
            f"{record['speed']:.2f}",
            f"{record['live_bytes'] / 2**20:,.0f}",
        )
    console.print(table)


@click.command(cls=ListCommand, help=(__doc__ or "").split("\n\n")[0])
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of torch on a CPU.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Inner steps N.")
@click.option(
    "--kept", type=ValueList(click.IntRange(0)), default="0,10,20", show_default=True, metavar="K,…",
    help="Numbers of graphs to keep.",
)  # fmt: skip
@click.option("--images", type=click.IntRange(1), default=100, show_default=True, help="Images, all in every step.")
@click.option("--channels", type=click.IntRange(1), default=3, show_default=True, help="Channels of an image.")
@click.option("--size", type=click.IntRange(8), default=32, show_default=True, help="Side of an image, in pixels.")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True)
@click.option("--width", type=click.IntRange(1), default=32, show_default=True, help="Channels of the ConvNet.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="Blocks of the ConvNet.")
@click.option("--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Measurements of every variant.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="File for the records.")
def main(json_path: Path | None, **options: Any) -> None:
    """Measure, print a table, and write the records."""
    if fault := device_fault(options["device"]):
        raise click.UsageError(fault)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    setting = {**surroundings(options["device"]), **options}
    with fresh_process(allocator=True) as process:
        records = process.submit(measure, Problem(**options)).result()
    write_records(json_path, records, setting)
    show(records, console)
    console.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)


if __name__ == "__main__":
    main()
