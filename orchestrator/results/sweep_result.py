"""The result of a finished sweep: its winner, images, tables and report, read from the sweep's folder."""

import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from orchestrator.results.entries import PAPER_SETTING, RANDOM_REAL, WINNER
from orchestrator.results.result_json import require_finished
from orchestrator.state.looking import fetch
from orchestrator.state.settings import SweepSettings

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.data.synthetic import SyntheticSet

__all__ = ["Accuracy", "Report", "SweepResult", "Winner", "read_result"]

PAGE_HEIGHT = 800
"""Height of the report in a notebook, in pixels."""


class Accuracy(NamedTuple):
    """Accuracy on the test split over networks trained on one set."""

    mean: float
    std: float
    networks: int

    def __str__(self) -> str:
        """Return mean ± standard deviation; one network has no deviation."""
        return f"{self.mean:.3f} ± {self.std:.3f}" if self.networks > 1 else f"{self.mean:.3f}"


@dataclass(frozen=True, kw_only=True)
class Winner:
    """The best trial of a sweep."""

    trial: str
    settings: Mapping[str, Any]
    """The settings that the space searched, by key."""
    accuracy: Accuracy
    reference: Accuracy | None
    """Accuracy of the reference setting, trial 0; None: it has no set."""
    random_real: Accuracy
    """Accuracy of as many random real images."""
    difference: float | None
    """Mean accuracy of the winner less the reference's; None: the winner is the reference, or that has no set."""
    p: float | None
    """Holm-corrected p of the difference; None: it was not tested."""

    def __str__(self) -> str:
        """Return settings and accuracies in a few lines."""
        settings = ", ".join(f"{key} = {value}" for key, value in self.settings.items())
        lines = [
            f"{self.trial}: accuracy {self.accuracy} on the test split ({self.accuracy.networks} networks)",
            f"  settings: {settings or 'the space searches none'}",
        ]
        if self.reference is not None:
            lines.append(f"  reference setting (trial 0): {self.reference}{self._difference()}")
        lines.append(f"  random real images: {self.random_real}")
        return "\n".join(lines)

    def _difference(self) -> str:
        if self.difference is None:
            return "; the winner's set reaches the same"
        chance = "too few networks to test" if self.p is None else f"Holm-corrected p = {self.p:.2g}"
        return f"; the difference is {self.difference:+.3f} ({chance})"


@dataclass(frozen=True)
class Report:
    """The report as one HTML file, which a notebook displays."""

    path: Path

    def __fspath__(self) -> str:
        """Return the file's path."""
        return os.fspath(self.path)

    def __str__(self) -> str:
        """Return the file's path."""
        return str(self.path)

    def _repr_html_(self) -> str:
        """Return the page in its own frame, so that its styles do not change the notebook's."""
        page = html.escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{page}" width="100%" height="{PAGE_HEIGHT}"></iframe>'


@dataclass(frozen=True, kw_only=True, repr=False)
class SweepResult:
    """A finished sweep."""

    settings: SweepSettings
    """The sweep's settings."""
    record: Mapping[str, Any]
    """The content of result.json."""

    def __repr__(self) -> str:
        """Return the sweep's name and folder."""
        return f"<SweepResult {self.name!r} in {self.path}>"

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.settings.name

    @property
    def path(self) -> Path:
        """The sweep's folder on this machine."""
        return self.settings.places.folder

    @property
    def winner(self) -> Winner:
        """The best trial, and the accuracy of its set."""
        best, finals = self.record["best"], self.record["finals"]
        differences = {entry["b"]: entry for entry in self.record["comparisons"]}  # all are the winner's
        difference = differences.get(PAPER_SETTING)
        return Winner(
            trial=best["trial"],
            settings={key: best["config"][key] for key in self.settings.space.varied},
            accuracy=_accuracy(finals[WINNER]),
            reference=_accuracy(finals[PAPER_SETTING]) if PAPER_SETTING in finals else None,
            random_real=_accuracy(finals[RANDOM_REAL]),
            difference=difference["difference"] if difference else None,
            p=difference["p_holm"] if difference else None,
        )

    @cached_property
    def synthetic(self) -> "SyntheticSet":
        """The winner's set: images, labels, learning rate, normalisation and provenance."""
        from trainables.data.synthetic import read_synthetic

        return read_synthetic(self._file("synthetic"))

    @property
    def images(self) -> "Tensor":
        """The winner's images, normalised, float32 [ipc·C, ch, H, W]; image i is of class i // ipc."""
        return self.synthetic.images

    @property
    def labels(self) -> "Tensor":
        """Their labels, int64 [ipc·C], or soft labels, float32 [ipc·C, C]."""
        return self.synthetic.labels

    @property
    def trials(self) -> pd.DataFrame:
        """A row a trial: id, status, number, every setting, accuracy at each rung, iterations, seconds, reason."""
        return pd.read_parquet(self._file("trials"))

    @property
    def finals(self) -> pd.DataFrame:
        """A row a protocol, set and network: accuracy, macro-F1, macro-recall and confusion on the test split."""
        return pd.read_parquet(self._file("finals"))

    @property
    def comparisons(self) -> pd.DataFrame:
        """A row a set: the winner's difference in accuracy from it, with interval, test and Holm-corrected p."""
        return pd.DataFrame(self.record["comparisons"])

    @property
    def report(self) -> Report:
        """The report."""
        return Report(self._file("page"))

    def _file(self, label: str) -> Path:
        name: str = self.record["files"][label]
        return self.path / name


def read_result(settings: SweepSettings) -> SweepResult:
    """Return the result of a finished sweep; a workdir at a URI is fetched first.

    Raises:
        UserError: The sweep is not finished.
    """
    fetch(settings.places)
    return SweepResult(settings=settings, record=require_finished(settings))


def _accuracy(summaries: Mapping[str, Any]) -> Accuracy:
    summary = summaries["accuracy"]
    return Accuracy(summary["mean"], summary["std"], summary["n"])
