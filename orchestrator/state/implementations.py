"""Implementations of the names in a space, in a form that any node can load."""

from search_spaces import Space
from search_spaces.entry import Entry, Kind
from trainables.implementation import Implementation

__all__ = ["implementation", "implementations"]


def implementation(space: Space, kind: Kind, name: str) -> Implementation:
    """Return the implementation of a name.

    Raises:
        SpaceError: No implementation of this kind has that name.
    """
    return _as_implementation(space.entry(kind, name))


def implementations(space: Space, kind: Kind) -> list[Implementation]:
    """Return all implementations of a kind that the space uses."""
    return [_as_implementation(entry) for entry in space.used(kind)]


def _as_implementation(entry: Entry) -> Implementation:
    return Implementation(name=entry.name, address=entry.implementation, source=entry.source)
