"""The cost of experts: several at once against one at a time, and 22 epochs against 100.

python -m benchmarks.experts                                              on this machine's CPU, small
python -m benchmarks.experts --device cuda --width 128 --images 45000     CIFAR-10's size on a GPU
python -m benchmarks.experts --data digits --json experts.json            real images, and the figures in a file

Every measurement runs in its own process. The variants take turns, and every ratio is the median over the turns of a
variant's figure divided by the first variant's in the same turn.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measure import device_fault, fresh_process, peak_bytes, surroundings, write_records
from orchestrator.terminal.values import ListCommand, ValueList

HORIZONS = (22, 100)
"""Epochs that M-DATM's early range needs, and those of the published experts. docs/method.md, "Experts"."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: experts trained side by side for some epochs."""

    device: str
    threads: int
    data: str
    images: int
    size: int
    classes: int
    width: int
    depth: int
    batch: int
    at_once: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The result of one measurement."""

    seconds: list[float]
    """Wall time of the group's epochs, s."""
    before_bytes: int
    """Peak memory before the first step: resident set on a CPU, allocated tensors on a GPU."""
    peak_bytes: int
    """Peak memory after the last epoch."""
    file_bytes: int
    """Size of the first expert's file, a snapshot an epoch and the initial one."""
    facts: dict[str, int]
    """Sizes of the problem: images, their side, classes, parameters."""


