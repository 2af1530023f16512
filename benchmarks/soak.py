"""A long search of trials without work: whether the driver's memory, handles and threads grow with its trials.

python -m benchmarks.soak
python -m benchmarks.soak --trials 200 --json soak.json

Optuna's study, ASHA, Ray Tune and the journal are the real ones, and so are MLflow's server and the PostgreSQL below
it, which the benchmark starts (Debian's package postgresql). Trials report and draw, and nothing else. The driver is a
fresh process; its memory is sampled as trials end. A line through the samples after the first quarter of the trials, in
which caches fill, says how much a trial takes for good.
"""

import gc
import os
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from benchmarks.measure import fresh_process, peak_bytes, surroundings, write_records
from benchmarks.servers import mlflow_server, postgresql, postgresql_programs
from benchmarks.waiting_trial import waiting_trial

SAMPLES = 80
"""Samples of a search, evenly spread over its trials."""
_WARM_UP = 0.25  # share of the trials in which caches fill, and which the slope leaves out


@dataclass(frozen=True, kw_only=True)
class Job:
    """One search."""

    trials: int
    concurrent: int
    rungs: int
    tracking_uri: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the driver holds at a moment."""

    trials: int
    """Trials that have ended."""
    memory_bytes: int
    """Resident memory of the process, without its children."""
    handles: int
    """Open file descriptors."""
    threads: int


def sample(trials: int) -> Sample:
    """Return what this process holds now."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return Sample(
        trials=trials,
        memory_bytes=1024 * int(status["VmRSS"].split()[0]),
        handles=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names alone
        threads=int(status["Threads"]),
    )


def slope(samples: list[Sample]) -> float:
    """Return the growth of memory, bytes a trial, by least squares over the samples after the warm-up."""
    after = [each for each in samples if each.trials >= _WARM_UP * samples[-1].trials]
    return float(np.polyfit([each.trials for each in after], [each.memory_bytes for each in after], 1)[0])


def run(job: Job) -> dict[str, Any]:
    """Run a search, and return its samples and what MLflow has of it."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    from mlflow.tracking import MlflowClient
    from ray import tune

    from orchestrator.cluster.connection import connected
    from orchestrator.cluster.losses import Patience
    from orchestrator.search.run import run_search
    from orchestrator.state.progress import Progress
    from orchestrator.state.settings import SweepSettings
    from orchestrator.state.settings_file import write_settings
    from orchestrator.state.workdir import Workdir
    from orchestrator.tracking.opening import open_sweep_run
    from orchestrator.tracking.trial_callback import TrackingCallback
    from search_spaces import load

    samples: list[Sample] = []

    class Watch(tune.Callback):
        """Samples this process as trials end."""

        def __init__(self) -> None:
            self.ended = 0

        def __getstate__(self) -> dict[str, Any]:
            return {}

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.ended += 1
            if self.ended % max(1, job.trials // SAMPLES) == 0:
                samples.append(sample(self.ended))

    space = load("digits").override(
        {
            "trials": job.trials, "iterations": job.rungs, "validation_every_iterations": 1,
            "first_rung_iterations": 1,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = SweepSettings(
            space=space, name="soak", seed=0, workdir=Workdir(Path(folder)), concurrent=job.concurrent,
            tracking_uri=job.tracking_uri,
        )  # fmt: skip
        write_settings(settings)
        before = sample(0)
        began = time.monotonic()
        with connected("local", None, job.concurrent) as resources:
            tracked = open_sweep_run(job.tracking_uri, settings.workdir, space.name, settings.name, {})
            tracking, no_work = TrackingCallback(tracked, job.rungs), None
            outcome = run_search(
                settings, resources, no_work, Progress(settings.places.folder), [Watch(), tracking],  # type: ignore[arg-type]
                Patience(settings.patience_s, Console(), "run it again"),
                trainable=waiting_trial(0.0, job.rungs, ipc=1),
            )  # fmt: skip
            seconds = time.monotonic() - began
            left = tracked.end("FINISHED", 3600.0)
        client, runs, token = MlflowClient(job.tracking_uri), Counter[str](), None
        while token != "":
            page = client.search_runs(
                [tracked.experiment_id], f"tags.`mlflow.parentRunId` = '{tracked.run_id}'", max_results=1000,
                page_token=token,
            )  # fmt: skip
            runs.update(each.data.tags["mdatm.trial"] for each in page)
            token = page.token or ""
    return {
        "trials": len(outcome.trials),
        "results": sum(len(record.rungs) for record in outcome.trials),
        "seconds": seconds,
        "slope_bytes_a_trial": slope(samples),
        "before": asdict(before),
        "after": asdict(sample(len(outcome.trials))),
        "samples": [asdict(each) for each in samples],
        "driver_peak_bytes": peak_bytes("cpu"),
        "mlflow_runs": sum(runs.values()),
        "mlflow_trials": len(runs),
        "mlflow_entries_left": left,
    }


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--trials", type=click.IntRange(8), default=2000, show_default=True, metavar="N")
@click.option("--concurrent", type=click.IntRange(1), default=2, show_default=True, metavar="N", help="trials at once")
@click.option("--rungs", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="rungs of a trial")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="write the record here")
def main(trials: int, concurrent: int, rungs: int, json_path: Path | None) -> None:
    """Run, print, and write."""
    programs = postgresql_programs()
    if programs is None:
        raise click.UsageError("the soak needs Debian's package postgresql; install it")
    around = {**surroundings("cpu"), **{name: version(name) for name in ("ray", "optuna", "mlflow")}}
    with (
        tempfile.TemporaryDirectory() as folder,
        postgresql(programs, "mlflow") as database,
        mlflow_server(Path(folder), f"{database}mlflow") as address,
        fresh_process() as executor,
    ):
        job = Job(trials=trials, concurrent=concurrent, rungs=rungs, tracking_uri=address)
        record = executor.submit(run, job).result()
    show(record, Console())
    Console().print(", ".join(f"{key} {value}" for key, value in around.items()), soft_wrap=True)
    write_records(json_path, [{"benchmark": "soak", **record}], {**around, "concurrent": concurrent, "rungs": rungs})


def show(record: dict[str, Any], console: Console) -> None:
    """Print a record in a few lines."""
    samples, before, after = record["samples"], record["before"], record["after"]
    memory = " ".join(f"{each['memory_bytes'] / 2**20:,.0f}" for each in samples[:: max(1, len(samples) // 8)])
    console.print(
        f"{record['trials']:,} trials, {record['results']:,} results in {record['seconds']:,.0f} s\n"
        f"memory of the driver as trials ended, MiB: {memory}\n"
        f"slope after the first quarter: {record['slope_bytes_a_trial']:,.0f} bytes a trial\n"
        f"handles: {samples[0]['handles']} after the first trials, {samples[-1]['handles']} after the last; "
        f"{before['handles']} before the search, {after['handles']} after it\n"
        f"threads: {samples[0]['threads']} and {samples[-1]['threads']}; {before['threads']} and {after['threads']}\n"
        f"MLflow: {record['mlflow_runs']:,} runs of {record['mlflow_trials']:,} trials, "
        f"{record['mlflow_entries_left']} entries left",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
