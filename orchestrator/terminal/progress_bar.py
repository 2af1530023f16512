"""A progress bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from orchestrator.terminal.steps import Steps, time_text

__all__ = ["Show", "progress_bar"]

PLAIN_LINES, PLAIN_PAUSE_S = 5, 2.0
"""Without a terminal: the number of lines that replace a progress bar, and the seconds before the first one."""


class Show(Protocol):
    """Shows how many steps are done; see `Steps.advance`."""

    def __call__(self, done: int, share: float | None = None) -> None:
        """Show it."""


class _Pace(ProgressColumn):
    """Steps per second, and the time left."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self._steps = steps

    def render(self, task: ProgressTask) -> Text:
        return Text(_pace_text(self._steps))


@contextmanager
def progress_bar(
    console: Console, title: str, total: int, follow: Callable[[Steps], None] = lambda steps: None
) -> Iterator[Show]:
    """Show a progress bar with rate and time left, or plain lines; yields a function that takes the steps done.

    Args:
        console: The terminal, or the file in its place.
        title: What is done.
        total: All steps.
        follow: Called once, at the start, with the steps, which say at any time how many are done.
    """
    steps = Steps(total)
    follow(steps)
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Pace(steps))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total)

            def draw(done: int, share: float | None = None) -> None:
                steps.advance(done, share)
                progress.update(task, completed=done)

            yield draw
        return
    began, lines = time.monotonic(), 0

    def print_line(done: int, share: float | None = None) -> None:
        nonlocal lines
        steps.advance(done, share)
        due = done * PLAIN_LINES // total
        if due > lines and time.monotonic() - began > PLAIN_PAUSE_S:
            lines = due
            console.print(f"{title}: {done}/{total} ({_pace_text(steps)})")

    yield print_line


def _pace_text(steps: Steps) -> str:
    rate = "" if steps.rate is None else f"{steps.rate:,.1f}/s, "
    return f"{rate}{time_text(steps.seconds_left)} left"
