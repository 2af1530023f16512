"""What a person sees while it runs: a bar or a table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.table import Table
from rich.text import Text

from orchestrator.search import error_line
from orchestrator.searcher import METRIC, ended_as_planned
from orchestrator.settings import SEARCH
from orchestrator.trials import trial_name

__all__ = ["SearchView", "progress_bar"]

PLAIN_LINES, PLAIN_PAUSE_S = 5, 2.0
"""Lines that a progress bar becomes where there is no terminal, and how long it says nothing at first."""


class _Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: ProgressTask) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s")


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show one progress bar with rate and ETA, or plain lines; yields a function that takes the steps done so far."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda done: progress.update(task, completed=done)
        return
    began, said = time.monotonic(), 0

    def update(done: int) -> None:
        nonlocal said
        step, seconds = done * PLAIN_LINES // total, time.monotonic() - began
        if step > said and seconds > PLAIN_PAUSE_S:
            said = step
            left = timedelta(seconds=round(seconds / done * (total - done)))
            console.print(f"{title}: {done}/{total} ({done / seconds:,.1f}/s, {left} left)")

    yield update


class SearchView(tune.Callback):
    """The live view of a search: trials, rungs, best so far, ETA."""

    def __init__(self, console: Console, *, trials: int, iterations: int, stage: str = SEARCH) -> None:
        """Show so many trials of a stage, of so many iterations."""
        self._console = console
        self._trials, self._iterations, self._stage = trials, iterations, stage
        self._rungs: dict[int, list[tuple[int, float]]] = {}
        self._ended: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._began = time.monotonic()
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave a terminal out of Tune's snapshot; whoever restores one brings a view of his own."""
        return {}

    def setup(
        self,
        stop: Any = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Start drawing."""
        self._began = time.monotonic()
        if self._live:
            self._live.start()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take note of a rung."""
        self._name(trial)
        self._ended.pop(trial.config["trial_number"], None)  # one whose process was lost goes on
        self._rungs.setdefault(trial.config["trial_number"], []).append((result["iteration"], result[METRIC]))
        self._draw()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take note of a trial that ended in order."""
        finished = ended_as_planned(trial.last_result, self._iterations)
        self._end(trial, "finished" if finished else "pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take note of a trial that an error ended, and say so at once; if its process was lost, it goes on later."""
        self._end(trial, "failed")
        name = self._name(trial)
        self._console.print(f"{name} was ended by an error: {error_line(trial)}; traceback in {trial.path}/error.txt")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Stop drawing."""
        if self._live:
            self._live.stop()

    def _name(self, trial: Any) -> str:
        """Return a trial's name, and remember it; in a study it says which variant and repeat the trial is."""
        config, number = trial.config, trial.config["trial_number"]
        what = f" ({config['variant']}, repeat {config['repeat']})" if "variant" in config else ""
        return self._names.setdefault(number, f"{trial_name(number, self._stage)}{what}")

    def _end(self, trial: Any, outcome: str) -> None:
        number = trial.config["trial_number"]
        self._ended[number] = outcome
        if self._live:
            self._draw()
        elif rungs := self._rungs.get(number):
            iteration, accuracy = rungs[-1]
            self._console.print(
                f"{self._name(trial)} {outcome} at {iteration}/{self._iterations}: "
                f"validation accuracy {accuracy:.3f}; {self._summary()}"
            )

    def _summary(self) -> str:
        best = max((rungs[-1][1] for rungs in self._rungs.values()), default=float("nan"))
        return f"{len(self._ended)}/{self._trials} done, best {best:.3f}, {self._left()} left"

    def _left(self) -> timedelta | str:
        """Estimate the rest from the rungs done: a trial that is not begun yet counts like the average ended one."""
        if not self._ended:
            return "?"
        done = sum(len(rungs) for rungs in self._rungs.values())
        average = sum(len(self._rungs.get(number, [])) for number in self._ended) / len(self._ended)
        expected = max(average * self._trials, done)
        return timedelta(seconds=round((time.monotonic() - self._began) / max(done, 1) * (expected - done)))

    def _draw(self) -> None:
        if not self._live:
            return
        title = "Search" if self._stage == SEARCH else "Finals, distillations"
        table = Table(title=f"{title}: {self._summary()}", title_justify="left")
        for heading in ("trial", "state", "iteration", "validation accuracy at each rung"):
            table.add_column(heading)
        shown = sorted(self._rungs, key=lambda number: (number in self._ended, -number))[:20]
        for number in shown:
            rungs = self._rungs[number]
            table.add_row(
                self._names[number],
                self._ended.get(number, "running"),
                f"{rungs[-1][0]}/{self._iterations}",
                " ".join(f"{accuracy:.3f}" for _, accuracy in rungs),
            )
        self._live.update(table, refresh=True)
