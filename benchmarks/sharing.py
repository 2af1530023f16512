"""Copies of the experts in a node's memory when several trials run on it.

python -m benchmarks.sharing
python -m benchmarks.sharing --trials 1 --trials 16 --experts 64 --json sharing.json

Every trial is a `DistillationTrial` in its own process, as on Ray's workers, on one expert store of random snapshots.
It runs an iteration and then reads every snapshot once, so that every page of the store is in use. Its memory of the
store's files is its proportional set size: a page that n processes map counts as 1/n in every one.
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
from orchestrator.terminal.values import ListCommand, ValueList


@dataclass(frozen=True, kw_only=True)
class Job:
    """One store and its folder."""

    folder: Path
    experts: int
    epochs: int
    width: int


def make_store(job: Job) -> int:
    """Write experts of random snapshots, and return the bytes of their files."""
    import torch

    work = _work(job)
    from trainables.seeding import generator

    store = work.store
    for expert in range(job.experts):
        draws = generator("benchmark", "sharing", expert)
        snapshots = list(torch.randn(job.epochs + 1, work.network.parameters, generator=draws))
        store.record({expert: store.write(expert, snapshots, [1.0] * job.epochs)})
    return sum(entry.bytes for entry in store.read().values())


def _work(job: Job) -> Any:
    """Return the trials' common work of a sweep on the digits."""
    from search_spaces.vocabulary import DEFAULTS
    from trainables.config.distillation import DistillationConfig
    from trainables.config.experts import ExpertRecipe
    from trainables.config.protocol import Protocol
    from trainables.data.augmentation import Augmentation
    from trainables.data.datasets import load, prepare
    from trainables.distillation.methods import TRAJECTORY
    from trainables.experts.identity import ExpertIdentity
    from trainables.experts.store import TrajectoryStore
    from trainables.networks.convnet import ConvNet
    from trainables.workers.workbench import TrialWork

    path = prepare("digits", cache=job.folder / "datasets", data=None, validation_share=0.1)
    dataset = load(path)
    network = ConvNet(
        channels=dataset.channels, image_size=dataset.image_size, classes=dataset.classes, depth=2, width=job.width
    )
    identity = ExpertIdentity.of(
        dataset,
        network=network,
        recipe=ExpertRecipe.from_settings(DEFAULTS),
        augmentation=Augmentation(families=()),
        seed=0,
    )
    changed = {
        "ipc": 1, "N": 1, "M": 1, "T_minus": 0, "T": 1, "T_plus": 1, "interval": 1, "lr_pixel": 1e-9, "lr_alpha": 0.0,
        "batch_syn": 10, "iterations": 1, "max_matching_loss": 1e9,
    }  # fmt: skip
    settings = DistillationConfig.from_settings({**DEFAULTS, **changed})
    return TrialWork(
        dataset=path, store=TrajectoryStore(job.folder / "experts", identity), methods=[TRAJECTORY],
        checkpoints=str(job.folder / "checkpoints"), settings=vars(settings), experts=job.experts,
        epochs=job.epochs, protocol=Protocol.challenge(1), validation_networks=1, validation_every_iterations=1, seed=0,
        device="cpu", compiled=False, memory_budget_bytes=None, device_share=1.0,
    )  # fmt: skip


_held: list[Any] = []  # keeps this process's trial alive


def run_trial(job: Job, number: int) -> int:
    """Run a trial's first rung, read every snapshot, and return this process's id."""
    import torch

    from trainables.distillation.trajectory import Distiller
    from trainables.workers.trial import DistillationTrial

    class Alone(DistillationTrial):
        """A trial without a cluster."""

        def _setup_logdir(self) -> None:
            self._logdir = str(job.folder)  # type: ignore[assignment]

        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            super().setup(config, _work(job))

    trial = Alone({"trial_number": number})
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
    """Return a process's proportional share of a folder's files, and its private memory, in bytes."""
    process = psutil.Process(pid)
    maps = process.memory_maps(grouped=True)
    return sum(file.pss for file in maps if file.path.startswith(str(folder))), int(process.memory_full_info().uss)


@click.command(cls=ListCommand, help=(__doc__ or "").split("\n\n")[0])
@click.option("--trials", type=ValueList(click.IntRange(1)), default="1,2,4,8", show_default=True, metavar="K,…")
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
            while len(workers) < count:  # earlier processes stay alive
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
    for heading in ("trials", "store in memory of all trials, MiB", "copies", "a trial's own memory, MiB"):
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
