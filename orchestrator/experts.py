"""The expert stage: reuse what exists, train what is missing on Ray actors.

python -m orchestrator.experts --space ti_ranges       only the expert store
"""

import errno
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.address import check_answers
from orchestrator.cli import expert_options, load_space, one_line_errors, preset_option, space_option
from orchestrator.console import make_console
from orchestrator.errors import ClusterError, UserError
from orchestrator.settings import SweepSettings, Workdir

if TYPE_CHECKING:  # for `--help`, which loads neither torch nor ray
    from rich.console import Console

    from orchestrator.cluster import Resources
    from orchestrator.inputs import Inputs

__all__ = ["ExpertSummary", "check_experts", "ensure_experts", "run_experts"]


@dataclass(frozen=True, kw_only=True)
class ExpertSummary:
    """What the expert stage did; DESIGN, Contracts: `experts` of result.json."""

    count: int
    trained: int
    """Experts trained or extended now."""
    reused: int
    """Experts that were there."""
    epochs: int
    """Horizon."""
    bytes: int
    seconds: float
    losses: list[float]
    """Mean training loss over the experts, by epoch."""

    def facts(self) -> dict[str, int]:
        """Return the part of result.json."""
        return {key: getattr(self, key) for key in ("count", "trained", "reused", "epochs", "bytes")}

    def line(self, place: str) -> str:
        """Say it in one line."""
        return (
            f"Experts: {self.trained} trained, {self.reused} reused, {self.epochs} epochs each, "
            f"{self.bytes / 2**20:,.1f} MiB in {place} ({timedelta(seconds=round(self.seconds))})"
        )


def check_experts(inputs: "Inputs") -> set[int]:
    """Return the experts that are to be trained again because their files are corrupt.

    Raises:
        UserError: There are some, and nobody asked for that: names the first, what is wrong with it, and the remedy.
    """
    settings = inputs.settings
    corrupt = inputs.store.corrupt(range(settings.fixed["expert_count"]), every_byte=settings.retrain_corrupt)
    if corrupt and not settings.retrain_corrupt:
        expert, fault = next(iter(corrupt.items()))
        more = f" (and {len(corrupt) - 1} more)" if len(corrupt) > 1 else ""
        raise UserError(
            f"the expert file {inputs.store.place(expert)} is corrupt: {fault}{more}; "
            "run the same command with --retrain-corrupt to train it again"
        )
    return set(corrupt)


def ensure_experts(inputs: "Inputs", resources: "Resources", console: "Console") -> ExpertSummary:
    """Make sure that every expert the space can ask for is in the store.

    Raises:
        UserError: An expert diverged, or a file is corrupt and not to be trained again.
        ClusterError: An actor failed, actors were lost again and again, or the disk is full; what is trained stays.
    """
    from orchestrator.expert_actors import train_experts

    began = time.monotonic()
    settings, store = inputs.settings, inputs.store
    count, epochs = settings.fixed["expert_count"], settings.space.horizon_epochs
    store.folder.mkdir(parents=True, exist_ok=True)
    with _full_disk_explained(inputs), _alone(store.lock_path, console):
        store.recover(range(count))
        if corrupt := check_experts(inputs):
            store.forget(corrupt)
        missing = store.short(range(count), epochs)
        if missing:
            _say_what_is_there(inputs, missing, console)
            with resources.requested(resources.workers(len(missing))):
                train_experts(inputs, resources, missing, console)
            if store.short(missing, epochs):  # another machine has written the manifest of a URI at the same time
                store.recover(missing)
            if lost := store.short(missing, epochs):
                raise ClusterError(
                    f"experts {', '.join(map(str, lost))} were trained and are not in {store.shared.place('')}: does "
                    "another machine train them too? run the same command again"
                )
    listed = store.read()
    losses = [[listed[expert].losses[epoch] for expert in range(count)] for epoch in range(epochs)]
    return ExpertSummary(
        count=count,
        trained=len(missing),
        reused=count - len(missing),
        epochs=epochs,
        bytes=sum(listed[expert].bytes for expert in range(count)),
        seconds=time.monotonic() - began,
        losses=[sum(epoch) / count for epoch in losses],
    )


