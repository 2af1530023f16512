"""The cost of one gradient of the matching loss by method: seconds, peak memory, and error.

python -m benchmarks.gradient                                             CIFAR's size, 100 images, on the CPU
python -m benchmarks.gradient --device cuda --images 1000 --steps 40      M-DATM's CIFAR-100 setting on a GPU

`unrolled` is the loop that autograd differentiates, as in MTT, FTD and DATM; `truncated` TESLA's; `exact` and
`exact_compiled` ours. These three run with the C library's settings of a sweep's workers ("tuned"); `unrolled` runs
with the library's own ("default"), as the reference codes do, and on a CPU once more tuned.

Every method has its own process. The processes take turns, and a ratio is the median over the rounds of the default
`unrolled`'s time divided by the method's in the same round. The error is that of ∂L/∂images against the unrolled loop
in float64, or, if that does not fit, our exact one in float64, which equals it (tests). A method that would not fit is
reported with its estimate and not run.
"""

import functools
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measure import (
    device_fault,
    fresh_process,
    peak_bytes,
    surroundings,
    use_precision,
    wait_for,
    write_records,
)
from orchestrator.terminal.values import ListCommand, ValueList

METHODS = ("unrolled", "truncated", "exact", "exact_compiled")
UNROLLED_FACTOR = 6.5
"""Bytes that an unrolled step keeps, by the bytes of its convolutions' outputs; measured at 32 × 32, 128 wide, fp32."""
HEADROOM = 0.9
"""Most of the free memory that the estimate of an unrolled run may take."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One method on one problem."""

    method: str
    allocator: str
    """default: the C library's own settings; tuned: those of a sweep's workers."""
    steps: int
    dtype: str
    """fp32, tf32, bf16: the precision of a run; fp64: the reference."""
    device: str
    threads: int
    images: int
    classes: int
    size: int
    width: int
    depth: int
    micro_batch: int | None
    """Images of a micro-batch of the exact and truncated methods; None: `micro_batch_for` decides."""

    @property
    def unrolled_bytes(self) -> float:
        """Estimated memory of an unrolled run, bytes."""
        outputs = sum(self.width * (self.size >> block) ** 2 for block in range(self.depth))
        word = 8 if self.dtype == "fp64" else 4
        return UNROLLED_FACTOR * word * outputs * self.images * self.steps


@functools.cache
def prepared(job: Job) -> Any:
    """Return a function that computes the job's gradient once, in this process."""
    import torch

    from benchmarks.matching import MatchingProblem

    torch.set_num_threads(job.threads)
    device, dtype = torch.device(job.device), torch.float64 if job.dtype == "fp64" else torch.float32
    precision = "fp32" if job.dtype == "fp64" else job.dtype
    use_precision(precision, job.device)
    problem = MatchingProblem(
        images=job.images,
        classes=job.classes,
        size=job.size,
        width=job.width,
        depth=job.depth,
        steps=job.steps,
        batch=job.images,
    )
    matcher = problem.matcher(
        job.method.removesuffix("_compiled"),
        precision=precision,
        compiled=job.method.endswith("_compiled"),
        device=device,
        micro_batch=job.micro_batch,
    )
    arguments = problem.arguments(device, dtype)
    return lambda: matcher(**arguments)


def run(job: Job) -> tuple[float, int, Any]:
    """Return seconds of one gradient, this process's peak memory so far, and ∂L/∂images as float64 array."""
    gradient = prepared(job)
    began = time.perf_counter()
    images = gradient().images
    wait_for(job.device)
    return time.perf_counter() - began, peak_bytes(job.device), images.double().cpu().numpy()


def free_on(device: str) -> int:
    """Return the device's memory in bytes."""
    import torch

    from trainables.distillation.micro_batches import device_bytes

    return device_bytes(torch.device(device))


def reference_of(job: Job, free: float, process: ProcessPoolExecutor) -> tuple[str, Any]:
    """Return the name of the reference for the errors, and its ∂L/∂images."""
    unrolled = replace(job, method="unrolled", dtype="fp64")
    chosen = unrolled if fits(unrolled, free) else replace(unrolled, method="exact_compiled")
    return f"{chosen.method.removesuffix('_compiled')} fp64", process.submit(run, chosen).result()[2]


def fits(job: Job, free: float) -> bool:
    """Return whether a job fits into `free` bytes; methods whose memory does not grow with N always do."""
    return job.method != "unrolled" or job.unrolled_bytes < HEADROOM * free


def jobs_of(methods: tuple[str, ...], **options: Any) -> list[Job]:
    """Return a job a method, and on a CPU, where the C library manages memory, another for a tuned `unrolled`."""
    jobs = []
    for method in methods:
        if method != "unrolled":
            jobs.append(Job(method=method, allocator="tuned", **options))
            continue
        jobs.append(Job(method=method, allocator="default", **options))
        if options["device"] == "cpu":
            jobs.append(Job(method=method, allocator="tuned", **options))
    return jobs


def run_unrolled(job: Job) -> tuple[float, int, Any]:
    """Run an unrolled job in its own process, warmed up by one step, or with the tuned allocator by all steps."""
    with fresh_process(allocator=job.allocator == "tuned") as process:
        process.submit(run, job if job.allocator == "tuned" else replace(job, steps=1)).result()
        result: tuple[float, int, Any] = process.submit(run, job).result()
    return result


