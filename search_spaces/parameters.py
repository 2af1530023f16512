"""A parameter of a space, checked against the vocabulary."""

from dataclasses import replace

from search_spaces.dimensions import Choice, Dimension, Fixed, Integer, Real, SpaceError
from search_spaces.vocabulary import Key

__all__ = ["complete_parameter"]


def complete_parameter(entry: Key, dimension: object) -> Dimension:
    """Return `dimension`, or the default as a Fixed, with every value checked and converted to the key's type.

    Raises:
        SpaceError: if there is no default, a value breaks the key's rule, or the key cannot be searched so.
    """
    match dimension:
        case None:
            if entry.default is None:
                raise SpaceError(f"{entry.name} ({entry.meaning}) has no default; give it a value")
            return Fixed(entry.default, source=entry.source)
        case Fixed():
            return replace(dimension, value=entry.check(dimension.value))
        case Integer() | Real() | Choice() if not entry.searchable:
            raise SpaceError(f"{entry.name} is the same in all trials of a sweep, not {dimension}; make it Fixed")
        case Choice():
            options = tuple(entry.check(option) for option in dimension.options)
            return replace(dimension, options=options, first=entry.check(dimension.first))
        case Integer() | Real():
            required = Integer if entry.kind is int else Real
            if not isinstance(dimension, required):
                raise SpaceError(f"{entry.name} must be searched as {required.__name__}, not {dimension!r}")
            for value in dimension.values:
                entry.check(value)
            return dimension
        case _:
            raise SpaceError(f"{entry.name} must be Integer, Real, Choice or Fixed, not {dimension!r}; write Fixed(…)")
