"""Does the loss that a method minimises tell how good a set is? The distillation correlation score. METHOD §6, DCS.

python -m orchestrator.dcs --space digits --subsets 20 --ipc 1 5
python -m orchestrator.dcs --space digits --synthetic runs/sweeps/*/synthetic.safetensors
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.address import check_answers
from orchestrator.cli import SeveralValues, expert_options, json_option, load_space, one_line_errors, space_option
from orchestrator.console import make_console
from orchestrator.dcs_report import MeasuredSet, dcs_records, reading, records_table, set_record
from orchestrator.errors import UserError
from orchestrator.evaluate import check_origin
from orchestrator.settings import SweepSettings, Workdir
from trainables.files import write_json

if TYPE_CHECKING:  # for `--help`, which loads neither torch nor ray
    from rich.console import Console

    from orchestrator.cluster import Resources
    from orchestrator.inputs import Inputs
    from trainables.dcs import MeasureWork, SetMeasures
    from trainables.synthetic import SyntheticSet

__all__ = ["main"]

FORMAT_VERSION = 1


@click.command(cls=SeveralValues, help="Measure whether distillation losses tell how good sets are, at equal size.")
@space_option(required=True)
@click.option(
    "--synthetic", "files", type=click.Path(path_type=Path), multiple=True, metavar="FILE …",
    help="Stored sets of the space's dataset, .safetensors.",
)  # fmt: skip
@click.option("--subsets", type=click.IntRange(min=1), metavar="M", help="Random real subsets of each --ipc.")
@click.option(
    "--ipc", "ipcs", type=click.IntRange(min=1), multiple=True, metavar="N …",
    help="Images per class of the subsets; several: 1 5. Default: trial 0's.",
)  # fmt: skip
@click.option(
    "--losses", metavar="NAMES", default="all", show_default=True, help="trajectory,distribution,gradient, or all."
)
@click.option("--networks", type=click.IntRange(min=1), default=3, show_default=True, help="Networks on each set.")
@click.option(
    "--split", type=click.Choice(["test", "validation"]), default="test", show_default=True, help="What tests them."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@json_option("figures")
@expert_options
@one_line_errors
def main(
    space_name: str,
    files: tuple[Path, ...],
    subsets: int | None,
    ipcs: tuple[int, ...],
    losses: str,
    networks: int,
    split: str,
    seed: int,
    json_path: Path | None,
    experts: int | None,
    workdir: str,
    data: Path | None,
    address: str,
    concurrent: int | None,
    gpus_per_trial: float | str | None,
    overrides: tuple[str, ...],
    retrain_corrupt: bool,
    quiet: bool,
) -> None:
    """Measure a collection of sets."""
    space = load_space(space_name, overrides, expert_count=experts)
    settings = SweepSettings(
        space=space, name="dcs", seed=seed, workdir=Workdir.at(workdir), address=address, concurrent=concurrent,
        gpus_per_trial=gpus_per_trial, data=data, retrain_corrupt=retrain_corrupt, quiet=quiet,
    )  # fmt: skip
    _check_options(files, subsets, ipcs, address)
    settings.workdir.check_writable()
    check_answers(address)
    settings.check_dataset()

    from orchestrator.cluster import connected
    from orchestrator.inputs import prepare_inputs
    from trainables.dcs import LOSSES, loss_config

    chosen = _chosen(losses, LOSSES)
    if "trajectory" not in chosen and (experts or retrain_corrupt):
        raise UserError("--experts and --retrain-corrupt are for the trajectory loss; add it to --losses, or drop them")
    console = make_console(quiet=quiet)
    trial_0 = space.resolve(space.first())
    wanted = sorted(set(ipcs)) or [trial_0["ipc"]]
    stored = _read_stored(files, settings, split)
    for ipc in {*(each.ipc for each in stored.values()), *(wanted if subsets else ())}:
        for loss in chosen:
            loss_config(trial_0, loss, ipc)  # refused now, and not by a worker after the experts have been trained
    inputs = prepare_inputs(settings, console)
    sources = _collection(stored, subsets or 0, wanted, inputs, console)
    with connected(address, gpus_per_trial, concurrent) as resources:
        work = _work(inputs, resources, trial_0, chosen, networks, split)
        if "trajectory" in chosen:
            _train_experts(inputs, resources, console)
        measured = _measure(work, list(sources.values()), resources, resources.workers(concurrent), console)
    sets = [
        MeasuredSet(name=name, ipc=ipc, **found._asdict()) for (name, ipc), found in zip(sources, measured, strict=True)
    ]
    records = dcs_records(sets, chosen)
    result = make_console()  # --quiet leaves out all but this
    result.print(records_table(records, split))
    for loss in chosen:
        result.print(reading(loss, records, split), markup=False)
    if json_path is not None:
        facts = {"version": FORMAT_VERSION, "space": space.name, "seed": seed, "split": split, "networks": networks}
        content = {**facts, "records": records, "sets": [set_record(each) for each in sets]}
        write_json(json_path, content)


def _check_options(files: Sequence[Path], subsets: int | None, ipcs: Sequence[int], address: str) -> None:
    """Refuse what cannot be measured, or would have no effect, before anything is loaded."""
    if not files and subsets is None:
        raise UserError("a collection needs sets, and there are none; give --synthetic FILE … or --subsets M, or both")
    if ipcs and subsets is None:
        raise UserError("--ipc is the size of random real subsets, and --subsets is not given; add it, or drop --ipc")
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"--synthetic {missing[0]} is not a file")
    if twice := [path for path in files if files.count(path) > 1]:
        raise UserError(f"--synthetic {twice[0]} is given twice, and a set counts once; drop one")
    if address.startswith("ray://"):
        raise UserError(f"--address {address} is a client's, which reads no workdir there; run on a node, with auto")


def _chosen(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the losses that a word stands for, in the order in which they are known."""
    given = known if text == "all" else tuple(text.split(","))
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"--losses are names of {', '.join(known)} joined by commas, or all, not {unknown[0]!r}")
    return tuple(name for name in known if name in given)