def measure(job: Job) -> Cost:
    """Train the job's experts in this process, which must be fresh.

    Raises:
        RuntimeError: An expert diverged.
    """
    import torch

    from search_spaces.vocabulary import DEFAULTS
    from trainables.config.experts import ExpertRecipe
    from trainables.data.augmentation import Augmentation
    from trainables.experts.identity import ExpertIdentity
    from trainables.experts.store import TrajectoryStore
    from trainables.experts.training import ExpertState, ExpertTrainer
    from trainables.networks.convnet import ConvNet

    torch.set_num_threads(job.threads)
    dataset, device = _dataset(job), torch.device(job.device)
    network = ConvNet(
        channels=dataset.channels,
        image_size=dataset.image_size,
        classes=dataset.classes,
        depth=job.depth,
        width=job.width,
    )
    trainer = ExpertTrainer(
        dataset=dataset,
        network=network,
        recipe=ExpertRecipe.from_settings({**DEFAULTS, "expert_batch_size": job.batch}),
        augmentation=Augmentation(families=dataset.augmentation),
        seed=0,
        device=device,
        resident=device.type == "cuda",
    )
    before = peak_bytes(job.device)
    trainer.seconds_per_step(job.at_once)  # the first steps allocate and choose algorithms
    experts = range(job.at_once)
    states = [trainer.start(expert) for expert in experts]
    snapshots, losses, seconds = [states[0].theta.cpu()], [], []
    for _ in range(job.epochs):
        began = time.perf_counter()
        later = trainer.train_epoch_together(experts, states)
        seconds.append(time.perf_counter() - began)  # the epoch's losses were read: the device is done
        states = [state for state in later if isinstance(state, ExpertState)]
        if len(states) < job.at_once:
            raise RuntimeError(f"experts diverged: {later}")
        snapshots.append(states[0].theta.cpu())
        losses.append(states[0].loss)
    peak = peak_bytes(job.device)
    identity = ExpertIdentity.of(
        dataset, network=network, recipe=trainer.recipe, augmentation=trainer.augmentation, seed=trainer.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        written = TrajectoryStore(Path(folder), identity).write(0, snapshots, losses)
    return Cost(
        seconds=seconds,
        before_bytes=before,
        peak_bytes=peak,
        file_bytes=written.bytes,
        facts={
            "images": len(dataset.split("train")),
            "size": dataset.image_size,
            "classes": dataset.classes,
            "parameters": network.parameters,
        },
    )


def _dataset(job: Job) -> Any:
    from benchmarks.made_images import random_dataset
    from trainables.data import datasets

    if job.data == "digits":
        with tempfile.TemporaryDirectory() as folder:
            return datasets.load(datasets.prepare("digits", cache=Path(folder), validation_share=0.1))
    return random_dataset(job.images, job.size, job.classes)


def in_fresh_process(job: Job) -> Cost:
    """Run `measure` in a new process."""
    with fresh_process() as process:
        return process.submit(measure, job).result()


def in_turns(jobs: dict[str, Job], turns: int, console: Console) -> dict[str, list[Cost]]:
    """Measure every job once a turn; every second turn reverses the order."""
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for turn in range(turns):
        for name in list(jobs)[:: 1 if turn % 2 == 0 else -1]:
            cost = in_fresh_process(jobs[name])
            costs[name].append(cost)
            console.print(f"turn {turn + 1}/{turns}: {name}, {statistics.median(cost.seconds):.2f} s an epoch")
    return costs


def record_groups(jobs: dict[str, Job], costs: dict[str, list[Cost]]) -> list[dict[str, Any]]:
    """Return a record a group size: seconds of an expert's epoch, memory, and ratios to the first job's, medians."""
    seconds = {
        name: [statistics.median(cost.seconds) / jobs[name].at_once for cost in costs[name]] for name in jobs
    }  # one figure a turn
    peaks = {name: [cost.peak_bytes for cost in costs[name]] for name in jobs}
    first = next(iter(jobs))
    return [
        {
            "benchmark": "experts at once",
            "variant": name,
            "at_once": job.at_once,
            "seconds_per_expert_epoch": statistics.median(seconds[name]),
            "seconds_per_expert_epoch_by_turn": seconds[name],
            "seconds_ratio": statistics.median(a / b for a, b in zip(seconds[name], seconds[first], strict=True)),
            "before_bytes": statistics.median(cost.before_bytes for cost in costs[name]),
            "peak_bytes": statistics.median(peaks[name]),
            "peak_ratio": statistics.median(a / b for a, b in zip(peaks[name], peaks[first], strict=True)),
        }
        for name, job in jobs.items()
    ]


def record_horizons(costs: list[Cost]) -> list[dict[str, Any]]:
    """Return a record a horizon: the cost of one expert, extrapolated if fewer epochs were measured."""
    records: list[dict[str, Any]] = []
    for horizon in HORIZONS:
        measured = min(horizon, len(costs[0].seconds))
        seconds = [sum(cost.seconds[:horizon]) * horizon / measured for cost in costs]
        rows = len(costs[0].seconds) + 1
        records.append(
            {
                "benchmark": "epochs of an expert",
                "variant": f"{horizon} epochs",
                "epochs": horizon,
                "measured_epochs": measured,
                "extrapolated": measured < horizon,
                "seconds": statistics.median(seconds),
                "seconds_by_turn": seconds,
                "seconds_ratio": 1.0,
                "file_bytes": round(costs[0].file_bytes * (horizon + 1) / rows),
            }
        )
    shortest: list[float] = records[0]["seconds_by_turn"]
    for record in records:
        longer: list[float] = record["seconds_by_turn"]
        record["seconds_ratio"] = statistics.median(a / b for a, b in zip(longer, shortest, strict=True))
    return records


def show(records: list[dict[str, Any]], console: Console) -> None:
    """Print one table a benchmark."""
    groups = Table("variant", "s / expert-epoch", "ratio", "peak MiB", "before, MiB", "ratio", title="Experts at once")
    horizons = Table("variant", "seconds", "ratio", "MiB on disk", "how", title="Epochs of an expert")
    for record in records:
        seconds_ratio = f"{record['seconds_ratio']:.2f}"
        if record["benchmark"] == "experts at once":
            groups.add_row(
                record["variant"],
                f"{record['seconds_per_expert_epoch']:.3f}",
                seconds_ratio,
                f"{record['peak_bytes'] / 2**20:,.0f}",
                f"{record['before_bytes'] / 2**20:,.0f}",
                f"{record['peak_ratio']:.2f}",
            )
        else:
            how = f"extrapolated from {record['measured_epochs']} epochs" if record["extrapolated"] else "measured"
            horizons.add_row(
                record["variant"],
                f"{record['seconds']:,.1f}",
                seconds_ratio,
                f"{record['file_bytes'] / 2**20:,.1f}",
                how,
            )
    console.print(groups, horizons)


@click.command(cls=ListCommand, help=(__doc__ or "").split("\n\n")[0])
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="threads of torch; an actor has 1"
)
@click.option("--data", type=click.Choice(["random", "digits"]), default="random", show_default=True)
@click.option("--images", type=click.IntRange(1), default=512, show_default=True, help="random training images")
@click.option("--size", type=click.IntRange(8), default=32, show_default=True, help="side of random images, in pixels")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="classes of random images")
@click.option("--width", type=click.IntRange(1), default=32, show_default=True, help="channels of the ConvNet")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="blocks of the ConvNet")
@click.option("--batch", type=click.IntRange(1), default=128, show_default=True, help="images a step")
@click.option("--at-once", type=ValueList(click.IntRange(2)), default="2,4,8", show_default=True, metavar="K,…")
@click.option(
    "--epochs", type=click.IntRange(1), default=2, show_default=True, help="measured epochs; 100: all of them"
)
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True, help="measurements of each variant")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="write the records here")
def main(at_once: tuple[int, ...], turns: int, json_path: Path | None, **options: Any) -> None:
    """Measure, print, and write."""
    if fault := device_fault(options["device"]):
        raise click.UsageError(fault)
    console = Console()
    around = surroundings(options["device"])
    jobs = {"one at a time": Job(**options, at_once=1)}
    jobs |= {f"{count} at once": Job(**options, at_once=count) for count in at_once}
    costs = in_turns(jobs, turns, console)
    alone = costs["one at a time"]
    setting = {**around, **options, **alone[0].facts, "turns": turns}
    records = [*record_groups(jobs, costs), *record_horizons(alone)]
    show(records, console)
    console.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)
    write_records(json_path, records, setting)


if __name__ == "__main__":
    main()
