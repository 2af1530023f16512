"""The status of a running search: the state of every trial, the best accuracy and the time left; nothing is drawn."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from orchestrator.results.trials import TrialRecord
from trainables.workers.rung import Halted, RungResult, SettingsFailed

__all__ = ["SearchStatus", "State", "TrialStatus"]


class State(StrEnum):
    """The state of a trial."""

    RUNNING = "running"
    RESUMED = "resumed"
    """Running, after its process was lost or in a later driver."""
    HALTED = "halted"
    """Stopped for a cause outside the trial; it has not ended."""
    FINISHED = "finished"
    PRUNED = "pruned"
    FAILED = "failed"
    PAUSED = "paused"
    """Not ended: the time budget ended before it."""

    @property
    def ended(self) -> bool:
        """Whether a trial in this state has ended."""
        return self in (State.FINISHED, State.PRUNED, State.FAILED)


@dataclass
class TrialStatus:
    """The state of one trial, and its rungs so far."""

    name: str
    state: State = State.RUNNING
    reason: str = ""
    """Why it failed or was halted; else empty."""
    rungs: dict[int, float] = field(default_factory=dict)
    """Validation accuracy by distillation iteration."""
    iteration: int = 0
    """Distillation iterations done."""


class SearchStatus:
    """All trials that have reported or ended."""

    def __init__(self, *, trials: int, iterations: int, rung_iterations: int) -> None:
        """Expect `trials` trials of `iterations` distillation iterations, with a rung every `rung_iterations`."""
        self.iterations = iterations
        self.trials: dict[int, TrialStatus] = {}
        """By number."""
        self._expected = trials
        self._rung_iterations = rung_iterations
        self._new_rungs = 0

    def add_ended(self, record: TrialRecord, name: str) -> None:
        """Add a trial that ended under an earlier driver."""
        reason = record.reason if record.status == State.FAILED else ""
        self.trials[record.number] = TrialStatus(name, State(record.status), reason, record.rungs, record.iterations)

    def add_report(self, number: int, name: str, rung: RungResult) -> TrialStatus:
        """Add a trial's report, and return the trial."""
        trial = self.trials.get(number)
        if trial is None:
            # A first report after the first rung means that an earlier driver ran the rungs before it.
            resumed = rung.end is None and rung.iteration > self._rung_iterations
            trial = self.trials[number] = TrialStatus(name, State.RESUMED if resumed else State.RUNNING)
        elif trial.state.ended or trial.state == State.HALTED:
            trial.state, trial.reason = State.RESUMED, ""
        trial.iteration = rung.iteration
        match rung.end:
            case SettingsFailed(reason):
                trial.state, trial.reason = State.FAILED, reason
            case Halted(remedy):
                trial.state, trial.reason = State.HALTED, remedy
            case None:
                self._new_rungs += rung.iteration not in trial.rungs  # a resumed trial reports its last rung again
                trial.rungs[rung.iteration] = rung.validation_accuracy
                if rung.finishes(self.iterations):
                    trial.state = State.FINISHED
        return trial

    def end(self, number: int) -> TrialStatus:
        """Mark a trial as pruned, unless its last report says how it stopped; return it."""
        trial = self.trials[number]
        if trial.state in (State.RUNNING, State.RESUMED):
            trial.state = State.PRUNED
        return trial

    def fail(self, number: int, name: str, reason: str) -> TrialStatus:
        """Mark a trial as failed by an error, and return it; a later report resumes it."""
        trial = self.trials.setdefault(number, TrialStatus(name))
        trial.state, trial.reason = State.FAILED, reason
        return trial

    def pause(self, record: TrialRecord, name: str) -> TrialStatus:
        """Mark a trial as paused by the time budget, and return it; a later driver resumes it."""
        accuracy = "" if record.last is None else f", validation accuracy {record.last:.3f}"
        trial = TrialStatus(name, State.PAUSED, f"{record.reason}{accuracy}", record.rungs, record.iterations)
        self.trials[record.number] = trial
        return trial

    def resume(self, number: int) -> None:
        """Mark a trial whose process was lost as resumed, if it has reported before."""
        if number in self.trials:
            self.trials[number].state, self.trials[number].reason = State.RESUMED, ""

    @property
    def best(self) -> float | None:
        """The highest accuracy of any trial's last rung; None before the first rung."""
        return max((trial.rungs[max(trial.rungs)] for trial in self.trials.values() if trial.rungs), default=None)

    def summary(self, seconds: float) -> str:
        """Return the progress of the search in a line.

        Args:
            seconds: Time since this driver's search began, s.
        """
        ended = sum(trial.state.ended for trial in self.trials.values())
        best = "–" if self.best is None else f"{self.best:.3f}"
        return f"{ended}/{self._expected} done, best {best}, {self._left(seconds)} left"

    def _left(self, seconds: float) -> timedelta | str:
        """Estimate the time left from the rungs done: a trial that has not begun counts like the average ended one."""
        ended = [len(trial.rungs) for trial in self.trials.values() if trial.state.ended]
        if not ended or not self._new_rungs:
            return "?"
        done = sum(len(trial.rungs) for trial in self.trials.values())
        left = max(sum(ended) / len(ended) * self._expected - done, 0)
        return timedelta(seconds=round(seconds / self._new_rungs * left))
