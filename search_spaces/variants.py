"""A study's variants: settings side by side, each distilled several times, in place of a search."""

from collections.abc import Mapping
from types import MappingProxyType

from search_spaces.dimensions import Choice, Dimension, Fixed, Integer, Real, SpaceError, Value, is_word
from search_spaces.listed import DISTILLED
from search_spaces.vocabulary import VOCABULARY, key

__all__ = ["FOLLOWING", "Variants", "check_variants", "complete_study"]

Variants = Mapping[str, Mapping[str, Value]]
"""What each variant sets of the searchable keys, by its name."""

COMPARISON = ("iterations",)
"""Keys that a study's trials share, but the variants of a comparison may set."""
FOLLOWING = ("trials", "first_rung_iterations", "final_seeds")
"""Keys that follow from others in a study, and are refused at any other value."""


def check_variants(variants: object, *, comparison: bool = False) -> Variants:
    """Return variants with every value checked and of its key's type, read-only.

    Those of a comparison are named by what they distil with.

    Raises:
        SpaceError: if a name is no plain word, a key is unknown or cannot be searched, or a value breaks its rule.
    """
    if not isinstance(variants, Mapping) or not all(isinstance(each, Mapping) for each in variants.values()):
        raise SpaceError(f"variants of a space must be a mapping of names to settings, not {variants!r}")
    checked = {}
    for name, settings in variants.items():
        if not isinstance(name, str) or not is_word(name):
            raise SpaceError(f"a variant's name must be letters, digits, '_', '-' and '.', not {name!r}")
        for setting in settings:
            if not key(setting).searchable and not (comparison and setting in COMPARISON):
                raise SpaceError(
                    f"{setting} is the same in all trials of a study, but variant {name} sets it; "
                    "move it to the parameters"
                )
        if comparison and name not in DISTILLED:
            raise SpaceError(f"a comparison's variants are named {', '.join(DISTILLED)}, not {name!r}; rename it")
        checked[name] = MappingProxyType(
            {entry.name: entry.check(settings[entry.name]) for entry in VOCABULARY.values() if entry.name in settings}
        )
    return MappingProxyType(checked)


def complete_study(parameters: Mapping[str, Dimension], variants: Variants) -> dict[str, Dimension]:
    """Return a study's parameters with those that follow; what every variant sets may be left out.

    Raises:
        SpaceError: if a parameter is searched, or one that only a search reads is given.
    """
    complete = dict(parameters)
    for name, dimension in parameters.items():
        if isinstance(dimension, Integer | Real | Choice):
            raise SpaceError(f"a study varies its variants alone, and {name} is searched ({dimension}); make it Fixed")
    if _value(complete, "reduction_factor") != VOCABULARY["reduction_factor"].default:
        raise SpaceError("a study stops no trial early, so reduction_factor has no effect; leave it out")
    first, *others = variants.values()
    for name in first:
        if all(name in settings for settings in others):
            complete.setdefault(name, Fixed(first[name], source="the variants"))

    repeats = _value(complete, "repeats")
    follows = {
        "trials": (len(variants) * repeats, f"{len(variants)} variants × {repeats} repeats"),
        "first_rung_iterations": (_value(complete, "iterations"), "iterations: no trial of a study is stopped early"),
        "final_seeds": (0, "the repeats have seeds of their own"),
    }
    for name, (value, reason) in follows.items():
        complete.setdefault(name, Fixed(value, source=reason))
        if (given := _value(complete, name)) != value:
            raise SpaceError(f"{name} of a study is {value} ({reason}), not {given}; leave it out")
    return complete


def _value(parameters: Mapping[str, Dimension], name: str) -> int:
    """Return a whole number that is given, or else the default."""
    given = parameters.get(name, Fixed(VOCABULARY[name].default or 0))
    value = VOCABULARY[name].check(given.value if isinstance(given, Fixed) else given)
    assert isinstance(value, int)
    return value
