"""A space as plain data, so that a sweep can be gone on with without executing the file that its space came from."""

from collections.abc import Mapping
from typing import Any

from search_spaces.dimensions import Choice, Fixed, Integer, Real, SpaceError
from search_spaces.space import Space

__all__ = ["from_record", "to_record"]

_KINDS = {kind.__name__: kind for kind in (Integer, Real, Choice, Fixed)}


def to_record(space: Space) -> dict[str, Any]:
    """Return a space, with all that was overridden, as what JSON knows."""
    return {
        "name": space.name,
        "title": space.title,
        "dataset": space.dataset,
        "reference": space.reference,
        "parameters": {
            name: {"kind": type(dimension).__name__, **vars(dimension)} for name, dimension in space.parameters.items()
        },
        "variants": {name: dict(settings) for name, settings in space.variants.items()},
    }


def from_record(record: Mapping[str, Any]) -> Space:
    """Return the space that `to_record` described; it is checked as any other.

    Raises:
        SpaceError: The record describes none.
    """
    try:
        parameters = {}
        for name, written in record["parameters"].items():
            values = dict(written)
            bounds = [values.pop(key) for key in ("low", "high", "options", "value") if key in values]
            parameters[name] = _KINDS[values.pop("kind")](*bounds, **values)
        words = {key: record[key] for key in ("name", "title", "dataset", "reference")}
        return Space(**words, parameters=parameters, variants=record["variants"])
    except (KeyError, TypeError, AttributeError) as error:
        raise SpaceError(f"this is no record of a space: {error}") from error