def _read_stored(files: Sequence[Path], settings: SweepSettings, split: str) -> dict[Path, "SyntheticSet"]:
    """Read sets that say what they are, and refuse those that are not of the space's images."""
    from trainables.synthetic import read_synthetic

    stored = {path: read_synthetic(path) for path in files}
    # A set that has seen other training images may have seen those that validate here.
    alike = ("zca", "validation_share") if split == "validation" else ("zca",)
    for path, each in stored.items():
        if each.dataset != settings.space.dataset:
            raise UserError(f"{path} was made from {each.dataset}, not from {settings.space.dataset}; change --space")
        for key in alike:
            theirs, ours = each.config.get(key, settings.fixed[key]), settings.fixed[key]
            if theirs != ours:
                raise UserError(f"{path} was made with {key} = {theirs}, the space has {ours}; --set {key}={theirs}")
    return stored


def _collection(
    stored: "Mapping[Path, SyntheticSet]", subsets: int, ipcs: Sequence[int], inputs: "Inputs", console: "Console"
) -> dict[tuple[str, int], Any]:
    """Return what `measure_set` takes of each set, by name and images per class; says what of a stored set is not read.

    Raises:
        UserError: A stored set has other classes or normalisation.
        ConfigError: A class has too few images for the subsets.
    """
    from trainables.dcs import RealSubset
    from trainables.initialization import check_ipc
    from trainables.seeding import seed_of

    dataset = inputs.dataset
    sources: dict[tuple[str, int], Any] = {}
    for path, each in stored.items():
        for note in check_origin(path, each, dataset):
            console.print(f"Note: {path}: {note}", markup=False)
        sources[str(path), each.ipc] = each.images.numpy()
    if subsets:
        check_ipc(dataset, max(ipcs))
    for ipc, number in product(ipcs, range(subsets)):
        seed = seed_of(inputs.settings.seed, "dcs", "subset", ipc, number)
        sources[f"random real, {number}", ipc] = RealSubset(ipc, seed)
    return sources


def _work(
    inputs: "Inputs",
    resources: "Resources",
    trial_0: Mapping[str, Any],
    losses: tuple[str, ...],
    networks: int,
    split: str,
) -> "MeasureWork":
    from trainables.dcs import MeasureWork

    settings = inputs.settings
    return MeasureWork(
        dataset=inputs.file,
        store=settings.workdir.experts,
        identity=inputs.store.identity,
        experts=settings.fixed["expert_count"],
        epochs=settings.space.horizon_epochs,
        network=inputs.network,
        augmentation=inputs.augmentation,
        settings=trial_0,
        losses=losses,
        split=split,
        protocol=settings.final_protocol,
        networks=networks,
        seed=settings.seed,
        device=resources.device,
        device_share=resources.gpus_per_trial or 1 / resources.workers(settings.concurrent),
    )


def _train_experts(inputs: "Inputs", resources: "Resources", console: "Console") -> None:
    from orchestrator.experts import ensure_experts

    summary = ensure_experts(inputs, resources, console)
    console.print(summary.line(inputs.experts_place))


def _measure(
    work: "MeasureWork", sources: Sequence[Any], resources: "Resources", limit: int, console: "Console"
) -> "list[SetMeasures]":
    """Have workers measure sets, at most so many at once, and return what they found, in order.

    Raises:
        InputError: What a worker refused.
    """
    import ray

    from orchestrator.cluster import result_of
    from orchestrator.live import progress_bar
    from trainables.dcs import measure_set

    run = ray.remote(measure_set).options(**resources.actor_options)
    found: dict[int, SetMeasures] = {}
    running: dict[Any, int] = {}
    with resources.requested(min(limit, len(sources))), progress_bar(console, "Sets", len(sources)) as show:
        for number, source in enumerate(sources):
            running[run.remote(work, source)] = number
            while len(running) >= limit or (running and number == len(sources) - 1):
                (done,), _ = ray.wait(list(running))
                found[running.pop(done)] = result_of(done)
                show(len(found))
    return [found[number] for number in range(len(sources))]


if __name__ == "__main__":
    main()
