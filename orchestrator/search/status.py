"""The status of a running search: the trials' states, the best accuracy, speed and time left; nothing is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from orchestrator.results.trials import REFERENCE_TRIAL, TrialRecord
from orchestrator.search.remaining import Course, Later, StoppingRule, seconds_left
from orchestrator.terminal.steps import time_text
from trainables.workers.rung import Halted, RungResult, SettingsFailed

__all__ = ["Movement", "SearchStatus", "Speed", "State", "TimeLeft", "TrialStatus"]


LEAST_SHARE = 0.2
"""Share of a trial's iterations between two reports that must be done before a pace is told."""


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

    @property
    def runs(self) -> bool:
        """Whether a trial in this state runs."""
        return self in (State.RUNNING, State.RESUMED)


class Movement(NamedTuple):
    """Whether a trial moves its images, at a rung."""

    skip_rate: float
    """Share of the rung's updates that were skipped, in [0, 1]."""
    displacement: float
    """Distance of the images from the initial ones."""


@dataclass
class TrialStatus:
    """The state of one trial, and its rungs so far."""

    name: str
    state: State = State.RUNNING
    reason: str = ""
    """Why it failed or was halted; else empty."""
    rungs: dict[int, float] = field(default_factory=dict)
    """Validation accuracy by distillation iteration."""
    movement: Movement | None = None
    """At the last rung; None before the first, and where a trial does not say it."""
    iteration: int = 0
    """Distillation iterations done."""
    since_s: float | None = None
    """Time at which its process began or resumed it, s; None: it does not run."""
    spent_s: float = 0.0
    """Time that it has run under this driver before that, s."""
    before: int | None = None
    """Iterations that it had when this driver first heard of it; None: it has not heard of it yet."""

    @property
    def last(self) -> float | None:
        """Accuracy at the last rung; None before the first."""
        return self.rungs[max(self.rungs)] if self.rungs else None

    @property
    def done(self) -> int:
        """Iterations done under this driver."""
        return 0 if self.before is None else max(0, self.iteration - self.before)

    def pace_s(self, now_s: float) -> float | None:
        """Seconds an iteration under this driver; None: not known yet."""
        return self.run_s(now_s) / self.done if self.done else None

    def run_s(self, now_s: float) -> float:
        """Time that it has run under this driver, s."""
        return self.spent_s + (0.0 if self.since_s is None else now_s - self.since_s)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What this driver's trials have done, and in what time."""

    iterations: int
    worker_seconds: float
    seconds: float
    """Since the search began under this driver, s."""

    @property
    def pace_s(self) -> float | None:
        """Seconds of a worker for an iteration; None: not known yet."""
        return self.worker_seconds / self.iterations if self.iterations and self.worker_seconds > 0 else None

    @property
    def of_all(self) -> float | None:
        """Iterations a second of all workers; None: not known yet."""
        return self.iterations / self.seconds if self.iterations and self.seconds > 0 else None


class TimeLeft(NamedTuple):
    """Estimates of the time left."""

    stage_s: float
    """Until all trials have ended, s."""
    in_all_s: float
    """Until the sweep has finished, s."""


