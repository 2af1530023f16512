"""Rules of the values of keys; rules of names read the registry, to which users' files can add entries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from search_spaces import registry
from search_spaces.entry import Kind
from search_spaces.name_lists import is_list_of

__all__ = ["Plain", "Registered", "RegisteredSets", "Rule", "list_text"]


class Rule(Protocol):
    """The rule that values of a key obey."""

    @property
    def text(self) -> str:
        """The rule in words, for messages."""

    def holds(self, value: Any) -> bool:
        """Return whether a value of the key's type obeys the rule."""


class Plain(NamedTuple):
    """A rule that does not depend on the registry."""

    text: str
    test: Callable[[Any], bool]

    def holds(self, value: Any) -> bool:
        """Return whether a value obeys the rule."""
        return self.test(value)


@dataclass(frozen=True)
class Registered:
    """The value is a registered name of this kind."""

    kind: Kind

    @property
    def text(self) -> str:
        """The currently registered names, for messages."""
        return f"({' or '.join(registry.names(self.kind))})"

    def holds(self, value: Any) -> bool:
        """Return whether a value is a registered name."""
        return value in registry.names(self.kind)


@dataclass(frozen=True)
class RegisteredSets:
    """The value is a list of registered names of sets, joined by commas."""

    kinds: tuple[Kind, ...]

    @property
    def text(self) -> str:
        """The currently registered names, for messages."""
        return list_text(registry.compared(*self.kinds))

    def holds(self, value: Any) -> bool:
        """Return whether a value is such a list."""
        return is_list_of(value, registry.compared(*self.kinds))


def list_text(known: tuple[str, ...]) -> str:
    """Return the rule of a list of known names, in words."""
    return f"(all, none, or different names of {', '.join(known)} joined by commas)"
