"""The command that measures the distillation correlation score: how the loss of a method correlates with set quality.

Source: docs/method.md, "DCS".

python -m orchestrator.dcs --space digits --subsets 20 --ipc 1,5
python -m orchestrator.dcs --space digits --synthetic one.safetensors,other.safetensors
"""

from collections.abc import Sequence
from pathlib import Path

import click

from orchestrator.cluster.probe import check_answers
from orchestrator.errors import UserError
from orchestrator.reporting.correlation import reading, records_table
from orchestrator.results.correlation import dcs_records, set_record
from orchestrator.stages.launch import outlive_driver
from orchestrator.state.settings import SweepSettings
from orchestrator.state.space import load_space
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.console import make_console
from orchestrator.terminal.options import expert_options, json_option, one_line_errors, space_option
from orchestrator.terminal.process import OWN_PROCESS
from orchestrator.terminal.values import NAMES, PATH, ListCommand, ValueList
from trainables.storage.atomic import write_json

__all__ = ["main"]

FORMAT_VERSION = 1


@click.command(
    cls=ListCommand, help="Measure how distillation losses correlate with the quality of sets of equal size."
)
@space_option(required=True)
@click.option(
    "--synthetic", "files", type=ValueList(PATH), default=(), metavar="FILE,…",
    help="Stored sets of the space's dataset, .safetensors, joined by commas.",
)  # fmt: skip
@click.option("--subsets", type=click.IntRange(min=1), metavar="M", help="Number of random real subsets of each --ipc.")
@click.option(
    "--ipc", "ipcs", type=ValueList(click.IntRange(min=1)), default=(), metavar="N,…",
    help="Images per class of the subsets, joined by commas; default: trial 0's.",
)  # fmt: skip
@click.option(
    "--losses",
    type=NAMES,
    metavar="NAMES",
    default="all",
    show_default=True,
    help="trajectory,distribution,gradient, or all.",
)
@click.option(
    "--networks", type=click.IntRange(min=1), default=3, show_default=True, help="Networks trained on each set."
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Split that tests them.",
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
    losses: tuple[str, ...],
    networks: int,
    split: str,
    seed: int,
    json_path: Path | None,
    experts: int | None,
    workdir: str,
    data: Path | None,
    address: str,
    concurrent: int | None,
    cpus: int | None,
    gpus_per_trial: float | str | None,
    patience: float,
    overrides: dict[str, str],
    retrain_corrupt: bool,
    quiet: bool,
) -> None:
    """Measure the losses and the quality of a collection of sets."""
    space = load_space(space_name, overrides, expert_count=experts)
    settings = SweepSettings(
        space=space, name="dcs", seed=seed, workdir=Workdir.at(workdir), address=address, concurrent=concurrent,
        cpus=cpus, gpus_per_trial=gpus_per_trial, patience_s=patience, data=data, retrain_corrupt=retrain_corrupt,
        quiet=quiet,
    )  # fmt: skip
    _check_options(files, subsets, ipcs, address)
    settings.workdir.check_writable()
    check_answers(address)
    settings.check_dataset()
    outlive_driver("run the same command again")

    from orchestrator.stages.correlation import measure_collection
    from trainables.workers.correlation import LOSSES

    chosen = _chosen(losses, LOSSES)
    if "trajectory" not in chosen and (experts or retrain_corrupt):
        raise UserError("--experts and --retrain-corrupt are for the trajectory loss; add it to --losses, or drop them")
    sets = measure_collection(
        settings, files, subsets=subsets or 0, ipcs=ipcs, losses=chosen, networks=networks, split=split
    )
    records = dcs_records(sets, chosen)
    result = make_console()  # --quiet leaves out all but this
    result.print(records_table(records, split))
    for loss in chosen:
        result.print(reading(loss, records, split))
    if json_path is not None:
        facts = {"version": FORMAT_VERSION, "space": space.name, "seed": seed, "split": split, "networks": networks}
        content = {**facts, "records": records, "sets": [set_record(measured) for measured in sets]}
        write_json(json_path, content)


def _check_options(files: Sequence[Path], subsets: int | None, ipcs: Sequence[int], address: str) -> None:
    """Refuse options that cannot be measured or have no effect, before any work.

    Raises:
        UserError: The set files, the subsets or the address are invalid.
    """
    if not files and subsets is None:
        raise UserError("no sets to measure; give --synthetic FILE,… or --subsets M, or both")
    if ipcs and subsets is None:
        raise UserError(
            "--ipc is the size of random real subsets, and --subsets is not given; add --subsets, or drop --ipc"
        )
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"--synthetic {missing[0]} is not a file")
    if twice := [path for path in files if files.count(path) > 1]:
        raise UserError(f"--synthetic {twice[0]} is given twice, and a set counts once; drop one")
    if address.startswith("ray://"):
        raise UserError(f"--address {address} is a client's, which reads no workdir there; run on a node, with auto")


def _chosen(names: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the chosen losses, in the order of the known ones.

    Raises:
        UserError: A name is unknown.
    """
    wanted = known if names == ("all",) else names
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"--losses are names of {', '.join(known)} joined by commas, or all, not {unknown[0]!r}")
    return tuple(name for name in known if name in wanted)


if __name__ == "__main__":
    main(obj=OWN_PROCESS)
