"""What a distilled set must beat: every method's sets, measured with hard and soft labels. METHOD §6.

python -m orchestrator.baselines --dataset digits --ipc 1 5 10 --methods all
"""

from pathlib import Path

import click

from orchestrator.cli import SeveralValues, default_name, expert_options, json_option, load_space, one_line_errors
from orchestrator.errors import UserError
from orchestrator.settings import SweepSettings, Workdir
from orchestrator.sweep import run
from search_spaces import Space, load, names
from trainables.files import write_json

__all__ = ["main"]


@click.command(cls=SeveralValues, help="Compare coresets, RDED, CA2D, SRe2L, DM, DC and M-DATM, by label regime.")
@click.option("--dataset", metavar="NAME", help="A dataset with a registered comparison, whose settings are taken.")
@click.option("--space", "space_name", metavar="NAME", help="A comparison, registered or a Python file, in its place.")
@click.option(
    "--ipc", "ipcs", type=click.IntRange(min=1), multiple=True, metavar="N …", help="Images per class; several: 1 5 10."
)
@click.option("--methods", metavar="NAMES", help="Names joined by commas, or all; default: the space's.")
@click.option("--regimes", metavar="NAMES", help="hard,soft,soft_kd, or all; default: the space's.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="K", help="Sets of each method; default: the space's.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--name", metavar="NAME", help="Name; default: space, date and time. One that was cut off goes on.")
@click.option("--tracking-uri", metavar="URI", help="MLflow server; default: SQLite in the workdir.")
@json_option("records")
@expert_options
@one_line_errors
def main(
    dataset: str | None,
    space_name: str | None,
    ipcs: tuple[int, ...],
    methods: str | None,
    regimes: str | None,
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
    gpus_per_trial: float | str | None,
    overrides: tuple[str, ...],
    retrain_corrupt: bool,
    quiet: bool,
) -> None:
    """Read the command line and run."""
    if dataset is not None and space_name is not None:
        raise UserError(f"give --dataset {dataset} or --space {space_name}, not both: a space has its dataset")
    space = load_space(
        space_name or _comparison_of(dataset), overrides, expert_count=experts, methods=methods, regimes=regimes,
        repeats=seeds, ipcs=",".join(map(str, sorted(set(ipcs)))) or None,
    )  # fmt: skip
    if not space.ipcs:
        raise UserError(f"{space.name} is no comparison: its ipcs are none; give --ipc, or another --space")
    settings = SweepSettings(
        space=space,
        name=name or default_name(space),
        seed=seed,
        workdir=Workdir.at(workdir),
        address=address,
        concurrent=concurrent,
        gpus_per_trial=gpus_per_trial,
        tracking_uri=tracking_uri,
        data=data,
        retrain_corrupt=retrain_corrupt,
        quiet=quiet,
    )
    run(settings)
    if json_path is not None:
        result = settings.stored_result()
        assert result is not None, "run() has written it"
        write_json(json_path, result["records"])


def _comparison_of(dataset: str | None) -> str:
    """Return the registered comparison of a dataset."""
    compared: dict[str, Space] = {space.dataset: space for space in map(load, names()) if space.ipcs}
    if dataset not in compared:
        known = ", ".join(compared)
        raise UserError(
            f"a comparison needs --dataset ({known}) or --space, a file with ipcs set, not {dataset or 'neither'}"
        )
    return compared[dataset].name


if __name__ == "__main__":
    main()
