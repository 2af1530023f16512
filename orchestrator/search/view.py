"""The live view of a search: a table on a terminal; without a terminal, a line for every trial that ends."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.results.trials import TrialRecord, trial_name
from orchestrator.search.run import error_line
from orchestrator.search.status import SearchStatus, TrialStatus
from orchestrator.state.stage import SEARCH
from trainables.workers.rung import RungResult

__all__ = ["SearchView"]

SHOWN = 20
"""Rows of the table: running trials come first, then ended ones, the latest first."""


class SearchView(tune.Callback):
    """Draws the status of a search whenever a trial reports or ends."""

    def __init__(
        self, console: Console, *, trials: int, iterations: int, rung_iterations: int, stage: str = SEARCH
    ) -> None:
        """Show the trials of a stage; see `SearchStatus` for the numbers."""
        self._console, self._stage = console, stage
        self._status = SearchStatus(trials=trials, iterations=iterations, rung_iterations=rung_iterations)
        self._began = time.monotonic()
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the terminal out of Tune's snapshot, which is never restored."""
        return {}

    def add_ended(self, records: Iterable[TrialRecord]) -> None:
        """Show the trials that ended under earlier drivers too."""
        for record in records:
            self._status.add_ended(record, self._name(record.number, record.settings))

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
        """Show a report."""
        number = trial.config["trial_number"]
        self._status.add_report(number, self._name(number, trial.config), RungResult.from_report(result))
        self._draw()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show how a trial ended."""
        self._show_end(self._status.end(trial.config["trial_number"]))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial whose process was lost has restarted."""
        self._status.resume(trial.config["trial_number"])
        self._draw()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial ended with an error."""
        number = trial.config["trial_number"]
        reason = f"{error_line(trial)}; traceback in {trial.path}/error.txt"
        self._show_end(self._status.fail(number, self._name(number, trial.config), reason))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Stop drawing."""
        if self._live:
            self._live.stop()

    def _name(self, number: int, settings: Mapping[str, Any]) -> str:
        """Return a trial's name; in a grid with its variant and repeat."""
        point = f" ({settings['variant']}, repeat {settings['repeat']})" if "variant" in settings else ""
        return f"{trial_name(number, self._stage)}{point}"

    def _show_end(self, trial: TrialStatus) -> None:
        """Print a line for a trial that has stopped; on a terminal only if there is a reason."""
        if self._live is None or trial.reason:
            line = f"{trial.name} {trial.state} at {trial.iteration}/{self._status.iterations}"
            outcome = trial.reason or f"validation accuracy {trial.rungs[trial.iteration]:.3f}"
            self._console.print(Text(f"{line}: {outcome}; {self._summary()}"), soft_wrap=True)
        self._draw()

    def _summary(self) -> str:
        return self._status.summary(time.monotonic() - self._began)

    def _draw(self) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        title = "Search" if self._stage == SEARCH else "Finals, distillations"
        table = Table(title=f"{title}: {self._summary()}", title_justify="left")
        for heading in ("trial", "state", "iteration"):
            table.add_column(heading, no_wrap=True)
        table.add_column("validation accuracy, newest first")
        trials = sorted(self._status.trials.items(), key=lambda item: (item[1].state.ended, -item[0]))
        for _, trial in trials[:SHOWN]:
            table.add_row(trial.name, trial.state, f"{trial.iteration}/{self._status.iterations}", _last_cell(trial))
        return table


def _last_cell(trial: TrialStatus) -> Text:
    """Return why a trial stopped, on several lines if needed, or else as many of its rungs as one line holds."""
    if trial.reason:
        return Text(trial.reason, overflow="fold")
    newest = sorted(trial.rungs, reverse=True)
    return Text(" ".join(f"{trial.rungs[rung]:.3f}" for rung in newest), no_wrap=True, overflow="ellipsis")
