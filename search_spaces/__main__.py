"""`python -m search_spaces`: list the spaces and presets, or show the parameters of one space."""

import sys

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from search_spaces import Space, SpaceError, Study, Value, load, names
from search_spaces.completion import complete_spaces
from search_spaces.plain_output import Command
from search_spaces.presets import PRESETS
from search_spaces.vocabulary import DERIVED, VOCABULARY

PIPED_WIDTH = 160


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        # Cells too long for a line continue in the next one; the first column, of names, never wraps.
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(Text(str(cell)) for cell in cells))  # Text: no cell is read as markup


def _all_spaces() -> Table:
    table = _table("space", "question", "dataset", "ipc", "varies", "trials", "horizon")
    for space in map(load, names()):
        fixed = space.fixed
        varies = f"{len(space.variants)} variants" if isinstance(space, Study) else f"{len(space.searched)} keys"
        _row(table, space.name, space.title, space.dataset, fixed["ipc"], varies, fixed["trials"],
             f"{space.horizon_epochs} epochs")  # fmt: skip
    return table


def _all_presets() -> Table:
    table = _table("preset", "method", "source")
    for method in PRESETS.values():
        _row(table, method.name, method.title, method.source)
    return table


def _searched(space: Space) -> Table:
    table = _table("searched", "range", "trial 0", "meaning", "source of trial 0")
    for name, dimension in space.searched.items():
        _row(table, name, dimension, _number(dimension.first), VOCABULARY[name].meaning, dimension.source)
    return table


def _varied(space: Study) -> Table:
    """Return the table of a study's variants; values that a variant takes from the parameters are in brackets."""
    table = _table("varied", *space.variants, "meaning")
    for name in space.varied[2:]:
        common = space.parameters[name].values[0]
        cells = [
            _number(settings[name]) if name in settings else f"({_number(common)})"
            for settings in space.variants.values()
        ]
        _row(table, name, *cells, VOCABULARY[name].meaning)
    return table


def _number(value: Value) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _print_space(console: Console, space: Space) -> None:
    fixed = _table("fixed", "value", "meaning", "source")
    for name, constant in space.fixed.items():
        _row(fixed, name, constant, VOCABULARY[name].meaning, constant.source)
    console.print(Text(space.title, style="bold"))
    console.print(Text(f"space {space.name}, dataset {space.dataset}"))
    console.print(Text(f"trial 0: {space.reference}"))
    console.print(Padding(_varied(space) if isinstance(space, Study) else _searched(space), (1, 0)))
    if isinstance(space, Study):
        console.print(Text(f"A study: {len(space.points())} trials, each to its end; repeat r has a seed of its own."))
    rules = [f"{name} = {rule}" for name, rule in DERIVED.items()]
    console.print(Text(f"{', '.join(rules)}: T_minus < T ≤ T_plus at every point."))
    console.print(Text("Bounds are inclusive; T_plus itself is exclusive as a start epoch unless range_end=inclusive."))
    console.print(
        Text(f"Horizon: the largest T_plus + M is {space.last_epoch}, the experts have {space.horizon_epochs} epochs.")
    )
    console.print(Padding(fixed, (1, 0, 0, 0)))


@click.command(cls=Command)
@click.argument("space", required=False, shell_complete=complete_spaces)
def main(space: str | None) -> None:
    """List spaces and presets, or show SPACE: one of those spaces, or the path of a .py file that sets SPACE."""
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, markup=False, emoji=False)
    try:
        if space is None:
            console.print(_all_spaces())
            console.print(Padding(_all_presets(), (1, 0, 0, 0)))
        else:
            _print_space(console, load(space))
    except SpaceError as error:
        click.echo(f"Error: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main(prog_name="python -m search_spaces")
