"""A space as plain data, so that a sweep can be resumed without executing the file of its space."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from search_spaces.comparison import Comparison
from search_spaces.dimensions import Choice, Fixed, Integer, Real, SpaceError
from search_spaces.entry import Entry, Kind
from search_spaces.space import Space
from search_spaces.study import Study

__all__ = ["from_record", "to_record"]

_DIMENSIONS = {kind.__name__: kind for kind in (Integer, Real, Choice, Fixed)}
_ENTRIES = {kind.value: kind for kind in Kind}
_SPACES: dict[str, type[Space]] = {kind.__name__: kind for kind in (Space, Study, Comparison)}


def to_record(space: Space) -> dict[str, Any]:
    """Return a space, including its overrides, as values that JSON can represent."""
    record = {
        "kind": type(space).__name__,
        "name": space.name,
        "title": space.title,
        "dataset": space.dataset,
        "reference": space.reference,
        "parameters": {
            name: {"kind": type(dimension).__name__, **vars(dimension)} for name, dimension in space.parameters.items()
        },
        **({"extensions": [asdict(entry) for entry in space.extensions]} if space.extensions else {}),
    }
    if isinstance(space, Study):
        record["variants"] = {name: dict(settings) for name, settings in space.variants.items()}
    return record


def from_record(record: Mapping[str, Any]) -> Space:
    """Return the space of a record made by `to_record`; it is checked like any other space.

    Raises:
        SpaceError: The record does not describe a space.
    """
    try:
        parameters = {}
        for name, written in record["parameters"].items():
            values = dict(written)
            bounds = [values.pop(key) for key in ("low", "high", "options", "value") if key in values]
            parameters[name] = _DIMENSIONS[values.pop("kind")](*bounds, **values)
        words = {key: record[key] for key in ("name", "title", "dataset", "reference")}
        extensions = tuple(
            Entry(**{**entry, "kind": _ENTRIES[entry["kind"]]}) for entry in record.get("extensions", ())
        )
        kind = _SPACES[record["kind"]] if "kind" in record else _kind_before(record)
        variants = {"variants": record["variants"]} if issubclass(kind, Study) else {}
        return kind(**words, parameters=parameters, extensions=extensions, **variants)
    except (KeyError, TypeError, AttributeError) as error:
        raise SpaceError(f"this is no record of a space: {error}") from error


def _kind_before(record: Mapping[str, Any]) -> type[Space]:
    """Return the kind of a space whose record was written by a release that did not record it."""
    if not record["variants"]:
        return Space
    return Study if record["parameters"]["ipcs"]["value"] == "none" else Comparison
