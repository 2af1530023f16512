"""The terminal: one console for every command, wide enough to be read when piped into a file."""

from rich.console import Console

__all__ = ["make_console"]

PIPED_WIDTH = 160


def make_console(*, quiet: bool = False) -> Console:
    """Return the console that a command prints to."""
    console = Console(quiet=quiet, highlight=False)
    return console if console.is_terminal else Console(quiet=quiet, highlight=False, width=PIPED_WIDTH)
