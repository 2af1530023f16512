"""What a sweep that has not finished is doing, or was doing when it ended: `under_way` of result.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

__all__ = ["StageAtWork", "UnderWay", "text_of_time"]


@dataclass(frozen=True, kw_only=True)
class StageAtWork:
    """One stage, and how far it is."""

    name: str
    """What is done, as messages call it: start, experts, search, finals (distillations), finals (networks), report."""
    since: datetime
    """When this driver began it."""
    unit: str = ""
    """What `done` and `total` count: epochs, trials, networks; empty where nothing is counted."""
    done: int = 0
    total: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    """Distillation iterations done by the trials that run now, by name."""
    iterations: int = 0
    """Distillation iterations of a trial that is not stopped; 0 where nothing is distilled."""
    rate: float | None = None
    """Of this driver's work: iterations a second where something is distilled, else units a second; None: not known."""
    seconds_left: float | None = None
    """Estimate for the stage, s; None: not known."""
    seconds_left_in_all: float | None = None
    """Estimate for the stage and all after it, s; None: not known."""


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A stage, and the facts of the driver that works, or worked, at it."""

    stage: StageAtWork
    begun: datetime
    """When this driver began."""
    written: datetime
    """When this was written."""
    reason: str = ""
    """Why the sweep stopped or failed; empty while it runs."""

    def to_json(self) -> dict[str, Any]:
        """Return `under_way` of result.json; times are in UTC, in ISO 8601."""
        stage = asdict(self.stage)
        name, since = stage.pop("name"), stage.pop("since")
        times = {"since": since, "begun": self.begun, "written": self.written}
        return {
            "stage": name,
            **{what: text_of_time(moment) for what, moment in times.items()},
            **stage,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "UnderWay":
        """Return what `to_json` returned.

        Raises:
            KeyError: A part is missing.
            ValueError: A time is not in ISO 8601.
        """
        facts = ("unit", "done", "total", "running", "iterations", "rate", "seconds_left", "seconds_left_in_all")
        return cls(
            stage=StageAtWork(
                name=content["stage"],
                since=datetime.fromisoformat(content["since"]),
                **{name: content[name] for name in facts},
            ),
            begun=datetime.fromisoformat(content["begun"]),
            written=datetime.fromisoformat(content["written"]),
            reason=content["reason"],
        )


def text_of_time(moment: datetime) -> str:
    """Return a moment in UTC, in ISO 8601 to a second."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")
