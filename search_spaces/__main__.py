"""`python -m search_spaces`: which spaces there are, and what one of them varies and keeps."""

import sys

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from search_spaces import Space, SpaceError, load, names
from search_spaces.vocabulary import DERIVED, VOCABULARY

PIPED_WIDTH = 160


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        # Never an ellipsis: what is too long goes on in the next line, names excepted.
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(Text(str(cell)) for cell in cells))  # Text: no cell is read as markup


def _all_spaces() -> Table:
    table = _table("space", "question", "dataset", "ipc", "searched", "trials", "horizon")
    for space in map(load, names()):
        fixed = space.fixed
        _row(table, space.name, space.title, space.dataset, fixed["ipc"], len(space.searched), fixed["trials"],
             f"{space.horizon_epochs} epochs")  # fmt: skip
    return table


def _print_space(console: Console, space: Space) -> None:
    searched, fixed = (
        _table("searched", "range", "trial 0", "meaning", "source of trial 0"),
        _table("fixed", "value", "meaning", "source"),
    )
    for name, dimension in space.searched.items():
        first = f"{dimension.first:.12g}" if isinstance(dimension.first, float) else dimension.first
        _row(searched, name, dimension, first, VOCABULARY[name].meaning, dimension.source)
    for name, constant in space.fixed.items():
        _row(fixed, name, constant, VOCABULARY[name].meaning, constant.source)
    console.print(Text(space.title, style="bold"))
    console.print(Text(f"space {space.name}, dataset {space.dataset}"))
    console.print(Text(f"trial 0: {space.reference}"))
    console.print(Padding(searched, (1, 0)))
    rules = [f"{name} = {rule}" for name, rule in DERIVED.items()]
    console.print(Text(f"{', '.join(rules)}: T_minus < T ≤ T_plus at every point."))
    console.print(Text("Bounds are inclusive; T_plus itself is exclusive as a start epoch unless range_end=inclusive."))
    console.print(
        Text(f"Horizon: the largest T_plus + M is {space.last_epoch}, the experts have {space.horizon_epochs} epochs.")
    )
    console.print(Padding(fixed, (1, 0, 0, 0)))


@click.command()
@click.argument("space", required=False)
def main(space: str | None) -> None:
    """List the search spaces, or show SPACE: a name from that list, or the path of a .py file that sets SPACE."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    try:
        if space is None:
            console.print(_all_spaces())
        else:
            _print_space(console, load(space))
    except SpaceError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main(prog_name="python -m search_spaces")
