"""Registry of the names in a space: coresets, other baselines, distillation methods, datasets and networks.

An entry has the address of its implementation, which is imported only when it is used, so this module needs no torch.
docs/design/extensions.md.
"""

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from search_spaces.dimensions import SpaceError, is_word
from search_spaces.entry import MAKE_SETS, Entry, Kind
from search_spaces.nearest import nearest
from search_spaces.own_entries import OWN

__all__ = ["compared", "entry", "folder_of_files", "label", "names", "register", "restore"]


_entries: dict[tuple[Kind, str], Entry] = {(own.kind, own.name): own for own in OWN}
_folder: ContextVar[Path] = ContextVar("_folder", default=Path())


def names(*kinds: Kind) -> tuple[str, ...]:
    """Return the names of these kinds, kind by kind, in the order in which they were registered."""
    return tuple(entry.name for kind in kinds for entry in _of(kind))


def compared(*kinds: Kind) -> tuple[str, ...]:
    """Return the names of these kinds' sets in comparisons, in the same order."""
    return tuple(entry.sets_name for kind in kinds for entry in _of(kind))


def entry(kind: Kind, name: str) -> Entry:
    """Return an entry.

    Raises:
        SpaceError: There is none of that name; the message has the nearest one.
    """
    if (kind, name) not in _entries:
        raise SpaceError(f"unknown {kind} {name}; {nearest(name, names(kind))}")
    return _entries[kind, name]


def label(name: str) -> str | None:
    """Return the label in reports of the sets of this name; None if no entry makes them."""
    return next(
        (entry.label for entry in _entries.values() if entry.sets_name == name and entry.kind in MAKE_SETS), None
    )


def register(kind: Kind | str, name: str, *, label: str, implementation: str, page: str = "") -> Entry:
    """Add a user's entry; call it in the file of a space, before the space.

    Args:
        kind: coreset, baseline, method, dataset or network.
        name: Name in spaces.
        label: Name in reports.
        implementation: `file.py:attribute`, relative to the file of the space. It may import packages that are
            installed on every node, but no other file of the user, because only its own content is stored.
        page: Its documentation.

    Returns:
        The entry.

    Raises:
        SpaceError: The name is taken or cannot be one, or the file does not define the attribute.
    """
    if kind not in tuple(Kind):
        raise SpaceError(f"kind of an entry must be one of {', '.join(Kind)}, not {kind!r}")
    kind = Kind(kind)
    if not is_word(name) or name in ("all", "none"):
        raise SpaceError(f"name of a {kind} must be letters, digits, '_', '-' and '.', and not all or none: {name!r}")
    if not label.strip() or len(label.splitlines()) > 1:
        raise SpaceError(f"label of the {kind} {name} must be one line of text, not {label!r}")
    new = Entry(
        kind=kind, name=name, label=label, implementation=implementation, page=page,
        source=_read(implementation, f"{kind} {name}"),
    )  # fmt: skip
    taken = _entries.get((kind, name)) or next(
        (entry for entry in _entries.values() if {kind, entry.kind} <= set(MAKE_SETS) and entry.sets_name == name),
        None,
    )
    if taken is not None and taken != new:
        raise SpaceError(f"the name {name} is that of a {taken.kind} already ({taken.label}); choose another")
    _entries[kind, name] = new
    return new


def restore(entries: Iterable[Entry]) -> None:
    """Add the user's entries of a stored space; they replace other entries of the same kind and name."""
    for entry in entries:
        _entries[entry.kind, entry.name] = entry


@contextmanager
def folder_of_files(folder: Path) -> Iterator[None]:
    """Make `register` resolve files relative to a folder."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def _of(kind: Kind) -> list[Entry]:
    return [entry for entry in _entries.values() if entry.kind == kind]


def _read(implementation: str, what: str) -> str:
    """Return the content of a file that defines an attribute at its top level; the file is not executed."""
    name, colon, attribute = implementation.rpartition(":")
    if not colon or not name.endswith(".py") or not attribute.isidentifier():
        raise SpaceError(f"implementation of the {what} must be file.py:attribute, not {implementation!r}")
    path = _folder.get() / name
    try:
        source = path.read_text(encoding="utf-8")
        defined = {name for node in ast.parse(source).body for name in _names_of(node)}
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"implementation of the {what}: {path} cannot be read ({error}); correct the path") from error
    except SyntaxError as error:
        raise SpaceError(f"implementation of the {what}: {path}:{error.lineno}: {error.msg}") from error
    if attribute not in defined:
        raise SpaceError(f"implementation of the {what}: {path} defines no {attribute}; {nearest(attribute, defined)}")
    return source


def _names_of(node: ast.stmt) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []
