"""The command that measures a synthetic set on the test split, under the challenge's protocol.

python -m orchestrator.evaluate --synthetic runs/sweeps/NAME/synthetic.safetensors --dataset digits
"""

from pathlib import Path

import click

from orchestrator.errors import UserError
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_datasets
from orchestrator.terminal.console import make_console
from orchestrator.terminal.options import data_option, json_option, one_line_errors, quiet_option, workdir_option
from orchestrator.terminal.values import PATH
from search_spaces.plain_output import Command
from trainables.storage.atomic import write_json

__all__ = ["main"]


@click.command(cls=Command, help="Train fresh networks on a synthetic set and test them on real images.")
@click.option("--synthetic", required=True, type=PATH, metavar="FILE", help=".safetensors or .pt")
@click.option("--dataset", required=True, metavar="NAME", shell_complete=complete_datasets)
@click.option("--protocol", type=click.Choice(["challenge"]), default="challenge", show_default=True)
@click.option("--networks", type=click.IntRange(min=1), default=3, show_default=True, help="Fresh networks.")
@click.option("--depth", type=click.IntRange(min=1), help="Depth of the ConvNet; default: the set's, else 3.")
@click.option("--width", type=click.IntRange(min=1), help="Width of the ConvNet; default: the set's, else 128.")
@click.option("--classes", type=click.IntRange(min=2), help="Number of first classes that a .pt holds; default: all.")
@click.option("--unchecked", is_flag=True, help="Do not check normalisation and class order of a .pt from its values.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@json_option("figures")
@data_option
@workdir_option
@quiet_option
@one_line_errors
def main(
    synthetic: Path,
    dataset: str,
    protocol: str,
    networks: int,
    depth: int | None,
    width: int | None,
    classes: int | None,
    unchecked: bool,
    seed: int,
    json_path: Path | None,
    data: Path | None,
    workdir: str,
    quiet: bool,
) -> None:
    """Evaluate a set from a sweep or from any other source."""
    if not synthetic.is_file():
        raise UserError(f"--synthetic {synthetic} is not a file")
    place = Workdir(Workdir.at(workdir).root)  # only the local folder of one at a URI: no node needs the dataset
    place.check_writable()

    from orchestrator.stages.evaluation import evaluate

    figures = evaluate(
        synthetic,
        dataset=dataset,
        data=data,
        datasets=place.datasets,
        protocol=protocol,
        networks=networks,
        depth=depth,
        width=width,
        classes=classes,
        unchecked=unchecked,
        seed=seed,
        console=make_console(quiet=quiet),
    )
    if json_path:
        write_json(json_path, figures)


if __name__ == "__main__":
    main()
