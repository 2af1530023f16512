"""The command that writes a synthetic set in a form that other tools read.

python -m orchestrator.export --sweep NAME --to folder|parquet|hub|npz|pt
python -m orchestrator.export --synthetic FILE.safetensors --to …
"""

from pathlib import Path

import click

from orchestrator.errors import UserError
from orchestrator.state.settings_file import read_settings
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_forms, complete_sweeps
from orchestrator.terminal.console import make_console
from orchestrator.terminal.options import data_option, one_line_errors, quiet_option, workdir_option
from orchestrator.terminal.values import PATH
from search_spaces.plain_output import Command
from trainables.data.forms import PT, check_form

__all__ = ["main"]


@click.command(
    cls=Command, help="Write a synthetic set as image files, Parquet, a hub's folder, .npz or .pt, for other tools."
)
@workdir_option
@click.option("--sweep", metavar="NAME", shell_complete=complete_sweeps, help="A finished sweep, whose best set it is.")
@click.option("--synthetic", type=PATH, metavar="FILE", help="A .safetensors set, in place of a sweep.")
@click.option(
    "--to",
    "form",
    required=True,
    metavar="FORM",
    shell_complete=complete_forms,
    help="folder (PNG files), parquet, hub, npz or pt.",
)
@click.option("--out", type=PATH, metavar="DIR", help="Folder to create; default: NAME-FORM here.")
@click.option("--float", "as_floats", is_flag=True, help="Keep the normalised floats; default: pictures of 8 bits.")
@click.option(
    "--networks",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Networks that measure the accuracy before and after rounding to 8 bits.",
)
@click.option("--no-evaluate", is_flag=True, help="Do not measure what rounding does to the accuracy.")
@data_option
@quiet_option
@one_line_errors
def main(
    workdir: str,
    sweep: str | None,
    synthetic: Path | None,
    form: str,
    out: Path | None,
    as_floats: bool,
    networks: int,
    no_evaluate: bool,
    data: Path | None,
    quiet: bool,
) -> None:
    """Write the set and print what rounding does to its accuracy."""
    check_form(form, as_floats=as_floats)
    if (sweep is None) == (synthetic is None):
        raise UserError("an export takes one set: give --sweep NAME, or --synthetic FILE.safetensors")
    if synthetic is not None and not synthetic.is_file():
        raise UserError(f"--synthetic {synthetic} is not a file")
    place = Workdir.at(workdir)
    settings = None if sweep is None else read_settings(place, sweep, **({} if data is None else {"data": data}))

    from orchestrator.stages.export import Request, check_target, export_file, export_sweep

    request = Request(
        form=form,
        target=out or Path(f"{sweep if synthetic is None else synthetic.stem}-{form}"),
        as_floats=as_floats or form == PT,  # the challenge's tensor is one of floats
        networks=0 if no_evaluate else networks,
    )
    check_target(request.target)
    console = make_console(quiet=quiet)
    if settings is not None:
        export_sweep(settings, request, console)
    elif synthetic is not None:
        export_file(synthetic, request, console, data=data, datasets=place.datasets)


if __name__ == "__main__":
    main()
