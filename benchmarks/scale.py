"""The orchestrator's overhead as trials and nodes grow: a real search whose trials only wait.

python -m benchmarks.scale                                    nodes first, then a long search
python -m benchmarks.scale --nodes 1,8 --trials-a-node 8 --json scale.json

Optuna's study, ASHA, Ray Tune, the journal and MLflow's embedded store are the real ones, and so are Ray's nodes: a
head without cores and a raylet a node, at most `--raylets`, which then have the cores of several trials. A trial sleeps
for every rung, draws its set, and reports. Every figure is of a fresh driver process; computed ones are marked as such.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.measure import fresh_process, peak_bytes, surroundings, write_records
from benchmarks.waiting_trial import waiting_trial
from orchestrator.state.settings_file import write_settings
from orchestrator.terminal.values import ListCommand, ValueList
from trainables.workers.rung import RungResult

ON_PAPER = 64
"""Number of nodes whose efficiency is computed from the driver's load, unless it is measured."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One search."""

    nodes: int
    """Trials at once, one a node."""
    raylets: int
    """Ray nodes that are started."""
    trials: int
    before: int
    """Ended trials that the study has at the start."""
    rungs: int
    rung_s: float
    ipc: int
    """Images per class of the set that a trial draws at every rung, 10 classes of 32 × 32 pixels; 0: it draws none."""


def run(job: Job) -> dict[str, Any]:
    """Run one search and return its times, rates and memory."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    from ray.cluster_utils import Cluster

    from orchestrator.cluster.connection import connected
    from orchestrator.cluster.losses import Patience
    from orchestrator.search.run import run_search
    from orchestrator.state.progress import Progress
    from orchestrator.state.settings import SweepSettings
    from orchestrator.state.workdir import Workdir
    from orchestrator.tracking.opening import open_sweep_run
    from orchestrator.tracking.trial_callback import TrackingCallback
    from search_spaces import load

    space = load("digits").override(
        {
            "trials": job.before + job.trials, "iterations": job.rungs, "validation_every_iterations": 1,
            "first_rung_iterations": 1,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = SweepSettings(space=space, name="scale", seed=0, workdir=Workdir(Path(folder)), concurrent=job.nodes)
        write_settings(settings)
        _fill_study(settings, job.before)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
        try:
            for number in range(job.raylets):
                cores = job.nodes // job.raylets + (number < job.nodes % job.raylets)
                cluster.add_node(num_cpus=cores, object_store_memory=10**8)
            with connected(cluster.address, None, job.nodes) as resources:
                tracked = open_sweep_run(None, settings.workdir, space.name, settings.name, {})
                times = _Times()
                tracking = TrackingCallback(tracked, job.rungs)
                began, cpu = time.monotonic(), time.process_time()
                outcome = run_search(
                    settings, resources, None, Progress(settings.places.folder), [times.callback(), tracking],  # type: ignore[arg-type]
                    Patience(settings.patience_s, Console(), "run it again"),
                    trainable=waiting_trial(job.rung_s, job.rungs, job.ipc),
                )  # fmt: skip
                seconds, cpu = time.monotonic() - began, time.process_time() - cpu
                waiting = tracked.flush(0.0)
                drained = time.monotonic()
                left = tracked.end("FINISHED", 600.0)
                drained = time.monotonic() - drained
        finally:
            cluster.shutdown()
    ended = outcome.trials[job.before :]
    results = sum(len(record.rungs) for record in ended)
    first, rest = times.ended[0], times.ended[-1] - times.ended[0]
    slept_after_first = job.rung_s * (results - len(ended[0].rungs))
    return {
        "trials": len(ended),
        "results": results,
        "seconds": seconds,
        "seconds_to_first_end": first - began,
        "overhead_s_a_trial": (rest * job.nodes - slept_after_first) / max(1, len(ended) - 1),
        "efficiency": slept_after_first / (rest * job.nodes),
        "driver_cpu_s_a_result": cpu / results,
        "results_a_second": results / seconds,
        "mlflow_waiting_at_end": waiting,
        "mlflow_entries_a_second": (waiting - left) / drained if waiting else None,
        "driver_peak_bytes": peak_bytes("cpu"),
    }


class _Times:
    """Times at which the driver saw trials end, s."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def callback(self) -> Any:
        from ray import tune

        ended = self.ended

        class Watch(tune.Callback):
            def __getstate__(self) -> dict[str, Any]:
                return {}

            def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                ended.append(time.monotonic())

        return Watch()


def _fill_study(settings: Any, trials: int) -> None:
    """Add ended trials to the study: random settings, accuracies spread evenly."""
    import optuna

    from orchestrator.search.proposals import StudySearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not trials:
        return
    search = StudySearch(
        settings.space, study=settings.name, storage=settings.places.study_storage, seed=0,
        trials=trials, iterations=settings.fixed["iterations"],
    )  # fmt: skip
    search.suggest("first")
    rung = RungResult(iteration=10**9, validation_accuracy=0.5, trial_seconds=1.0)
    search.on_trial_complete("first", rung.to_report())
    random = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    ended = []
    for number in range(1, trials):
        drawn = random.ask()
        settings.space.draw(drawn)
        ended.append(
            optuna.create_trial(
                params=drawn.params, distributions=drawn.distributions, value=(number * 0.6180339887) % 1.0,
                intermediate_values={1: (number * 0.6180339887) % 1.0},
            )
        )  # fmt: skip
    search.study.add_trials(ended)


