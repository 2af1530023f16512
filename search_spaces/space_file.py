"""The text of a Python file that sets SPACE: a space that its reader is to change."""

from collections.abc import Sequence
from dataclasses import fields

from search_spaces.dimensions import Dimension, SpaceError, Value, is_word
from search_spaces.space import Space
from search_spaces.vocabulary import DEFAULTS

__all__ = ["name_of_file", "space_text"]

LINE = 120
"""Characters of a line; longer ones are broken as formatters do it."""


def space_text(space: Space, heading: Sequence[str], *, keys: Sequence[str] | None = None) -> str:
    """Return the text of a file that `search_spaces.load` reads as this space.

    Args:
        space: A search.
        heading: The file's docstring, line by line; the first is its summary.
        keys: The keys that the file sets, in this order; None: those that differ from their defaults.
    """
    dimensions = space.parameters
    chosen = [key for key in dimensions if dimensions[key].values != (DEFAULTS.get(key),)] if keys is None else keys
    kinds = sorted({type(dimensions[key]).__name__ for key in chosen})
    docstring = "\n".join(line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in heading)
    words = [f"    {field}={_literal(getattr(space, field))}," for field in ("name", "title", "dataset", "reference")]
    lines = [
        f'"""{docstring}\n"""' if len(heading) > 1 else f'"""{docstring}"""',
        "",
        f"from search_spaces import {', '.join([*kinds, Space.__name__])}",
        "",
        "SPACE = Space(",
        *words,
        "    parameters={",
        *(line for key in chosen for line in _parameter(key, dimensions[key])),
        "    },",
        ")",
    ]
    return "\n".join(lines) + "\n"


def name_of_file(stem: str) -> str:
    """Return the name of the space in a file with this stem.

    Raises:
        SpaceError: The stem is no name of a space.
    """
    if not is_word(stem):
        raise SpaceError(f"the name of a space's file must be letters, digits, '_', '-' and '.', not {stem!r}")
    return stem


def _parameter(key: str, dimension: Dimension) -> list[str]:
    """Return the lines of a parameter, broken where they are too long: arguments on one line, else on one each."""
    kind, arguments = type(dimension).__name__, _arguments(dimension)
    joined = ", ".join(arguments)
    if len(whole := f'        "{key}": {kind}({joined}),') <= LINE:
        return [whole]
    inner = [f"            {joined}"]
    if len(inner[0]) > LINE:
        inner = [f"            {argument}," for argument in arguments]
    return [f'        "{key}": {kind}(', *inner, "        ),"]


def _arguments(dimension: Dimension) -> list[str]:
    """Return the arguments of a dimension's constructor; those that have their default are left out."""
    given = []
    for field in fields(dimension):
        value = getattr(dimension, field.name)
        if field.name in ("low", "high", "options", "value"):
            given.append(_literal(value))
        elif value != field.default:
            given.append(f"{field.name}={_literal(value)}")
    return given


def _literal(value: Value | tuple[Value, ...]) -> str:
    """Return a value as Python text, strings in double quotes."""
    if isinstance(value, tuple):
        inner = ", ".join(map(_literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if not isinstance(value, str) or '"' in value:
        return repr(value)
    return '"' + repr(value)[1:-1].replace("\\'", "'") + '"'
