"""The space of a sweep: loaded, with a preset's rules, overrides and options applied."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from search_spaces import Space, load
from search_spaces.presets import preset as find_preset

__all__ = ["default_name", "load_space"]


def load_space(
    space: str | Path | Space,
    overrides: Mapping[str, Any],
    preset: str | None = None,
    **options: int | str | Sequence[int | str] | None,
) -> Space:
    """Load a space, apply a preset's rules, and then the overrides and the options that are not None.

    Args:
        space: The name of a registered space, the path of a Python file, or a space.
        overrides: Values by key of the space, as `--set` takes them; text is read as the key's type.
        preset: The method whose rules are applied first.
        options: Values of keys that have command-line options of their own, such as trials=8 or ipcs=(1, 5); None
            leaves the key as it is.

    Raises:
        SpaceError: The space, the preset or a key is unknown, or a value is invalid.
    """
    loaded = space if isinstance(space, Space) else load(space)
    if preset is not None:
        loaded = loaded.override(find_preset(preset).rules, source=f"--preset {preset}")
    settings = {**overrides, **{key: _plain(value) for key, value in options.items() if value is not None}}
    return loaded.override(settings) if settings else loaded


def _plain(value: int | str | Sequence[int | str]) -> int | str:
    """Return an option's value in the form that a space takes: several values are joined by commas."""
    return value if isinstance(value, int | str) else ",".join(map(str, value))


def default_name(space: Space) -> str:
    """Return the name of a sweep that the user did not name: space, date and time."""
    return f"{space.name}-{datetime.now():%Y%m%d-%H%M%S}"
