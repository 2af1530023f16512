"""The live view of a search: a table on a terminal; without one, a line for every trial that ends, and some between."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ray import tune
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.results.trials import TrialRecord, trial_name
from orchestrator.results.under_way import StageAtWork
from orchestrator.search.status import SearchStatus, State, TimeLeft, TrialStatus
from orchestrator.search.tune_errors import error_line, loss_of
from orchestrator.state.stage import SEARCH
from orchestrator.terminal.steps import time_text
from trainables.errors import CheckpointError
from trainables.storage.checkpoints import iteration_within_rung
from trainables.workers.rung import RungResult

__all__ = ["SearchView"]

SHOWN = 20
"""Rows of the table: running trials come first, then ended ones, the latest first."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 900.0
"""Without a terminal: seconds of silence before a line about the running trials; they double, up to the longest."""
_log = logging.getLogger(__name__)


class SearchView(tune.Callback):
    """Draws the status of a search whenever a trial begins, reports or ends, and whenever `look` is called."""

    def __init__(
        self,
        console: Console,
        status: SearchStatus,
        checkpoints: str,
        *,
        stage: str = SEARCH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show the trials of a stage.

        Args:
            console: The terminal, or the file in its place.
            status: The status to keep and to show.
            checkpoints: Folder or URI of the trials' checkpoints, which say how far a trial is within its rung.
            stage: The trials' stage.
            clock: A monotonic clock, in seconds.
        """
        self._console, self._stage, self._checkpoints = console, stage, checkpoints
        self._status = status
        self._clock = clock
        self._lock = threading.RLock()
        """Held while the status is used: `look` is called by another thread than Tune's."""
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        self._printed_s, self._pause_s = clock(), FIRST_PAUSE_S
        self._left: TimeLeft | None = None
        """The last estimate: one takes milliseconds, too much for every report of a large search."""
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the terminal out of Tune's snapshot, which is never restored."""
        return {}

    def add_ended(self, records: Iterable[TrialRecord]) -> None:
        """Show the trials that ended under earlier drivers too."""
        with self._lock:
            for record in records:
                self._status.add_ended(record, self._name(record.number, record.settings))

    def show_paused(self, records: Iterable[TrialRecord]) -> None:
        """Print a line for every trial that the time budget has paused, after the search."""
        with self._lock:
            for record in records:
                if record.status == State.PAUSED:
                    self._print_end(self._status.pause(record, self._name(record.number, record.settings)))

    def setup(
        self,
        stop: Any = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **info: Any,
    ) -> None:
        """Start drawing; after a pause for a lost process, again."""
        with self._lock:
            self._status.begin(self._clock())
            self._printed_s = self._clock()
            if self._live:
                self._live.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial begins, or goes on after its process was lost."""
        number = trial.config["trial_number"]
        with self._lock:
            self._status.start(number, self._name(number, trial.config), self._clock())
            self._draw()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show a report."""
        number = trial.config["trial_number"]
        with self._lock:
            self._status.add_report(number, self._name(number, trial.config), RungResult.from_report(result))
            self._draw()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show how a trial ended."""
        with self._lock:
            self._show_end(self._status.end(trial.config["trial_number"], self._clock()))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial whose process was lost has restarted."""
        with self._lock:
            self._status.resume(trial.config["trial_number"])
            self._draw()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Show that a trial ended with an error; one whose process was lost continues after a pause."""
        number = trial.config["trial_number"]
        if loss_of(trial) is not None:
            self._status.resume(number)
            self._draw()
            return
        reason = f"{error_line(trial)}; traceback in {trial.path}/error.txt"
        with self._lock:
            name = self._name(number, trial.config)
            self._show_end(self._status.fail(number, name, reason, self._clock()))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Stop drawing."""
        with self._lock:
            if self._live:
                self._live.stop()

    def look(self, stage: StageAtWork) -> StageAtWork:
        """Read how far the running trials are within their rungs, show it, and return the stage with what is known.

        Without a terminal a line is printed only after a silence, which is longer every time.
        """
        with self._lock:
            running = list(self._status.running)
        iterations = {number: self._within_rung(number) for number in running}
        with self._lock:
            for number, iteration in iterations.items():
                self._status.advance(number, iteration)
            now_s = self._clock()
            left = self._left = self._status.left(now_s)
            at_work = replace(
                stage,
                done=self._status.ended,
                running={trial.name: trial.iteration for trial in self._status.running.values()},
                iterations=self._status.iterations,
                rate=self._status.speed(now_s).of_all,
                seconds_left=left and left.stage_s,
                seconds_left_in_all=left and left.in_all_s,
            )
            self._draw()
            if self._live is None and at_work.running and now_s - self._printed_s >= self._pause_s:
                self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
                self._print(_running_line(at_work, self._summary()))
            return at_work

    def _within_rung(self, number: int) -> int:
        """Return the iterations in a trial's checkpoint within its rung; 0 if it cannot be read, which is said once."""
        try:
            return iteration_within_rung(self._checkpoints, number)
        except (CheckpointError, OSError) as error:
            if not self._warned:
                self._warned = True
                _log.warning("the progress of %s within its rung is not known: %s", trial_name(number), error)
            return 0

    def _name(self, number: int, settings: Mapping[str, Any]) -> str:
        """Return a trial's name; in a grid with its variant and repeat."""
        point = f" ({settings['variant']}, repeat {settings['repeat']})" if "variant" in settings else ""
        return f"{trial_name(number, self._stage)}{point}"

    def _show_end(self, trial: TrialStatus) -> None:
        """Print a line for a trial that has stopped; on a terminal only if there is a reason."""
        self._left = self._status.left(self._clock())
        if self._live is None or trial.reason:
            self._print_end(trial)
        self._draw()

    def _print_end(self, trial: TrialStatus) -> None:
        line = f"{trial.name} {trial.state} at {trial.iteration}/{self._status.iterations}"
        outcome = trial.reason or _accuracy_text(trial)
        self._print(f"{line}: {outcome}; {self._summary()}")

    def _print(self, line: str) -> None:
        self._console.print(Text(line))
        self._printed_s = self._clock()

    def _summary(self) -> str:
        return self._status.summary(self._left)

    def _draw(self) -> None:
        if self._live and self._live.is_started:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        title = "Search" if self._stage == SEARCH else "Finals, distillations"
        rate, left = self._status.speed(self._clock()).of_all, self._left
        facts = [self._summary(), *([f"{rate:,.1f} iterations/s"] if rate else [])]
        if left is not None and round(left.in_all_s) > round(left.stage_s):
            facts.append(f"{time_text(left.in_all_s)} with all that follows")
        table = Table(title=f"{title}: {', '.join(facts)}", title_justify="left")
        for heading in ("trial", "state", "iteration", "moved/skip"):
            table.add_column(heading, no_wrap=True)
        table.add_column("validation accuracy, newest first")
        trials = sorted(self._status.trials.items(), key=lambda item: (item[1].state.ended, -item[0]))
        for _, trial in trials[:SHOWN]:
            iteration = f"{trial.iteration}/{self._status.iterations}"
            table.add_row(trial.name, trial.state, iteration, _movement_cell(trial), _last_cell(trial))
        return table


def _accuracy_text(trial: TrialStatus) -> str:
    if trial.last is None:
        return "no rung was reached"
    skipped = trial.movement.skip_rate if trial.movement is not None else 0.0
    return f"validation accuracy {trial.last:.3f}{f', {skipped:.0%} of its last updates skipped' if skipped else ''}"


def _movement_cell(trial: TrialStatus) -> str:
    """Return how far a trial has moved its images, and the share of updates that it skipped, at its last rung."""
    return "" if trial.movement is None else f"{trial.movement.displacement:.2f}/{trial.movement.skip_rate:.0%}"


def _running_line(stage: StageAtWork, summary: str) -> str:
    """Return a line about the trials that run; of many, how many and the range of their iterations."""
    at = list(stage.running.values())
    if len(at) <= 4:
        trials = ", ".join(f"{name} at {iteration}" for name, iteration in stage.running.items())
    else:
        trials = f"{len(at)} trials at {min(at)} to {max(at)}"
    speed = "" if stage.rate is None else f", {stage.rate:,.1f} iterations/s"
    return f"Running: {trials} of {stage.iterations} iterations{speed}; {summary}"


def _last_cell(trial: TrialStatus) -> Text:
    """Return why a trial stopped, on several lines if needed, or else as many of its rungs as one line holds."""
    if trial.reason:
        return Text(trial.reason, overflow="fold")
    newest = sorted(trial.rungs, reverse=True)
    return Text(" ".join(f"{trial.rungs[rung]:.3f}" for rung in newest), no_wrap=True, overflow="ellipsis")
