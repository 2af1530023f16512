"""An entry of the registry: a name, and the facts about it that need no import of its implementation."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["MAKE_SETS", "REAL_SETS", "Entry", "Kind"]


class Kind(StrEnum):
    """Kind of an entry; `trainables` defines the interface of each kind."""

    CORESET = "coreset"
    """Chooses real images: `trainables.baselines.coresets.evidence.Coreset`."""
    BASELINE = "baseline"
    """Makes a set of images without distillation: `trainables.baselines.materials.Baseline`."""
    METHOD = "method"
    """Distils: `trainables.distillation.methods.Method`."""
    DATASET = "dataset"
    """Provides images: `trainables.data.published.Dataset`."""
    NETWORK = "network"
    """Classifies: `trainables.networks.network.Network`."""


REAL_SETS = (Kind.CORESET, Kind.BASELINE)
"""Kinds that make the sets with which a distilled set is compared."""
MAKE_SETS = (*REAL_SETS, Kind.METHOD)
"""Kinds that make sets of a comparison; the names of their sets are distinct."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name of the registry."""

    kind: Kind
    name: str
    label: str
    """Name in reports."""
    implementation: str
    """`package.module:attribute`, or `file.py:attribute` if the entry has a source."""
    page: str = ""
    """Documentation file in the project; a user's entry may have none."""
    compared_as: str = ""
    """Name of a method's sets in comparisons; empty: its name."""
    source: str | None = None
    """Content of the file of a user's entry, which any node can load; None: an entry of the project."""

    @property
    def sets_name(self) -> str:
        """Name of its sets in comparisons."""
        return self.compared_as or self.name
