"""Curves of a space's settings, recorded by distilling each of them to its end; a part can be committed as it comes.

python -m benchmarks.search.recording --ipc 5 --half sobol --minutes 30
python -m benchmarks.search.recording --ipc 5 --half around

A curve is one distillation: at every rung the validation accuracy of each network, the matching loss and the seconds
of a core, which do not depend on what else runs. The trial is the sweep's own class, run in processes of this command;
nothing stops it early. Finished curves are kept in the workdir, so a command that was stopped goes on. The files of
`recorded/` hold them for good.
"""

import json
import math
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from benchmarks.search.curves import RECORDED, Curve, Rung, curve_from_json, read_curves, write_curves
from benchmarks.search.points import Box, points_around, sobol_points
from orchestrator.cluster.resources import Resources
from orchestrator.stages.inputs import prepare_inputs
from orchestrator.state.settings import SweepSettings
from orchestrator.state.space import load_space
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.console import make_console
from orchestrator.terminal.progress_bar import progress_bar
from search_spaces import Space
from trainables.evaluation.validation import validation_accuracy
from trainables.seeding import seed_of
from trainables.storage.atomic import write_json
from trainables.workers.process import prepare_process
from trainables.workers.rung import Halted, RungResult, SettingsFailed
from trainables.workers.trial import DistillationTrial
from trainables.workers.workbench import TrialWork, Workbench

SEEDS = 2
"""Distillations of every setting."""
NETWORKS, LAST_NETWORKS = 2, 4
"""Networks that are trained on the images at a rung, and at the last."""


@dataclass(frozen=True)
class Job:
    """One curve to record."""

    number: int
    around: bool
    settings: Mapping[str, int | float]
    repeat: int


class _Bench(Workbench):
    """A workbench whose validations also keep the accuracy of every network."""

    def __init__(self, work: TrialWork, rungs: int) -> None:
        super().__init__(work)
        self._rungs = rungs
        self.accuracies: list[list[float]] = []

    def validate(self, images: Any) -> float:
        """Return the mean accuracy over `NETWORKS` networks; at the last rung more are measured, and kept."""
        networks = LAST_NETWORKS if len(self.accuracies) == self._rungs - 1 else NETWORKS
        each = [
            validation_accuracy(
                self.work.network, self._dataset, images, protocol=self.work.protocol,
                augmentation=self._evaluation_augmentation, seeds=[seed_of(self.work.seed, "validation", number)],
            )
            for number in range(networks)
        ]  # fmt: skip
        self.accuracies.append(each)
        return sum(each[:NETWORKS]) / NETWORKS


class _Trial(DistillationTrial):
    """A trial that runs in the process that makes it, without Ray."""

    bench: _Bench
    """Set before the first trial of a process; its trials share it."""

    def _setup_logdir(self) -> None:
        """Make no folder: nothing is logged."""

    def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
        """Begin the trial on the process's workbench."""
        self.bench.accuracies = []
        self._bench = self.bench
        self._begin(config)


def _start_process(work: TrialWork, rungs: int) -> None:
    prepare_process(work.device, work.arithmetic)
    _Trial.bench = _Bench(work, rungs)


def record(job: Job, own: dict[str, Any]) -> Curve:
    """Distil a setting to its end, and return its curve; the process was started by `_start_process`.

    Args:
        job: The setting and its repeat.
        own: The trial's settings: those in which it differs from others, with `trial_number` and `repeat`.
    """
    began_s = time.process_time()
    trial = _Trial(own)
    rungs: list[Rung] = []
    while True:
        result = RungResult.from_report(trial.step())
        if isinstance(result.end, Halted):
            raise OSError(result.end.remedy)
        if isinstance(result.end, SettingsFailed):
            break
        assert result.matching_loss is not None and result.skip_rate is not None
        rungs.append(
            Rung(
                iteration=result.iteration, accuracies=tuple(_Trial.bench.accuracies[-1]),
                matching_loss=result.matching_loss, skip_rate=result.skip_rate,
                seconds=time.process_time() - began_s,
            )
        )  # fmt: skip
        if result.done:
            break
    failed = result.end.reason if isinstance(result.end, SettingsFailed) else ""
    return Curve(
        number=job.number, around=job.around, settings=dict(job.settings), repeat=job.repeat, rungs=tuple(rungs),
        failed=failed, seconds=time.process_time() - began_s,
    )  # fmt: skip


