"""The cost of the evaluator: K fresh networks trained one after the other and side by side.

python -m benchmarks.evaluator --json evaluator.json

Random images and labels, all six augmentation families, no Ray. The two ways alternate within one run, so that other
load of the machine affects both. Peak memory is measured in a fresh process for every way.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.evaluation import Work, prepared
from benchmarks.measure import device_fault, fresh_process, peak_bytes, surroundings, wait_for, write_records


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Return the wall time of a call in seconds, including its work on the device."""
    began = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - began


def peak_of(work: Work, way: str) -> int:
    """Return this process's peak memory in bytes after doing the work once; the process must be fresh."""
    prepared(work)[way]()
    return peak_bytes(work.device)


def measured(work: Work, repeats: int) -> list[dict[str, Any]]:
    """Return a record a way: seconds by repeat, their median, speed relative to the first way, and peak memory."""
    ways = prepared(work)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            taken = seconds_of(run, work.device)
            if repeat:  # the first round warms up
                seconds[name].append(taken)
    alone = statistics.median(next(iter(seconds.values())))
    records = []
    for name, values in seconds.items():
        with fresh_process() as process:
            memory = process.submit(peak_of, work, name).result()
        median = statistics.median(values)
        records.append(
            {
                "way": name,
                "seconds": values,
                "median_seconds": median,
                "images_per_second": work.images_seen / median,
                "speed": alone / median,
                "peak_bytes": memory,
            }
        )
    return records


@click.command(help="Time the evaluator's training: networks one after the other against side by side.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--networks", type=click.IntRange(min=2), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=2, show_default=True, help="Epochs a repeat.")
@click.option("--images", type=click.IntRange(min=1), default=1000, show_default=True, help="Images of the set.")
@click.option("--classes", type=click.IntRange(min=2), default=100, show_default=True)
@click.option("--channels", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--size", type=click.IntRange(min=4), default=32, show_default=True, help="Side of an image, in pixels.")
@click.option("--depth", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="After one that warms up.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the records there.")
def main(repeats: int, json_path: Path | None, **options: Any) -> None:
    """Measure, print a table, and write the records."""
    work = Work(**options)
    if fault := device_fault(work.device):
        raise click.UsageError(fault)
    setting = {**surroundings(work.device), "threads": torch.get_num_threads(), **asdict(work), "repeats": repeats}
    records = measured(work, repeats)
    table = Table(title=f"{work.networks} networks, {work.epochs} epochs of {work.images} images, {work.device}")
    for column in ("", "median", "from", "to", "images/s", "speed", "peak memory"):
        table.add_column(column, justify="right" if column else "left")
    for record in records:
        spread = (record["median_seconds"], min(record["seconds"]), max(record["seconds"]))
        table.add_row(
            record["way"],
            *(f"{value:.2f} s" for value in spread),
            f"{record['images_per_second']:,.0f}",
            f"{record['speed']:.2f}×",
            f"{record['peak_bytes'] / 1e6:,.0f} MB",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)
    write_records(json_path, records, setting)


if __name__ == "__main__":
    main()
