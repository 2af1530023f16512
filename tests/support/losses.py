"""The patience of a stage in a test."""

from rich.console import Console

from orchestrator.cluster.losses import Patience

__all__ = ["patience"]


def patience(console: Console | None = None, seconds: float = 60.0) -> Patience:
    """Build a patience; without a console its lines are not shown."""
    return Patience(seconds, console or Console(quiet=True), "run the same command again")
