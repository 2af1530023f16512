"""The command that compares methods: the sets of every method are measured with hard and soft labels.

Source: docs/method.md, "Label regimes".

python -m orchestrator.baselines --dataset digits --ipc 1,5,10 --methods all
"""

from pathlib import Path

import click

from orchestrator.errors import UserError
from orchestrator.results.result_json import stored_result
from orchestrator.stages.launch import run
from orchestrator.state.settings import SweepSettings
from orchestrator.state.space import default_name, load_space
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_datasets
from orchestrator.terminal.options import expert_options, json_option, one_line_errors
from orchestrator.terminal.process import OWN_PROCESS
from orchestrator.terminal.values import NAMES, ListCommand, ValueList
from search_spaces import Comparison, load, names
from search_spaces.completion import complete_spaces
from trainables.storage.atomic import write_json

__all__ = ["main"]


@click.command(cls=ListCommand, help="Compare coresets, RDED, CA2D, SRe2L, DM, DC and M-DATM, by label regime.")
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=complete_datasets,
    help="A dataset with a registered comparison, whose settings are used.",
)
@click.option(
    "--space",
    "space_name",
    metavar="NAME",
    shell_complete=complete_spaces,
    help="A comparison, registered or a Python file, in place of --dataset.",
)
@click.option(
    "--ipc",
    "ipcs",
    type=ValueList(click.IntRange(min=1)),
    metavar="N,…",
    help="Images per class, joined by commas; default: the space's.",
)
@click.option(
    "--methods",
    type=NAMES,
    metavar="NAMES",
    help="Names joined by commas, or all; default: the space's.",
)
@click.option("--regimes", type=NAMES, metavar="NAMES", help="hard,soft,soft_kd, or all; default: the space's.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="K", help="Sets of each method; default: the space's.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--name", metavar="NAME", help="Name; default: space, date and time. Resumes an interrupted one.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server; default: SQLite in the workdir.")
@json_option("records")
@expert_options
@one_line_errors
def main(
    dataset: str | None,
    space_name: str | None,
    ipcs: tuple[int, ...] | None,
    methods: tuple[str, ...] | None,
    regimes: tuple[str, ...] | None,
    seeds: int | None,
    seed: int,
    name: str | None,
    tracking_uri: str | None,
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
    """Read the command line and run the comparison."""
    if dataset is not None and space_name is not None:
        raise UserError(f"give --dataset {dataset} or --space {space_name}, not both: a space has its dataset")
    space = load_space(
        space_name or _comparison_of(dataset), overrides, expert_count=experts, methods=methods, regimes=regimes,
        repeats=seeds, ipcs=ipcs and tuple(sorted(set(ipcs))),
    )  # fmt: skip
    if not isinstance(space, Comparison):
        raise UserError(f"{space.name} is not a comparison; give another --space")
    settings = SweepSettings(
        space=space,
        name=default_name(space) if name is None else name,
        seed=seed,
        workdir=Workdir.at(workdir),
        address=address,
        concurrent=concurrent,
        cpus=cpus,
        gpus_per_trial=gpus_per_trial,
        patience_s=patience,
        tracking_uri=tracking_uri,
        data=data,
        retrain_corrupt=retrain_corrupt,
        quiet=quiet,
    )
    run(settings)
    if json_path is not None:
        result = stored_result(settings)
        assert result is not None, "run() has written the result"
        write_json(json_path, result["records"])


def _comparison_of(dataset: str | None) -> str:
    """Return the name of a dataset's registered comparison.

    Raises:
        UserError: No dataset is given, or it has no registered comparison.
    """
    compared = {space.dataset: space for space in map(load, names()) if isinstance(space, Comparison)}
    if dataset not in compared:
        known = ", ".join(compared)
        raise UserError(
            f"a comparison needs --dataset ({known}) or --space, a file with a Comparison, not {dataset or 'neither'}"
        )
    return compared[dataset].name


if __name__ == "__main__":
    main(obj=OWN_PROCESS)