def jobs_of(space: Space, half: str, count: int, sobol: list[Curve]) -> list[Job]:
    """Return the jobs of a half: of `sobol` the points of the sequence, of `around` points around the best of those."""
    box = Box.of(space)
    if half == "sobol":
        points = sobol_points(box, count)
    else:
        settings: dict[int, Mapping[str, int | float]] = {curve.number: curve.settings for curve in sobol}
        accuracies = {number: fmean(_last(curve) for curve in sobol if curve.number == number) for number in settings}
        points = points_around(box, list(settings.values()), [accuracies[number] for number in settings], count)
    return [
        Job(number, half == "around", point, repeat) for number, point in enumerate(points) for repeat in range(SEEDS)
    ]


def _last(curve: Curve) -> float:
    return math.nan if curve.failed or not curve.rungs else curve.rungs[-1].accuracy


@click.command(help="Record the curves of a space's settings.")
@click.option("--space", "space_name", default="digits", show_default=True, help="The space.")
@click.option("--ipc", type=click.IntRange(1), required=True, help="Images per class.")
@click.option("--half", type=click.Choice(["sobol", "around"]), required=True, help="A Sobol set, or around its best.")
@click.option("--settings", type=click.IntRange(1), default=80, show_default=True, help="Settings of the half.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of the dataset's files.")
@click.option("--workdir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Workdir.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True, help="Distillations at once.")
@click.option("--minutes", type=float, default=math.inf, help="Begin no distillation after so long; the rest stays.")
def main(
    space_name: str,
    ipc: int,
    half: str,
    settings: int,
    data: Path | None,
    workdir: Path,
    processes: int,
    minutes: float,
) -> None:
    """Record the curves that are missing, and write the half's file when all are there."""
    space = load_space(space_name, {"ipc": str(ipc), "validation_networks": str(NETWORKS)})
    file = RECORDED / f"{space.name}-{ipc}-{half}.parquet"
    kept = workdir.absolute() / "recorded" / file.stem
    kept.mkdir(parents=True, exist_ok=True)
    sobol = read_curves(RECORDED / f"{space.name}-{ipc}-sobol.parquet") if half == "around" else []
    jobs = {kept / f"{job.number:03d}-{job.repeat}.json": job for job in jobs_of(space, half, settings, sobol)}
    missing = {place: job for place, job in jobs.items() if not place.exists()}
    console = make_console()
    console.print(f"{len(jobs) - len(missing)} of {len(jobs)} curves of {file.name} are recorded")
    if missing:
        _record_all(space_name, missing, space, workdir, data, processes, minutes)
    if left := sum(not place.exists() for place in jobs):
        console.print(f"{left} curves are left; the same command goes on")
        return
    RECORDED.mkdir(exist_ok=True)
    write_curves(file, [curve_from_json(json.loads(place.read_text())) for place in jobs], f"{space.name} ipc={ipc}")
    console.print(f"Wrote {file}")


def _record_all(
    space_name: str,
    missing: Mapping[Path, Job],
    space: Space,
    workdir: Path,
    data: Path | None,
    processes: int,
    minutes: float,
) -> None:
    """Record curves in processes of their own, and write each to its place when it is there."""
    trained = [sys.executable, "-m", "orchestrator.experts", "--space", space_name, "--workdir", str(workdir)]
    subprocess.run([*trained, *(["--data", str(data)] if data else [])], check=True)
    ends = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as checkpoints:
        settings = SweepSettings(
            space=space, name="recording", seed=0, workdir=Workdir.at(str(workdir)), storage_path=checkpoints, data=data
        )
        inputs = prepare_inputs(settings, make_console(quiet=True))
        work = inputs.trial_work(Resources(cpus=processes, gpus=0, gpus_per_trial=0), compiled=False)
        fixed = settings.fixed
        rungs = math.ceil(fixed["iterations"] / fixed["validation_every_iterations"])
        with (
            ProcessPoolExecutor(
                processes, mp_context=multiprocessing.get_context("spawn"), initializer=_start_process,
                initargs=(work, rungs),
            ) as pool,
            progress_bar(make_console(), "Curves", len(missing)) as show,
        ):  # fmt: skip
            waiting = list(missing.items())
            running: dict[Future[Curve], Path] = {}
            done = 0
            while waiting or running:
                while waiting and len(running) < processes and time.monotonic() < ends:
                    place, job = waiting.pop(0)
                    _, own = space.split(space.resolve(job.settings))
                    number = 1000 * job.around + SEEDS * job.number + job.repeat
                    own |= {"trial_number": number, "repeat": job.repeat}
                    running[pool.submit(record, job, own)] = place
                if not running:
                    return
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    write_json(running.pop(ended), asdict(ended.result()))
                    done += 1
                    show(done)


if __name__ == "__main__":
    main()
