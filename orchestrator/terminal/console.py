"""The terminal: one console for every command, wide enough to be read when piped into a file."""

from rich.console import Console

__all__ = ["make_console"]

PIPED_WIDTH = 160


def make_console(*, quiet: bool = False) -> Console:
    """Return the console that a command prints to; a notebook, like any output but a terminal, gets plain lines.

    Text is printed as it is: names and paths may hold what Rich would read as markup or as an emoji. A line with a path
    or a command is printed with `soft_wrap=True`, which does not break it.
    """
    plain = Console(quiet=quiet, highlight=False, markup=False, emoji=False, force_jupyter=False)
    if plain.is_terminal:
        return plain
    return Console(quiet=quiet, highlight=False, markup=False, emoji=False, force_jupyter=False, width=PIPED_WIDTH)
