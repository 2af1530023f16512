"""Checks that all configs share; a message states the rule and the value."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

from trainables.errors import ConfigError

__all__ = [
    "FromSettings",
    "require",
    "require_count",
    "require_fraction",
    "require_not_negative",
    "require_positive",
    "require_whole",
]


def require(rule: bool, message: str) -> None:
    """Raise a ConfigError with this message unless the rule holds."""
    if not rule:
        raise ConfigError(message)


def require_positive(config: object, *names: str) -> None:
    """Refuse fields that are not finite numbers larger than 0."""
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value > 0, f"{name} must be larger than 0 and finite, not {value}")


def require_count(config: object, *names: str) -> None:
    """Refuse fields that are not whole numbers of at least 1."""
    for name in names:
        value = getattr(config, name)
        require(type(value) is int and value >= 1, f"{name} must be a whole number of at least 1, not {value!r}")


def require_whole(config: object, *names: str) -> None:
    """Refuse fields that are not whole numbers of at least 0."""
    for name in names:
        value = getattr(config, name)
        require(type(value) is int and value >= 0, f"{name} must be a whole number of at least 0, not {value!r}")


def require_not_negative(config: object, *names: str) -> None:
    """Refuse fields that are not finite numbers of at least 0."""
    for name in names:
        value = getattr(config, name)
        require(math.isfinite(value) and value >= 0, f"{name} must be at least 0 and finite, not {value}")


def require_fraction(config: object, *names: str) -> None:
    """Refuse fields that do not lie in [0, 1)."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < 1, f"{name} must lie in [0, 1), not {value}")


class FromSettings:
    """A config whose fields are among the keys of a flat mapping."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build from a flat mapping that holds at least every field's name; other keys are ignored.

        Raises:
            KeyError: A field's name is missing.
            ConfigError: A value is invalid.
        """
        return cls(**{field.name: settings[field.name] for field in fields(cls)})  # type: ignore[arg-type]
