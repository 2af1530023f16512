"""How many copies of the experts a node holds when several trials run on it.

python -m benchmarks.sharing
python -m benchmarks.sharing --trials 1 --trials 16 --experts 64 --json sharing.json

Each trial is a `DistillationTrial` in a process of its own, as Ray's workers are, on one expert store of random
snapshots. It runs an iteration and then reads every snapshot once, so that every page of the store is in use. What it
holds of the store's files is its proportional set size: a page that n processes map counts 1/n in each.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.measure import fresh_process, surroundings, write_records


@dataclass(frozen=True, kw_only=True)
class Job:
    """One store, and the folder that it is in."""

    folder: Path
    experts: int
    epochs: int
    width: int


def make_store(job: Job) -> int:
    """Write experts of random snapshots, and return the bytes of their files."""
    import torch

    work = _work(job)
    from trainables.seeding import generator
    from trainables.trajectories import TrajectoryStore

    store = TrajectoryStore(work.store, work.identity, work.network)
    for expert in range(job.experts):
        draws = generator("benchmark", "sharing", expert)
        snapshots = list(torch.randn(job.epochs + 1, work.network.parameters, generator=draws))
        store.record({expert: store.write(expert, snapshots, [1.0] * job.epochs)})
    return sum(entry.bytes for entry in store.read().values())


def _work(job: Job) -> Any:
    """Return what a sweep on the digits would give its trials."""
    from trainables.augmentation import Augmentation
    from trainables.config import Protocol
    from trainables.datasets import load, prepare
    from trainables.networks import ConvNet
    from trainables.workbench import TrialWork

    path = prepare("digits", cache=job.folder / "datasets", data=None, validation_share=0.1)
    dataset = load(path)
    network = ConvNet(
        channels=dataset.channels, image_size=dataset.image_size, classes=dataset.classes, depth=2, width=job.width
    )
    return TrialWork(
        dataset=path, store=job.folder / "experts", identity={"of": "benchmarks.sharing"}, network=network,
        augmentation=Augmentation(families=()), checkpoints=str(job.folder / "checkpoints"), experts=job.experts,
        epochs=job.epochs, protocol=Protocol.challenge(1), validation_networks=1, validation_every_iterations=1, seed=0,
        device="cpu", compiled=False, memory_budget_bytes=None, device_share=1.0,
    )  # fmt: skip


_held: list[Any] = []  # the trial of this process, which lives as long as it


def run_trial(job: Job, number: int) -> int:
    """Run a trial's first rung, read every snapshot, and return the process that holds it."""
    import torch

    from trainables.config import DistillationConfig
    from trainables.distillation import Distiller
    from trainables.trial import DistillationTrial

    class Alone(DistillationTrial):
        """A trial without a cluster."""

        def _setup_logdir(self) -> None:
            self._logdir = str(job.folder)  # type: ignore[assignment]

        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            super().setup(config, _work(job))

    settings = DistillationConfig(
        ipc=1, N=1, M=1, T_minus=0, T=1, T_plus=1, interval=1, lr_pixel=1e-9, lr_alpha=0.0, batch_syn=10, iterations=1,
        max_matching_loss=1e9,
    )  # fmt: skip
    trial = Alone({**vars(settings), "trial_number": number})
    trial.step()
    distiller = trial._distiller
    assert isinstance(distiller, Distiller)
    total = torch.zeros(())
    for expert in range(job.experts):
        for epoch in range(job.epochs + 1):
            total += distiller.trajectories.snapshot(expert, epoch).sum()
    _held.append((trial, float(total)))
    return psutil.Process().pid


def held_bytes(pid: int, folder: Path) -> tuple[int, int]:
    """Return what a process holds: its proportional share of the files of a folder, and all that is its own alone."""
    process = psutil.Process(pid)
    maps = process.memory_maps(grouped=True)
    return sum(each.pss for each in maps if each.path.startswith(str(folder))), int(process.memory_full_info().uss)


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--trials", type=click.IntRange(1), multiple=True, default=(1, 2, 4, 8), show_default=True)
@click.option("--experts", type=click.IntRange(1), default=16, show_default=True)
@click.option("--epochs", type=click.IntRange(2), default=25, show_default=True)
@click.option("--width", type=click.IntRange(1), default=128, show_default=True, help="channels of the ConvNet")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="write the records here")
def main(trials: tuple[int, ...], experts: int, epochs: int, width: int, json_path: Path | None) -> None:
    """Measure, print, and write."""
    console, around = Console(), surroundings("cpu")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        job = Job(folder=Path(folder).resolve(), experts=experts, epochs=epochs, width=width)
        with fresh_process() as maker:
            store_bytes = maker.submit(make_store, job).result()
        workers: list[ProcessPoolExecutor] = []
        pids: list[int] = []
        records: list[dict[str, Any]] = []
        for count in sorted(set(trials)):
            while len(workers) < count:  # those before it stay
                workers.append(stack.enter_context(fresh_process(allocator=True)))
                pids.append(workers[-1].submit(run_trial, job, len(pids)).result())
            held = [held_bytes(pid, job.folder / "experts") for pid in pids]
            shared = sum(pss for pss, _ in held)
            records.append(
                {
                    "benchmark": "sharing",
                    "trials": count,
                    "store_bytes": store_bytes,
                    "proportional_set_bytes": shared,
                    "copies": shared / store_bytes,
                    "private_bytes_a_trial": sum(uss for _, uss in held) / count,
                }
            )
    table = Table(title=f"Experts in memory: a store of {store_bytes / 2**20:,.0f} MiB", title_justify="left")
    for heading in ("trials", "held of the store, all together, MiB", "copies", "a trial's own memory, MiB"):
        table.add_column(heading, justify="right")
    for record in records:
        table.add_row(
            str(record["trials"]),
            f"{record['proportional_set_bytes'] / 2**20:,.1f}",
            f"{record['copies']:.3f}",
            f"{record['private_bytes_a_trial'] / 2**20:,.0f}",
        )
    console.print(table)
    setting = {**around, "experts": experts, "epochs": epochs, "width": width}
    console.print(", ".join(f"{key} {value}" for key, value in setting.items()), soft_wrap=True)
    write_records(json_path, records, setting)


if __name__ == "__main__":
    main()