def measure(jobs: list[Job], rounds: int, console: Console) -> list[dict[str, Any]]:
    """Measure jobs in turns, which differ only in method, allocator and dtype; return a record a job."""
    import numpy as np

    reference_name = ""
    reference: Any = None
    with fresh_process(allocator=True) as process:
        free = process.submit(free_on, jobs[0].device).result()
        fitting = [job for job in jobs if fits(job, free)]
        if fitting:
            reference_name, reference = reference_of(jobs[0], free, process)
    # An unrolled graph takes gigabytes, so such a process ends after its turn.
    lasting = {job: fresh_process(allocator=job.allocator == "tuned") for job in fitting if job.method != "unrolled"}
    seconds: dict[Job, list[float]] = {job: [] for job in fitting}
    last: dict[Job, tuple[float, int, Any]] = {}
    for turn in range(rounds + 1):
        for job in fitting:
            if job in lasting:
                last[job] = lasting[job].submit(run, job).result()
            elif turn:
                last[job] = run_unrolled(job)
            if turn:  # the first round warms up, and compiles
                seconds[job].append(last[job][0])
                console.print(f"N = {job.steps}, {job.dtype}, {job.method}, {job.allocator}: {last[job][0]:.3f} s")
    for process in lasting.values():
        process.shutdown()
    standard = ("unrolled", "default", "fp32")
    baseline = next((job for job in fitting if (job.method, job.allocator, job.dtype) == standard), None)
    records = []
    for job in jobs:
        record: dict[str, Any] = {"method": job.method, "allocator": job.allocator, "steps": job.steps}
        record |= {"dtype": job.dtype, "device": job.device}
        if job not in last:
            record |= {"fits": False, "estimated_peak_mb": job.unrolled_bytes / 2**20, "free_mb": free / 2**20}
            record |= dict.fromkeys(("seconds", "peak_mb", "relative_error", "speed"))
        else:
            error = np.linalg.norm(last[job][2] - reference) / np.linalg.norm(reference)
            record |= {
                "fits": True,
                "seconds": statistics.median(seconds[job]),
                "seconds_by_round": seconds[job],
                "peak_mb": last[job][1] / 2**20,
                "relative_error": float(error),
                "reference": reference_name,
                "speed": baseline
                and statistics.median(a / b for a, b in zip(seconds[baseline], seconds[job], strict=True)),
            }
        records.append(record)
    return records


def show(records: list[dict[str, Any]], console: Console) -> None:
    """Print the records as a table."""
    table = Table(
        "N", "method", "allocator", "dtype", "s / iteration", "× unrolled", "peak MiB", "relative error", "against"
    )
    for record in records:
        cells = (str(record["steps"]), record["method"], record["allocator"], record["dtype"])
        if not record["fits"]:
            estimate = f"≈ {record['estimated_peak_mb']:,.0f} of {record['free_mb']:,.0f} free"
            table.add_row(*cells, "does not fit", "", estimate, "", "")
            continue
        speed = f"{record['speed']:.2f}" if record["speed"] else ""
        table.add_row(
            *cells,
            f"{record['seconds']:.3f}",
            speed,
            f"{record['peak_mb']:,.0f}",
            f"{record['relative_error']:.1e}",
            record["reference"],
        )
    console.print(table)


@click.command(cls=ListCommand, help=(__doc__ or "").split("\n\n")[0])
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Threads of torch on a CPU.")
@click.option(
    "--steps", type=ValueList(click.IntRange(1)), default="10,20,40,80", show_default=True, metavar="N,…",
    help="Inner steps N.",
)  # fmt: skip
@click.option("--images", type=click.IntRange(1), default=100, show_default=True, help="Images, all in every step.")
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True)
@click.option("--size", type=click.IntRange(8), default=32, show_default=True, help="Side of an image, in pixels.")
@click.option("--width", type=click.IntRange(1), default=128, show_default=True, help="Channels of the ConvNet.")
@click.option("--depth", type=click.IntRange(1), default=3, show_default=True, help="Blocks of the ConvNet.")
@click.option(
    "--dtype", "dtypes", type=ValueList(click.Choice(["fp32", "tf32", "bf16"])), default="fp32", show_default=True,
    metavar="NAME,…", help="fp32,tf32,bf16.",
)  # fmt: skip
@click.option(
    "--method", "methods", type=ValueList(click.Choice(METHODS)), default=",".join(METHODS), show_default=True,
    metavar="NAME,…",
)  # fmt: skip
@click.option("--micro-batch", type=click.IntRange(1), help="Images of a micro-batch; default: a trial's choice.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measurements of every method.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="File for the records.")
def main(
    steps: tuple[int, ...],
    dtypes: tuple[str, ...],
    methods: tuple[str, ...],
    rounds: int,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Measure, print a table, and write the records."""
    if fault := device_fault(options["device"]):
        raise click.UsageError(fault)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    setting = {**surroundings(options["device"]), **options, "rounds": rounds}
    records = []
    for count in steps:
        jobs = [job for dtype in dtypes for job in jobs_of(methods, steps=count, dtype=dtype, **options)]
        records += measure(jobs, rounds, console)
        write_records(json_path, records, setting)
    show(records, console)
    console.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)


if __name__ == "__main__":
    main()
