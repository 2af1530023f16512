"""The command that says what is in a folder of pictures, before any sweep.

python -m orchestrator.inspect --data DIR
python -m orchestrator.inspect --data DIR --write-space my_space.py
"""

from pathlib import Path

import click

from orchestrator.errors import UserError
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_datasets
from orchestrator.terminal.console import make_console
from orchestrator.terminal.options import (
    data_option,
    json_option,
    one_line_errors,
    overrides_option,
    quiet_option,
    workdir_option,
)
from orchestrator.terminal.values import PATH
from search_spaces.plain_output import Command
from search_spaces.space_file import name_of_file
from trainables.data.catalog import OWN
from trainables.storage.atomic import write_json, write_text

__all__ = ["main"]


@click.command(cls=Command, help="Say what is in a folder of pictures, and write a space for it, before any sweep.")
@data_option
@click.option(
    "--dataset", metavar="NAME", default=OWN, shell_complete=complete_datasets,
    help="A dataset that is known by name; default: pictures of your own, in any form.",
)  # fmt: skip
@overrides_option("Set how the files are read, as in a sweep, such as image_size=64; may be repeated.")
@click.option("--out", type=PATH, metavar="DIR", help="Folder of the contact sheets; default: in the workdir.")
@json_option("findings")
@click.option(
    "--write-space", "space_file", type=PATH, metavar="FILE.py",
    help="Write a space for these pictures, which `sweep --space FILE.py` runs; --set ipc=10: ten images per class.",
)  # fmt: skip
@workdir_option
@quiet_option
@one_line_errors
def main(
    data: Path | None,
    dataset: str,
    overrides: dict[str, str],
    out: Path | None,
    json_path: Path | None,
    space_file: Path | None,
    workdir: str,
    quiet: bool,
) -> None:
    """Inspect a dataset."""
    if space_file is not None:
        _check_new(space_file)
    place = Workdir(Workdir.at(workdir).root)  # only the local folder of one at a URI: no node needs the dataset
    place.check_writable()

    from orchestrator.reporting.inspection import print_inspection, write_contact_sheets
    from orchestrator.results.inspection import inspection_json
    from orchestrator.stages.inspection import inspect_dataset, read_settings, suggest_space, sweep_commands

    settings = read_settings(overrides)
    found = inspect_dataset(dataset, data, settings, place.datasets, make_console(quiet=quiet))
    space = None if space_file is None else suggest_space(found, settings, data, space_file)
    sheets = out or place.root / "inspect" / f"{found.dataset.name}-{found.dataset.digest[:8]}"
    write_contact_sheets(sheets, found)
    if json_path:
        write_json(json_path, inspection_json(found))
    if space is not None and space_file is not None:
        write_text(space_file, space)
    print_inspection(make_console(), found, sheets, sweep_commands(found, data, space_file))


def _check_new(file: Path) -> None:
    """Refuse, before any work, a space's file that exists or cannot be written.

    Raises:
        UserError: The file exists, its folder does not, or its name does not end in .py.
        SpaceError: Its name is no name of a space.
    """
    if file.suffix != ".py":
        raise UserError(f"--write-space: a space is a Python file, not {file}; end its name in .py")
    name_of_file(file.stem)
    if file.exists() or file.is_symlink():
        raise UserError(f"--write-space: {file} exists; name a new file, or remove it")
    if not file.absolute().parent.is_dir():
        raise UserError(f"--write-space: the folder of {file} does not exist; create {file.parent} first")


if __name__ == "__main__":
    main()
