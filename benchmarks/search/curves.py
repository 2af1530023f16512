"""Recorded curves, and their Parquet files: a row for every rung of every distillation."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainables.storage.atomic import write_atomically

__all__ = ["RECORDED", "Curve", "Rung", "curve_from_json", "read_curves", "write_curves"]

RECORDED = Path(__file__).parent / "recorded"
"""The curves that are committed."""
VERSION = b"1"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What was measured at a rung."""

    iteration: int
    accuracies: tuple[float, ...]
    """Validation accuracy of each network."""
    matching_loss: float
    """Mean over the rung's iterations."""
    skip_rate: float
    seconds: float
    """Time of a core that the distillation has taken so far, its validations included, s."""

    @property
    def accuracy(self) -> float:
        """Mean over the networks."""
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One distillation of a setting."""

    number: int
    """Number of the setting: its place among the space's points of the same kind."""
    around: bool
    """Whether the setting lies around a good one; else it is one of the Sobol set."""
    settings: dict[str, int | float]
    repeat: int
    """Which of the setting's distillations: they differ in their seed."""
    rungs: tuple[Rung, ...]
    """Fewer than all where the distillation failed."""
    failed: str = ""
    """Why it failed; empty: it did not."""
    seconds: float
    """Time of a core that the whole distillation took, s."""


def curve_from_json(content: dict[str, Any]) -> Curve:
    """Return a curve from what `dataclasses.asdict` made of it."""
    rungs = tuple(Rung(**{**rung, "accuracies": tuple(rung["accuracies"])}) for rung in content["rungs"])
    return Curve(**{**content, "rungs": rungs})


def write_curves(file: Path, curves: Iterable[Curve], space: str) -> None:
    """Write curves to a Parquet file; a failed one without rungs has one row without a measurement.

    Args:
        file: The file.
        curves: The curves; their settings have the same names.
        space: Name of the space and what was overridden, for the file's metadata.
    """
    rows = []
    for curve in sorted(curves, key=lambda curve: (curve.around, curve.number, curve.repeat)):
        of_curve = {
            **{f"set_{name}": value for name, value in curve.settings.items()},
            "number": curve.number, "around": curve.around, "repeat": curve.repeat, "failed": curve.failed,
            "curve_seconds": curve.seconds,
        }  # fmt: skip
        none: dict[str, Any] = {
            "iteration": None,
            "accuracies": None,
            "matching_loss": None,
            "skip_rate": None,
            "seconds": None,
        }
        measured: list[dict[str, Any]] = [
            {
                "iteration": rung.iteration, "accuracies": list(rung.accuracies), "matching_loss": rung.matching_loss,
                "skip_rate": rung.skip_rate, "seconds": rung.seconds,
            }
            for rung in curve.rungs
        ]  # fmt: skip
        rows += [of_curve | rung for rung in measured or [none]]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({b"version": VERSION, b"space": space.encode()})

    def write(path: Path) -> None:
        pq.write_table(table, path, compression="zstd", compression_level=19)

    write_atomically(file, write)


def read_curves(file: Path) -> list[Curve]:
    """Return the curves of a Parquet file, in its order.

    Raises:
        ValueError: The file has another version.
    """
    table = pq.read_table(file)
    if (table.schema.metadata or {}).get(b"version") != VERSION:
        raise ValueError(f"{file} is not a file of recorded curves of version {VERSION.decode()}")
    curves: dict[tuple[bool, int, int], Curve] = {}
    for row in table.to_pylist():
        key = (row["around"], row["number"], row["repeat"])
        earlier = curves[key].rungs if key in curves else ()
        rung = () if row["iteration"] is None else (
            Rung(
                iteration=row["iteration"], accuracies=tuple(row["accuracies"]), matching_loss=row["matching_loss"],
                skip_rate=row["skip_rate"], seconds=row["seconds"],
            ),
        )  # fmt: skip
        curves[key] = Curve(
            number=row["number"], around=row["around"], repeat=row["repeat"], failed=row["failed"],
            settings={name.removeprefix("set_"): value for name, value in row.items() if name.startswith("set_")},
            rungs=(*earlier, *rung), seconds=row["curve_seconds"],
        )  # fmt: skip
    return list(curves.values())
