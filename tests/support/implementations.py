"""The project's own entries of the registry as what workers are given."""

from search_spaces.entry import Kind
from search_spaces.registry import entry, names
from trainables.implementation import Implementation


def own(kind: Kind) -> list[Implementation]:
    """Return all entries of a kind, in their order."""
    return [
        Implementation(name=name, address=entry(kind, name).implementation)
        for name in names(kind)
        if entry(kind, name).source is None
    ]
