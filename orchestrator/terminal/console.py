"""The terminal: one console for every command, wide enough to be read when piped into a file."""

from rich.console import Console

__all__ = ["make_console"]

PIPED_WIDTH = 160


def make_console(*, quiet: bool = False) -> Console:
    """Return the console that a command prints to; a notebook, like any output but a terminal, gets plain lines."""
    console = Console(quiet=quiet, highlight=False, force_jupyter=False)
    if console.is_terminal:
        return console
    return Console(quiet=quiet, highlight=False, force_jupyter=False, width=PIPED_WIDTH)