class SearchStatus:
    """All trials that have begun. Times are seconds of any one clock, and are passed in."""

    def __init__(
        self,
        *,
        trials: int,
        rung_iterations: int,
        rule: StoppingRule,
        workers: int,
        later: Later,
        budget_s: float | None = None,
    ) -> None:
        """Begin without trials.

        Args:
            trials: Trials that are to run.
            rung_iterations: Distillation iterations between two reports of a trial.
            rule: Where trials may be stopped.
            workers: Trials at once.
            later: The work after the last trial.
            budget_s: Seconds from `begin` on after which the search ends by itself; None: never.
        """
        self.iterations = rule.iterations
        self.trials: dict[int, TrialStatus] = {}
        """By number."""
        self.expected = trials
        self._rung_iterations = rung_iterations
        self._rule, self._workers, self._later, self._budget_s = rule, workers, later, budget_s
        self._began_s = 0.0

    def begin(self, now_s: float) -> None:
        """Set the time at which the search begins under this driver."""
        self._began_s = now_s

    def add_ended(self, record: TrialRecord, name: str) -> None:
        """Add a trial that ended under an earlier driver."""
        reason = record.reason if record.status == State.FAILED else ""
        self.trials[record.number] = TrialStatus(
            name, State(record.status), reason, record.rungs, _movement(record.measures), record.iterations,
            before=record.iterations,
        )  # fmt: skip

    def start(self, number: int, name: str, now_s: float) -> None:
        """Add a trial whose process begins or resumes it."""
        trial = self.trials.setdefault(number, TrialStatus(name))
        if trial.state.ended or trial.state == State.HALTED:
            trial.state, trial.reason = State.RESUMED, ""
        self._count_time(trial, now_s)
        trial.since_s = now_s

    def advance(self, number: int, iteration: int) -> None:
        """Set the iterations that a running trial has done within its rung, if they are more than is known."""
        trial = self.trials[number]
        if trial.state.runs and iteration > trial.iteration:
            self._note(trial, iteration)

    def add_report(self, number: int, name: str, rung: RungResult) -> TrialStatus:
        """Add a trial's report, and return the trial."""
        trial = self.trials.get(number)
        if trial is None:
            trial = self.trials[number] = TrialStatus(name)
        elif trial.state.ended or trial.state == State.HALTED:
            trial.state, trial.reason = State.RESUMED, ""
        if not trial.rungs and rung.end is None and rung.iteration > self._rung_iterations:
            trial.state = State.RESUMED  # an earlier driver ran the rungs before its first report
        self._note(trial, rung.iteration)
        match rung.end:
            case SettingsFailed(reason):
                trial.state, trial.reason = State.FAILED, reason
            case Halted(remedy):
                trial.state, trial.reason = State.HALTED, remedy
            case None:
                trial.rungs[rung.iteration] = rung.validation_accuracy
                trial.movement = _movement(rung.kept)
                if rung.finishes(self.iterations):
                    trial.state = State.FINISHED
        return trial

    def end(self, number: int, now_s: float) -> TrialStatus:
        """Mark a trial as pruned, unless its last report says how it stopped; return it."""
        trial = self.trials[number]
        self._count_time(trial, now_s)
        if trial.state.runs:
            trial.state = State.PRUNED
        return trial

    def fail(self, number: int, name: str, reason: str, now_s: float) -> TrialStatus:
        """Mark a trial as failed by an error, and return it; a later start or report resumes it."""
        trial = self.trials.setdefault(number, TrialStatus(name))
        self._count_time(trial, now_s)
        trial.state, trial.reason = State.FAILED, reason
        return trial

    def pause(self, record: TrialRecord, name: str) -> TrialStatus:
        """Mark a trial as paused by the time budget, and return it; a later driver resumes it."""
        accuracy = "" if record.last is None else f", validation accuracy {record.last:.3f}"
        trial = TrialStatus(
            name,
            State.PAUSED,
            f"{record.reason}{accuracy}",
            record.rungs,
            _movement(record.measures),
            record.iterations,
        )
        self.trials[record.number] = trial
        return trial

    def resume(self, number: int) -> None:
        """Mark a trial whose process was lost as resumed, if it has begun before."""
        if number in self.trials:
            self.trials[number].state, self.trials[number].reason = State.RESUMED, ""

    @property
    def best(self) -> float | None:
        """The highest accuracy of any trial's last rung; None before the first rung."""
        return max((trial.last for trial in self.trials.values() if trial.last is not None), default=None)

    @property
    def ended(self) -> int:
        """Number of trials that have ended."""
        return sum(trial.state.ended for trial in self.trials.values())

    @property
    def running(self) -> Mapping[int, TrialStatus]:
        """The trials that run, by number."""
        return {number: trial for number, trial in self.trials.items() if trial.state.runs}

    def speed(self, now_s: float) -> Speed:
        """Return what this driver's trials have done up to now."""
        worker_seconds = sum(trial.run_s(now_s) for trial in self.trials.values())
        done = sum(trial.done for trial in self.trials.values())
        return Speed(iterations=done, worker_seconds=worker_seconds, seconds=now_s - self._began_s)

    def left(self, now_s: float) -> TimeLeft | None:
        """Estimate the time that is left; None: this driver's trials have done too little to tell."""
        speed = self.speed(now_s)
        pace_s = speed.pace_s
        # The first iteration may have waited for α to be found and for a compilation.
        if pace_s is None or speed.iterations < LEAST_SHARE * self._rung_iterations:
            return None
        courses = [
            Course(
                trial.iteration, trial.state.ended, number != REFERENCE_TRIAL,
                # After one rung the time since its report could double the pace.
                trial.pace_s(now_s) if trial.done > self._rung_iterations else None,
            )
            for number, trial in self.trials.items()
        ]  # fmt: skip
        begins = max(0, self.expected - len(courses))
        left_s = seconds_left(self._rule, courses, begins, self._workers, pace_s)
        if self._budget_s is not None:
            left_s = min(left_s, max(0.0, self._budget_s - (now_s - self._began_s)))
        later_s = pace_s * self._later.busiest(self.iterations, self._workers) + self._later.seconds
        return TimeLeft(left_s, left_s + later_s)

    def summary(self, left: TimeLeft | None) -> str:
        """Return the progress of the search in a line."""
        best = "–" if self.best is None else f"{self.best:.3f}"
        return f"{self.ended}/{self.expected} done, best {best}, {time_text(left and left.stage_s)} left"

    def _note(self, trial: TrialStatus, iteration: int) -> None:
        """Record a trial's iterations; those that it had before this driver are known by what it says first."""
        if trial.before is None:
            # It says this after work of its own: a rung at most, or less from a checkpoint within the rung.
            trial.before = max(0, (iteration - 1) // self._rung_iterations * self._rung_iterations)
        trial.iteration = iteration

    def _count_time(self, trial: TrialStatus, now_s: float) -> None:
        """Count the time that a trial has run; from now on it does not run."""
        trial.spent_s, trial.since_s = trial.run_s(now_s), None


def _movement(measures: Mapping[str, float]) -> Movement | None:
    """Return the movement that a trial's measures at a rung hold."""
    skip_rate, displacement = (measures.get(name) for name in ("skip_rate", "image_displacement"))
    return None if skip_rate is None or displacement is None else Movement(skip_rate, displacement)