def _say_what_is_there(inputs: "Inputs", missing: list[int], console: "Console") -> None:
    listed, total = inputs.store.read(), len(missing) * inputs.settings.space.horizon_epochs
    if there := sum(listed[expert].rows - 1 for expert in missing if expert in listed):
        console.print(f"Going on from {there} of {total} epochs on disk")


@contextmanager
def _alone(lock_path: Path, console: "Console") -> Iterator[None]:
    """Hold a store's lock; it dies with its holder."""
    from filelock import FileLock, Timeout

    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print("Waiting for another process that trains these experts")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _full_disk_explained(inputs: "Inputs") -> Iterator[None]:
    """Turn the error of a full disk into a line that says what to free.

    Raises:
        ClusterError: The disk is full.
    """
    from trainables.files import is_disk_full

    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ClusterError(_what_to_free(inputs, error)) from error
        raise


def _what_to_free(inputs: "Inputs", error: OSError) -> str:
    store, count, epochs = inputs.store, inputs.settings.fixed["expert_count"], inputs.settings.space.horizon_epochs
    # What is left of a quota is nobody's to ask.
    free = shutil.disk_usage(store.folder).free if error.errno == errno.ENOSPC else 0
    experts = {store.path(expert).name: f"expert {expert}" for expert in range(count)}
    concerned = next((expert for name, expert in experts.items() if name in Path(str(error.filename)).name), None)
    # A file is written beside the one that it replaces.
    now, at_most = (
        max(1, math.ceil((files * store.most_bytes(epochs) - free) / 1e6))
        for files in (1 if concerned else 0, len(store.short(range(count), epochs)))
    )
    more = f" (at most {at_most} MB for all that are missing)" if at_most > now else ""
    return (
        f"the disk of {store.folder} is full: {now} MB more are needed there for {concerned or 'the manifest'}{more}; "
        "free them and run the same command again"
    )


@click.command(help="Train the expert trajectories that a space can ask for, and nothing else.")
@space_option(required=True)
@expert_options
@preset_option
@one_line_errors
def main(
    space_name: str,
    experts: int | None,
    workdir: str,
    data: Path | None,
    address: str,
    concurrent: int | None,
    gpus_per_trial: float | str | None,
    overrides: tuple[str, ...],
    retrain_corrupt: bool,
    quiet: bool,
    preset: str | None,
) -> None:
    """Run the expert stage alone."""
    space = load_space(space_name, overrides, preset, expert_count=experts)
    settings = SweepSettings(
        space=space, name="experts", seed=0, workdir=Workdir.at(workdir), address=address, data=data,
        concurrent=concurrent, gpus_per_trial=gpus_per_trial, retrain_corrupt=retrain_corrupt, quiet=quiet,
        preset=preset,
    )  # fmt: skip
    settings.workdir.check_writable()
    check_answers(address)
    if address.startswith("ray://"):
        from orchestrator.remote import run_on_cluster

        run_on_cluster("orchestrator.experts", "run_experts", settings)
    else:
        run_experts(settings)


def run_experts(settings: SweepSettings) -> None:
    """Run the expert stage of a sweep that is not to follow."""
    from orchestrator.cluster import connected
    from orchestrator.inputs import prepare_inputs

    console = make_console(quiet=settings.quiet)
    settings.check_dataset()
    with connected(settings.address, settings.gpus_per_trial, settings.concurrent) as resources:
        inputs = prepare_inputs(settings, console)
        summary = ensure_experts(inputs, resources, console)
    make_console().print(summary.line(inputs.experts_place))  # also where --quiet is asked for


if __name__ == "__main__":
    main()
