"""Whether a GPU computes the right values, and how fast: one command for a new machine.

python -m benchmarks.gpu                                    ten minutes on a GPU
python -m benchmarks.gpu --device cpu --minutes 2           every part in small, on a CPU

It needs torch, torchvision, pyarrow, numpy and click: neither Ray nor a network. First it compares gradients and
trainings with the CPU's. Then it measures, in order of worth and until the time is over: the gradient at M-DATM's
settings, experts, networks trained on a set, processes that share the device, and a headline run on --data or on made
images. `gpu.json` and `gpu.md` in --out are written again after every job. Exit code 1: a value is wrong.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from benchmarks.device.jobs import Job, Part, parts_of
from benchmarks.device.record import Outcome, Record
from benchmarks.device.results import JobStopped, Measurement, Result
from benchmarks.device.sizes import Sizes, cpu_sizes, gpu_sizes
from benchmarks.device.whole_run import check_data
from benchmarks.device.worker import Around, Worker
from benchmarks.measure import device_fault
from trainables.errors import DatasetError

LEAST_SECONDS = 1.0
"""A job is left out if its part has less time."""


class Bench:
    """Runs jobs in a worker, which is replaced after one that failed."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._worker: Worker | None = None

    def run(self, part: Part, job: Job, deadline: float) -> Outcome:
        """Run a job and return how it ended."""
        began, results = time.monotonic(), list[Result]()
        how, reason = "done", ""
        try:
            for result in self._results(job, deadline):
                results.append(result)
        except JobStopped as stopped:
            how, reason = stopped.how, stopped.reason
            if how == "failed":  # what it was may have broken the process's use of the device
                self.end()
        seconds = time.monotonic() - began
        return Outcome(part=part.name, job=job.name, how=how, reason=reason, seconds=seconds, results=tuple(results))

    def _results(self, job: Job, deadline: float) -> Iterator[Any]:
        if deadline - time.monotonic() < LEAST_SECONDS:
            raise JobStopped("skipped", "no time was left for it")
        if job.fresh:
            self.end()
        if self._worker is None or not self._worker.alive:
            self._worker = Worker(self._around)
        self._worker.send(job.run, *job.arguments, deadline)
        return self._worker.receive(deadline)

    def end(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def run(
    sizes: Sizes, *, device: str, minutes: float, out: Path, data: Path | None = None, around: Around = nullcontext
) -> Record:
    """Check and measure a device, and write the record after every job.

    Args:
        sizes: How large everything is.
        device: cpu or cuda.
        minutes: The time for everything.
        out: Folder of the record; created if it does not exist.
        data: Folder of the headline's dataset; None: made images.
        around: The context of the jobs in their processes.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    record, bench = Record(device=device, minutes=minutes, sizes=sizes), Bench(around)
    try:
        for part in parts_of(sizes, device, data, out / "headline", around):
            for job in part.jobs:
                outcome = bench.run(part, job, began + 60 * minutes * part.until)
                record.outcomes.append(outcome)
                record.seconds = time.monotonic() - began
                record.write(out)
                click.echo(f"{record.seconds:6.1f} s  {_line(outcome)}")
        record.finished = True
        record.write(out)
    finally:
        bench.end()
    return record


def _line(outcome: Outcome) -> str:
    figures = "".join(
        f"; {result.name}: {result.median:.4g} {result.unit}"
        for result in outcome.results
        if isinstance(result, Measurement)
    )
    return f"{outcome.part}, {outcome.job}: {outcome.how}{f': {outcome.reason}' if outcome.reason else ''}{figures}"


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="For all.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path),
    help="Folder of Tiny ImageNet, CIFAR-100 or CIFAR-10 for the headline run; default: made images.",
)  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default="gpu", show_default=True)
def main(minutes: float, device: str, data: Path | None, out: Path) -> None:
    """Measure, print the page, and exit with code 1 if a value is wrong."""
    if fault := device_fault(device):
        raise click.UsageError(fault)
    try:
        if data is not None:
            check_data(data)
    except DatasetError as error:
        raise click.UsageError(str(error)) from error
    sizes = gpu_sizes() if device == "cuda" else cpu_sizes()
    record = run(sizes, device=device, minutes=minutes, out=out, data=data)
    click.echo(f"\n{record.page()}\n{out}: gpu.md, gpu.json")
    if not record.correct:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
