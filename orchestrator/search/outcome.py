"""The outcome of a search: its trials, its winner, and why it ended early."""

from dataclasses import dataclass

from orchestrator.errors import ClusterError, NoTrialSucceeded, Stopped
from orchestrator.results.trials import TrialRecord, best_trial
from orchestrator.state.settings import SweepSettings

__all__ = ["SearchOutcome"]


@dataclass(frozen=True)
class SearchOutcome:
    """The outcome of a search, or of the finals' distillations."""

    trials: list[TrialRecord]
    """Trials that have ended, by number; if the time budget has ended, also those that it paused."""
    halted: str | None
    """Why no trial could continue, though its settings are valid; None if none was halted."""
    hopeless: str | None
    """The error of all trials, for which the search was given up; else None."""
    interrupted: bool
    """Whether the search was stopped by a signal."""

    def check_ended(self, settings: SweepSettings, *, kept: str) -> None:
        """Check that the distillations were not interrupted.

        Args:
            settings: Their settings.
            kept: How many trials have ended, in words.

        Raises:
            Stopped: A signal ended them.
            ClusterError: A failure halted all trials.
        """
        resume = f"resume with: {settings.resume_command}"
        if self.halted:
            raise ClusterError(f"{self.halted}, then {resume}")
        if self.interrupted:
            raise Stopped(f"stopped by hand after {kept}, which are kept; {resume}")

    def winner(self, settings: SweepSettings) -> TrialRecord:
        """Return the best trial of a search.

        Raises:
            Stopped: A signal ended the search.
            ClusterError: A failure halted all trials.
            NoTrialSucceeded: No trial succeeded.
        """
        self.check_ended(settings, kept=f"{len(self.trials)} trials")
        best = best_trial(self.trials)
        if self.hopeless:
            raise NoTrialSucceeded(self.hopeless)
        if best is not None:
            return best
        ended = [record for record in self.trials if record.status != "paused"]
        if len(ended) < settings.fixed["trials"]:
            raise NoTrialSucceeded(
                f"the time budget ended before a trial reached a rung; continue with a larger one: "
                f"{settings.resume_command} --time-budget TIME"
            )
        reasons = sorted({record.reason for record in self.trials})
        raise NoTrialSucceeded(f"none of {len(self.trials)} trials succeeded: {'; '.join(reasons)}")
