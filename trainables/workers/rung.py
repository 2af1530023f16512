"""The report of a trial at a rung.

Ray Tune carries a report as a dict: a trial writes it by `RungResult.to_report` and `RungPictures.add_to`, and the
driver reads it by `RungResult.from_report` and `RungPictures.take_from`. No other code knows the keys.
"""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

__all__ = ["Halted", "RungPictures", "RungResult", "SettingsFailed"]

_LOGGED = {"logged": True}
_KEPT = {"logged": True, "kept": True}


@dataclass(frozen=True)
class SettingsFailed:
    """The settings are invalid or diverge; the trial is over."""

    reason: str


@dataclass(frozen=True)
class Halted:
    """The trial cannot continue for a cause outside of it; it can be resumed once that is removed."""

    remedy: str


@dataclass(frozen=True, kw_only=True)
class RungPictures:
    """The synthetic images of a rung as contents of files, drawn by the trial's worker, which has the images."""

    _KEY: ClassVar[str] = "pictures"

    png: bytes
    webp: bytes
    """A small one, for overviews."""

    def add_to(self, report: MutableMapping[str, Any]) -> None:
        """Put the pictures into a report."""
        report[self._KEY] = self

    @classmethod
    def take_from(cls, report: MutableMapping[str, Any]) -> "RungPictures | None":
        """Remove the pictures from a report, and return them; None: it has none.

        They are removed because Tune keeps the last report of every trial in memory.
        """
        pictures: RungPictures | None = report.pop(cls._KEY, None)
        return pictures


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """One report of a trial: the figures of a rung, or why there are none.

    A figure that the trial's method or device does not have is None. The metadata of a figure says whether it is
    `logged` to MLflow and `kept` in the study.
    """

    METRIC: ClassVar[str] = "validation_accuracy"
    """The figure that the search maximises, by its name in a report."""
    TIME: ClassVar[str] = "iteration"
    """The figure that counts a trial's progress, by its name in a report."""

    iteration: int
    """Distillation iterations done."""
    validation_accuracy: float = field(metadata=_LOGGED)
    """Share of the validation split, in [0, 1]; NaN where `end` is set, because Tune accepts no report without it."""
    matching_loss: float | None = field(default=None, metadata=_KEPT)
    """Mean of the rung's finite losses of trajectory matching."""
    distribution_loss: float | None = field(default=None, metadata=_KEPT)
    """The same of distribution matching."""
    gradient_loss: float | None = field(default=None, metadata=_KEPT)
    """The same of gradient matching."""
    alpha: float | None = field(default=None, metadata=_KEPT)
    """Learned step size."""
    skip_rate: float | None = field(default=None, metadata=_KEPT)
    """Share of the rung's iterations whose update was skipped, in [0, 1]."""
    image_displacement: float | None = field(default=None, metadata=_KEPT)
    """How far the images are from the initial ones."""
    label_inconsistency: float | None = field(default=None, metadata=_KEPT)
    """Of soft labels."""
    not_finite_rate: float | None = field(default=None, metadata=_LOGGED)
    """Share of the rung's iterations whose update was not finite, in [0, 1]."""
    floor_rate: float | None = field(default=None, metadata=_LOGGED)
    """Share of the rung's iterations in which alpha was held at its floor, in [0, 1]."""
    upper_bound_epochs: int | None = field(default=None, metadata=_LOGGED)
    """Upper bound of the start epochs in the rung's last iteration."""
    micro_batch_images: int | None = field(default=None, metadata=_LOGGED)
    """Images that a gradient takes at a time."""
    seconds_per_iteration: float | None = field(default=None, metadata=_LOGGED)
    """Mean over the rung."""
    trial_seconds: float | None = field(default=None, metadata=_LOGGED)
    """Time that the trial has run so far, in all its processes."""
    peak_memory_mib: float | None = field(default=None, metadata=_LOGGED)
    """Of a GPU: the most that the trial's tensors took."""
    resident_memory_mib: float | None = field(default=None, metadata=_LOGGED)
    """Of a CPU: what the process holds."""
    done: bool = False
    """Whether the trial has nothing left to do, for Tune; Tune sets it too when it stops a trial."""
    end: SettingsFailed | Halted | None = None
    """Why the trial stops without the figures of a rung; None: this is a rung."""

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> "RungResult":
        """Return the result that a report of Tune holds; keys that Tune added are ignored.

        Raises:
            KeyError: The iteration or the validation accuracy is missing.
        """
        end: SettingsFailed | Halted | None = None
        if "failed" in report:
            end = SettingsFailed(report["failed"])
        elif "halted" in report:
            end = Halted(report["halted"])
        required = {name: report[name] for name in (cls.TIME, cls.METRIC)}
        names = {figure.name for figure in fields(cls)} - {"end"}
        others = {name: value for name, value in report.items() if name in names}
        return cls(**{**required, **others}, end=end)

    def to_report(self) -> dict[str, Any]:
        """Return the dict that Tune carries; figures that are None are left out."""
        values = {figure.name: getattr(self, figure.name) for figure in fields(self) if figure.name != "end"}
        report = {name: value for name, value in values.items() if value is not None}
        match self.end:
            case SettingsFailed(reason):
                report["failed"] = reason
            case Halted(remedy):
                report["halted"] = remedy
        return report

    @property
    def logged(self) -> dict[str, float]:
        """The figures that are logged to MLflow, by metric name."""
        return self._with("logged")

    @property
    def kept(self) -> dict[str, float]:
        """The figures of a trial's last rung that the study keeps besides its accuracy, by name."""
        return self._with("kept")

    def finishes(self, iterations: int) -> bool:
        """Return whether this is the last rung of a trial of `iterations` iterations."""
        return self.end is None and self.iteration >= iterations

    def _with(self, mark: str) -> dict[str, float]:
        values = {figure.name: getattr(self, figure.name) for figure in fields(self) if figure.metadata.get(mark)}
        return {name: value for name, value in values.items() if value is not None}
