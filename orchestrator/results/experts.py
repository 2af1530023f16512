"""The result of a sweep's expert stage."""

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["ExpertSummary"]


@dataclass(frozen=True, kw_only=True)
class ExpertSummary:
    """Counts, size and time of the expert stage: `experts` of result.json."""

    count: int
    trained: int
    """Experts trained or extended in this run."""
    reused: int
    """Experts that the store already had."""
    epochs: int
    """Epochs of every expert."""
    bytes: int
    seconds: float
    losses: list[float]
    """Mean training loss over the experts, by epoch."""

    def facts(self) -> dict[str, int]:
        """Return `experts` of result.json."""
        return {key: getattr(self, key) for key in ("count", "trained", "reused", "epochs", "bytes")}

    def line(self, place: str) -> str:
        """Return a line for the console.

        Args:
            place: Folder or URI of the store.
        """
        return (
            f"Experts: {self.trained} trained, {self.reused} reused, {self.epochs} epochs each, "
            f"{self.bytes / 2**20:,.1f} MiB in {place} ({timedelta(seconds=round(self.seconds))})"
        )
