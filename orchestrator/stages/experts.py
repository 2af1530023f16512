"""The expert stage: trains the experts that the store lacks."""

import errno
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.errors import ClusterError, UserError
from orchestrator.results.experts import ExpertSummary
from orchestrator.stages.expert_actors import train_experts
from orchestrator.stages.inputs import Inputs, prepare_inputs
from orchestrator.stages.resources import resources_of
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.console import make_console
from orchestrator.terminal.steps import Steps
from trainables.storage.atomic import is_disk_full

__all__ = ["check_experts", "ensure_experts", "run_experts"]


def check_experts(inputs: Inputs) -> set[int]:
    """Return the experts that must be retrained because their files are corrupt.

    Raises:
        UserError: A file is corrupt and --retrain-corrupt is not set; names the first file, its fault and the remedy.
    """
    settings = inputs.settings
    corrupt = inputs.store.corrupt(range(settings.fixed["expert_count"]), every_byte=settings.retrain_corrupt)
    if corrupt and not settings.retrain_corrupt:
        expert, fault = next(iter(corrupt.items()))
        others = f" (and {len(corrupt) - 1} more)" if len(corrupt) > 1 else ""
        raise UserError(
            f"the expert file {inputs.store.place(expert)} is corrupt: {fault}{others}; "
            "run the same command with --retrain-corrupt to train it again"
        )
    return set(corrupt)


def ensure_experts(
    inputs: Inputs,
    resources: Resources,
    console: Console,
    patience: Patience,
    follow: Callable[[Steps], None] = lambda steps: None,
) -> ExpertSummary:
    """Train the experts that the space can use and the store lacks, and return a summary.

    Args:
        inputs: The inputs.
        resources: Resources of one actor.
        console: Shows the progress.
        patience: Decides when the experts of a lost actor continue.
        follow: Called with the epochs as steps when the training begins.

    Raises:
        UserError: An expert diverged, or a file is corrupt and --retrain-corrupt is not set.
        ClusterError: An actor failed, actors were lost for longer than the patience, or the disk is full; trained
            experts are kept.
    """
    began = time.monotonic()
    settings, store = inputs.settings, inputs.store
    count, epochs = settings.fixed["expert_count"], settings.space.horizon_epochs
    store.folder.mkdir(parents=True, exist_ok=True)
    with _full_disk_explained(inputs), _exclusive_store(store.lock_path, console):
        store.recover(range(count))
        if corrupt := check_experts(inputs):
            store.forget(corrupt)
        missing = store.short(range(count), epochs)
        if missing:
            console.print(f"Experts: {count - len(missing)} of {count} are stored in {inputs.experts_place}")
            _print_reused_epochs(inputs, missing, console)
            with resources.requested(resources.workers(len(missing))):
                train_experts(inputs, resources, missing, console, patience, follow)
            if store.short(missing, epochs):  # another machine has replaced the manifest at the URI
                store.recover(missing)
            if lost := store.short(missing, epochs):
                raise ClusterError(
                    f"experts {', '.join(map(str, lost))} were trained and are missing in {store.shared.place('')}: "
                    "another machine may train them too; run the same command again"
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


def _print_reused_epochs(inputs: Inputs, missing: list[int], console: Console) -> None:
    """Print how many epochs of the missing experts the store has already."""
    listed, total = inputs.store.read(), len(missing) * inputs.settings.space.horizon_epochs
    if stored := sum(listed[expert].rows - 1 for expert in missing if expert in listed):
        console.print(f"Resuming from {stored} of {total} epochs on disk")


@contextmanager
def _exclusive_store(lock_path: Path, console: Console) -> Iterator[None]:
    """Hold a store's lock, waiting for it if necessary; the operating system releases it when the process ends."""
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
def _full_disk_explained(inputs: Inputs) -> Iterator[None]:
    """Replace the error of a full disk by one that says how much space to free.

    Raises:
        ClusterError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ClusterError(_space_to_free(inputs, error)) from error
        raise


def _space_to_free(inputs: Inputs, error: OSError) -> str:
    """Return the message that says how many MB to free, for the file of the error and for all missing experts."""
    store, count, epochs = inputs.store, inputs.settings.fixed["expert_count"], inputs.settings.space.horizon_epochs
    # The rest of a quota cannot be queried portably.
    free = shutil.disk_usage(store.folder).free if error.errno == errno.ENOSPC else 0
    experts = {store.path(expert).name: f"expert {expert}" for expert in range(count)}
    failed = next((expert for name, expert in experts.items() if name in Path(str(error.filename)).name), None)
    # A file is written beside the one that it replaces.
    now, at_most = (
        max(1, math.ceil((files * store.most_bytes(epochs) - free) / 1e6))
        for files in (1 if failed else 0, len(store.short(range(count), epochs)))
    )
    for_all = f" (at most {at_most} MB for all missing experts)" if at_most > now else ""
    return (
        f"the disk of {store.folder} is full: {now} MB more are needed there for {failed or 'the manifest'}{for_all}; "
        "free them and run the same command again"
    )


def run_experts(settings: SweepSettings) -> None:
    """Run only the expert stage, without a sweep."""
    console = make_console(quiet=settings.quiet)
    settings.check_dataset()
    with resources_of(settings, console) as resources:
        inputs = prepare_inputs(settings, console)
        patience = Patience(settings.patience_s, console, "run the same command again")
        summary = ensure_experts(inputs, resources, console, patience)
    make_console().print(summary.line(inputs.experts_place), soft_wrap=True)  # printed also with --quiet
