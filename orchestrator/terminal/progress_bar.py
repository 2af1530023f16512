"""A progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

__all__ = ["progress_bar"]

PLAIN_LINES, PLAIN_PAUSE_S = 5, 2.0
"""Without a terminal: the number of lines that replace a progress bar, and the seconds before the first one."""


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: ProgressTask) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s")


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with rate and ETA, or plain lines; yields a function that takes the number of steps done."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda done: progress.update(task, completed=done)
        return
    began, lines = time.monotonic(), 0

    def update(done: int) -> None:
        nonlocal lines
        due, seconds = done * PLAIN_LINES // total, time.monotonic() - began
        if due > lines and seconds > PLAIN_PAUSE_S:
            lines = due
            left = timedelta(seconds=round(seconds / done * (total - done)))
            console.print(f"{title}: {done}/{total} ({done / seconds:,.1f}/s, {left} left)")

    yield update
