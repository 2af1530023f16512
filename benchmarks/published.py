"""M-DATM's published figures, and the setting of one run: the published values with changes from the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import search_spaces
from search_spaces import SpaceError, Value, presets
from search_spaces.vocabulary import DEFAULTS, VOCABULARY, key
from trainables.config.arithmetic import Arithmetic
from trainables.config.distillation import DistillationConfig
from trainables.config.experts import ExpertRecipe

__all__ = ["CHANGEABLE", "PUBLISHED", "Setting", "changes_of", "setting_of", "settings_of"]

PUBLISHED = {("cifar100", 10): 0.4061, ("tiny_imagenet", 10): 0.1831}
"""M-DATM's accuracy under the challenge's protocol, by dataset and images per class.

Source: docs/method.md, "What the published numbers are".
"""

_FIXED_HERE = {"ipc", "iterations", "compile", "label_mode", "lr_label", "momentum_label"}
_OF_CONFIGS = {field.name for config in (DistillationConfig, ExpertRecipe, Arithmetic) for field in fields(config)}
CHANGEABLE = tuple(
    name
    for name in VOCABULARY
    if name in (_OF_CONFIGS | {"T_width", "T_growth", "augmentation", "validation_share"}) - _FIXED_HERE
)
"""Names that `--set` accepts; the other settings have their own option, or are the challenge's."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The setting of one run."""

    source: str
    """Source of the setting, as text."""
    values: Mapping[str, Any]
    """All keys of the vocabulary that the source, a default or the command line sets."""
    changes: Mapping[str, Value]
    """Values that were set with `--set`."""
    published_iterations: int
    config: DistillationConfig
    recipe: ExpertRecipe

    @property
    def arithmetic(self) -> Arithmetic:
        """The arithmetic of the whole run."""
        return Arithmetic.from_settings(self.values)


def setting_of(dataset: str, ipc: int, *, assignments: Sequence[str], iterations: int | None, compiled: str) -> Setting:
    """Return a dataset's setting with changes.

    Args:
        dataset: Its name.
        ipc: Images per class.
        assignments: Changes, as NAME=VALUE.
        iterations: Most iterations of the distillation; None: the published number.
        compiled: Whether the inner steps are compiled: on or off.

    Raises:
        SpaceError: No setting is known, or a change is invalid.
        ConfigError: The values contradict one another.
    """
    source, values = settings_of(dataset, ipc)
    changes = changes_of(assignments)
    published_iterations = values["iterations"]
    values |= {**changes, "compile": compiled, "iterations": iterations or published_iterations}
    values["T"] = values["T_minus"] + values["T_width"]
    values["T_plus"] = values["T"] + values["T_growth"]
    return Setting(
        source=source,
        values=values,
        changes=changes,
        published_iterations=published_iterations,
        config=DistillationConfig.from_settings(values),
        recipe=ExpertRecipe.from_settings(values),
    )


def settings_of(dataset: str, ipc: int) -> tuple[str, dict[str, Any]]:
    """Return the source of a dataset's setting, and the values of all keys that it, or a default, sets.

    Raises:
        SpaceError: The dataset has no setting at this number of images per class.
    """
    if (dataset, ipc) == ("digits", 1):
        space = search_spaces.load("digits")
        return "ours, the first trial of the space digits: M-DATM has no setting for the digits", space.resolve(
            space.first()
        )
    for name in ("m_datm", "datm_hard"):
        if (dataset, ipc) in presets.PRESETS[name].figures:
            figures = {"interval": 1, **DEFAULTS, **presets.settings(name, dataset, ipc)}  # 1: a range without growth
            return presets.PRESETS[name].source, figures
    known = sorted({("digits", 1), *presets.PRESETS["m_datm"].figures, *presets.PRESETS["datm_hard"].figures})
    raise SpaceError(
        f"no setting is known for {dataset} at {ipc} images per class; known: "
        f"{', '.join(f'{where} at {count}' for where, count in known)}"
    )


def changes_of(assignments: Sequence[str]) -> dict[str, Value]:
    """Return the settings of NAME=VALUE texts.

    Raises:
        SpaceError: One has no =, a name that cannot be changed here, or a value that breaks its rule.
    """
    changes = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign:
            raise SpaceError(f"--set takes NAME=VALUE, not {text!r}")
        entry = key(name)
        if name not in CHANGEABLE:
            raise SpaceError(f"--set does not take {name} here; it takes {', '.join(CHANGEABLE)}")
        changes[name] = entry.parse(value)
    return changes
