"""What was measured of a sweep's trials on one type of GPU."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["GpuFigures"]


@dataclass(frozen=True, kw_only=True)
class GpuFigures:
    """The memory and the time of the space's largest trial."""

    gpu: str
    """Name of the GPU."""
    gpu_bytes: int
    """Total memory of the GPU."""
    trial_bytes: int
    """Peak GPU memory of a trial's process, including its context."""
    seconds: Mapping[int, float]
    """Seconds of the GPU for an iteration, by trials at once: the time of theirs, divided by their number."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "GpuFigures":
        """Return the figures that `to_json` wrote."""
        seconds = {int(trials): float(each) for trials, each in content["seconds"].items()}
        return cls(**{**content, "seconds": seconds})

    def to_json(self) -> dict[str, Any]:
        """Return the figures in values that JSON can represent."""
        return {**asdict(self), "seconds": {str(trials): each for trials, each in self.seconds.items()}}