def in_a_fresh_process(job: Job) -> dict[str, Any]:
    """Run a job in a fresh process."""
    with fresh_process() as executor:
        return executor.submit(run, job).result()


def on_paper(measured: dict[str, Any], nodes: int, rung_s: float) -> dict[str, Any]:
    """Return the efficiency at more nodes, limited by the driver's CPU time, as it handles results one by one."""
    wanted = nodes / rung_s
    possible = 1 / measured["driver_cpu_s_a_result"]
    return {"nodes": nodes, "computed": True, "efficiency": min(1.0, possible / wanted), "results_a_second": possible}


@click.command(cls=ListCommand, help=(__doc__ or "").split("\n\n")[0])
@click.option("--nodes", type=ValueList(click.IntRange(1)), default="1,8", show_default=True, metavar="N,…")
@click.option("--raylets", type=click.IntRange(1), default=8, show_default=True, help="Ray nodes at most")
@click.option("--trials-a-node", type=click.IntRange(2), default=8, show_default=True)
@click.option("--rungs", type=click.IntRange(1), default=4, show_default=True)
@click.option("--rung-s", type=click.FloatRange(0), default=1.0, show_default=True, help="seconds a trial waits a rung")
@click.option("--ipc", type=click.IntRange(0), default=10, show_default=True, metavar="N",
              help="images per class of the set that a trial draws, 10 classes of 32 × 32 pixels; 0: none")  # fmt: skip
@click.option("--long", type=ValueList(click.IntRange(0)), default="1000,10000", show_default=True, metavar="N,…",
              help="ended trials of a search that is measured at 1 node, without waiting")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="write the records here")
def main(
    nodes: tuple[int, ...],
    raylets: int,
    trials_a_node: int,
    rungs: int,
    rung_s: float,
    ipc: int,
    long: tuple[int, ...],
    json_path: Path | None,
) -> None:
    """Measure, print, and write."""
    console, around, records = Console(), surroundings("cpu"), []
    for count in nodes:
        job = Job(
            nodes=count, raylets=min(count, raylets), trials=count * trials_a_node, before=0, rungs=rungs,
            rung_s=rung_s, ipc=ipc,
        )  # fmt: skip
        records.append({"benchmark": "nodes", "nodes": count, "computed": False, **in_a_fresh_process(job)})
        console.print(f"{count} nodes: {records[-1]}", soft_wrap=True)
    if ON_PAPER not in nodes:
        records.append({"benchmark": "nodes", **on_paper(records[-1], ON_PAPER, rung_s)})
    for before in long:
        job = Job(nodes=1, raylets=1, trials=20, before=before, rungs=rungs, rung_s=0.0, ipc=ipc)
        records.append({"benchmark": "trials", "before": before, **in_a_fresh_process(job)})
        console.print(f"after {before} trials: {records[-1]}", soft_wrap=True)
    show(records, console)
    setting = {
        **around,
        "raylets": raylets,
        "trials_a_node": trials_a_node,
        "rungs": rungs,
        "rung_s": rung_s,
        "ipc": ipc,
    }
    console.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)
    write_records(json_path, records, setting)


def show(records: list[dict[str, Any]], console: Console) -> None:
    """Print the records as tables."""
    by_nodes = Table(title="A search on nodes, one trial each", title_justify="left")
    for heading in ("nodes", "trials", "overhead a trial, s", "efficiency", "results / s", "driver, CPU ms a result"):
        by_nodes.add_column(heading, justify="right")
    by_trials = Table(title="A search after many ended trials, whose own trials do not wait", title_justify="left")
    for heading in ("trials before", "s a trial", "results / s", "MLflow entries / s", "driver peak, MiB"):
        by_trials.add_column(heading, justify="right")
    for record in records:
        if record["benchmark"] == "trials":
            written = record["mlflow_entries_a_second"]
            by_trials.add_row(
                f"{record['before']:,}", f"{record['overhead_s_a_trial']:.2f}", f"{record['results_a_second']:.1f}",
                f"{written:.0f}" if written else "all in time", f"{record['driver_peak_bytes'] / 2**20:,.0f}",
            )  # fmt: skip
        elif record["computed"]:
            by_nodes.add_row(
                f"{record['nodes']}, on paper", "–", "–", f"{record['efficiency']:.2f}",
                f"at most {record['results_a_second']:.0f}", "–",
            )  # fmt: skip
        else:
            by_nodes.add_row(
                str(record["nodes"]), str(record["trials"]), f"{record['overhead_s_a_trial']:.2f}",
                f"{record['efficiency']:.2f}", f"{record['results_a_second']:.1f}",
                f"{1000 * record['driver_cpu_s_a_result']:.0f}",
            )  # fmt: skip
    console.print(by_nodes, by_trials)


if __name__ == "__main__":
    main()
