"""How far a sweep has come, besides its experts and its study: what a driver must know that goes on with it."""

import json
import time
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from trainables.files import write_text
from trainables.metrics import Metrics

__all__ = ["Progress"]

FORMAT_VERSION = 3


class Progress:
    """A sweep's progress.json: whether it compiles, the finals that are measured, and the seconds its stages took."""

    def __init__(self, folder: Path) -> None:
        """Read what is there.

        Raises:
            UserError: It is of another version.
        """
        self._path = folder / "progress.json"
        self.compilation: tuple[bool, str] | None = None
        """Whether the trials compile their inner steps, and why; None: not decided yet."""
        self.finals: dict[tuple[str, str, int], Metrics] = {}
        """What was measured on the test split, by protocol, set and network."""
        self._seconds: dict[str, float] = {}
        self._since = time.monotonic()
        if self._path.exists():
            self._load(json.loads(self._path.read_text()))

    def _load(self, record: dict[str, Any]) -> None:
        if (version := record["version"]) != FORMAT_VERSION:
            raise UserError(
                f"{self._path} has format version {version}, this program reads {FORMAT_VERSION}; start anew"
            )
        self.compilation = tuple(record["compilation"]) if record["compilation"] else None
        self.finals = {
            (each["protocol"], each["set"], each["network"]): _metrics(each["confusion"]) for each in record["finals"]
        }
        self._seconds = record["seconds"]

    def save(self) -> None:
        """Write it, so that nothing of it is lost from here on."""
        record = {
            "version": FORMAT_VERSION,
            "compilation": self.compilation,
            "finals": [
                {"protocol": protocol, "set": name, "network": network, "confusion": metrics.confusion}
                for (protocol, name, network), metrics in sorted(self.finals.items())
            ],
            "seconds": self._seconds,
        }
        text = json.dumps(record)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, text)

    def spend(self, stage: str) -> None:
        """Count the time since the last call, or since the start, as a stage's, and save."""
        now = time.monotonic()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._since
        self._since = now
        self.save()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each stage and their total, of all drivers; what one had not saved is lost with it."""
        return {**self._seconds, "total": sum(self._seconds.values())}


def _metrics(confusion: list[list[int]]) -> Metrics:
    return Metrics(tuple(tuple(row) for row in confusion))
