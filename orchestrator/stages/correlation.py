"""The stages of the distillation correlation score: sets, experts, measurements."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.cluster.losses import Patience
from orchestrator.cluster.resources import Resources
from orchestrator.cluster.tasks import Task, run_tasks
from orchestrator.cluster.worker_code import remote_task
from orchestrator.errors import UserError
from orchestrator.results.correlation import MeasuredSet
from orchestrator.stages.evaluation import check_origin
from orchestrator.stages.experts import ensure_experts
from orchestrator.stages.inputs import Inputs, prepare_inputs
from orchestrator.stages.resources import resources_of
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.console import make_console
from orchestrator.terminal.progress_bar import progress_bar
from trainables.data.real_images import check_ipc
from trainables.data.synthetic import SyntheticSet, read_synthetic
from trainables.seeding import seed_of
from trainables.workers.correlation import MeasureWork, RealSubset, SetMeasures, loss_config, measure_set

__all__ = ["measure_collection"]


def measure_collection(
    settings: SweepSettings,
    files: Sequence[Path],
    *,
    subsets: int,
    ipcs: Sequence[int],
    losses: tuple[str, ...],
    networks: int,
    split: str,
) -> list[MeasuredSet]:
    """Measure distillation losses and test losses of stored sets and of random real subsets.

    Args:
        settings: Space, data and cluster, as for a sweep.
        files: Stored sets, .safetensors.
        subsets: Number of random real subsets of each size.
        ipcs: Images per class of the subsets; empty: those of trial 0.
        losses: Names from `trainables.workers.correlation.LOSSES`.
        networks: Networks trained on each set.
        split: The split that tests the networks: test or validation.

    Returns:
        The measured sets: stored ones first, then the subsets by size and number.

    Raises:
        UserError: A stored set was made from other images than the space's, or from images in another form.
        ClusterError: Processes were lost for longer than the patience.
        ConfigError: A loss cannot be computed for a size, or a class has too few images for the subsets.
    """
    space, console = settings.space, make_console(quiet=settings.quiet)
    trial_0 = space.resolve(space.first())
    wanted = sorted(set(ipcs)) or [trial_0["ipc"]]
    stored = _read_stored(files, settings, split)
    for ipc in {*(synthetic.ipc for synthetic in stored.values()), *(wanted if subsets else ())}:
        for loss in losses:
            loss_config(trial_0, loss, ipc)  # checked here, because a worker would refuse it only after the experts
    inputs = prepare_inputs(settings, console)
    sources = _collection(stored, subsets, wanted, inputs, console)
    with resources_of(settings, console) as resources:
        work = _work(inputs, resources, trial_0, losses, networks, split)
        patience = Patience(settings.patience_s, console, "run the same command again")
        if "trajectory" in losses:
            _train_experts(inputs, resources, console, patience)
        measured = _measure(work, sources, resources, settings.concurrent, console, patience)
    return [
        MeasuredSet(name=name, ipc=ipc, **measures._asdict())
        for (name, ipc), measures in zip(sources, measured, strict=True)
    ]


def _read_stored(files: Sequence[Path], settings: SweepSettings, split: str) -> dict[Path, SyntheticSet]:
    """Read stored sets, and refuse those that were not made from the space's images.

    Raises:
        UserError: A set's dataset, whitening or, for the validation split, validation share is not the space's.
    """
    stored = {path: read_synthetic(path) for path in files}
    # With another validation share, the images of the validation split may have been training images of the set.
    required = ("zca", "validation_share") if split == "validation" else ("zca",)
    for path, synthetic in stored.items():
        if synthetic.dataset != settings.space.dataset:
            raise UserError(
                f"{path} was made from {synthetic.dataset}, not from {settings.space.dataset}; change --space"
            )
        for key in required:
            theirs, ours = synthetic.config.get(key, settings.fixed[key]), settings.fixed[key]
            if theirs != ours:
                raise UserError(f"{path} was made with {key} = {theirs}, the space has {ours}; --set {key}={theirs}")
    return stored


def _collection(
    stored: Mapping[Path, SyntheticSet], subsets: int, ipcs: Sequence[int], inputs: Inputs, console: Console
) -> dict[tuple[str, int], Any]:
    """Return the argument of `measure_set` for every set, by name and images per class; prints notes on stored sets.

    Raises:
        UserError: A stored set has other classes or normalisation.
        ConfigError: A class has too few images for the subsets.
    """
    dataset = inputs.dataset
    sources: dict[tuple[str, int], Any] = {}
    for path, synthetic in stored.items():
        for note in check_origin(path, synthetic, dataset):
            console.print(f"Note: {path}: {note}", soft_wrap=True)
        sources[str(path), synthetic.ipc] = synthetic.images.numpy()
    if subsets:
        check_ipc(dataset, max(ipcs))
    for ipc, number in product(ipcs, range(subsets)):
        seed = seed_of(inputs.settings.seed, "dcs", "subset", ipc, number)
        sources[f"random real, {number}", ipc] = RealSubset(ipc, seed)
    return sources


def _work(
    inputs: Inputs,
    resources: Resources,
    trial_0: Mapping[str, Any],
    losses: tuple[str, ...],
    networks: int,
    split: str,
) -> MeasureWork:
    settings = inputs.settings
    return MeasureWork(
        dataset=inputs.file,
        store=inputs.store,
        experts=settings.fixed["expert_count"],
        epochs=settings.space.horizon_epochs,
        settings=trial_0,
        losses=losses,
        split=split,
        protocol=settings.final_protocol,
        networks=networks,
        seed=settings.seed,
        device=resources.device,
        kept=settings.workdir.scores,
        device_share=resources.gpus_per_trial or 1 / resources.workers(settings.concurrent),
    )


def _train_experts(inputs: Inputs, resources: Resources, console: Console, patience: Patience) -> None:
    summary = ensure_experts(inputs, resources, console, patience)
    console.print(summary.line(inputs.experts_place), soft_wrap=True)


def _measure(
    work: MeasureWork,
    sources: Mapping[tuple[str, int], Any],
    resources: Resources,
    limit: int | None,
    console: Console,
    patience: Patience,
) -> list[SetMeasures]:
    """Measure sets on workers, at most `limit` at once, and return the measures in the order of the sets.

    Raises:
        InputError: A worker refused its input.
        ClusterError: Processes were lost for longer than the patience.
    """
    run = remote_task(measure_set, resources)
    tasks = {
        (name, ipc): Task(f"the measurement of {name}, ipc {ipc}", partial(run.remote, work, source))
        for (name, ipc), source in sources.items()
    }
    measures: dict[tuple[str, int], SetMeasures] = {}
    with progress_bar(console, "Sets", len(sources)) as show:

        def record(key: tuple[str, int], result: SetMeasures) -> None:
            measures[key] = result
            show(len(measures))

        run_tasks(tasks, resources, patience, record, limit=limit)
    return [measures[key] for key in sources]
