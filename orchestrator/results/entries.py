"""Names of the measured sets in result.json, progress.json, files and MLflow."""

from typing import NamedTuple

__all__ = ["FULL_DATA", "PAPER_SETTING", "RANDOM_REAL", "WINNER", "ComparedSet"]

WINNER = "winner"
"""The best trial's set."""
PAPER_SETTING = "paper_setting"
"""The reference trial's set."""
RANDOM_REAL = "random_real"
"""Random real images, drawn anew for every network."""
FULL_DATA = "full_data"
"""All training images."""


class ComparedSet(NamedTuple):
    """The sets of a method and size in a comparison, one a repeat."""

    method: str
    """Method that made the sets."""
    ipc: int
    """Images per class."""

    @property
    def name(self) -> str:
        """The name under which the sets' results are stored."""
        return f"{self.method}-{self.ipc}"

    @classmethod
    def parse(cls, name: str) -> "ComparedSet":
        """Return the set of a stored name; a method's own name may have hyphens."""
        method, _, ipc = name.rpartition("-")
        return cls(method, int(ipc))
