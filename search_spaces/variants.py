"""Checks of a study's variants, and of the parameters that follow from them."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from search_spaces.dimensions import Choice, Dimension, Fixed, Integer, Real, SpaceError, Value, is_word
from search_spaces.vocabulary import VOCABULARY, key

__all__ = ["FOLLOWING", "Variants", "check_variants", "complete_study"]

Variants = Mapping[str, Mapping[str, Value]]
"""The searchable keys that each variant sets, by its name."""

FOLLOWING = ("trials", "first_rung_iterations", "final_seeds")
"""Keys that follow from others in a study, and are refused at any other value."""


def check_variants(variants: object, *, besides: Collection[str] = ()) -> Variants:
    """Return variants as read-only mappings, with every value checked and converted to its key's type.

    Args:
        variants: the user's variants.
        besides: keys that variants may set besides the searchable ones.

    Raises:
        SpaceError: if a name is no plain word, a key is unknown or cannot be searched, or a value breaks its rule.
    """
    if not isinstance(variants, Mapping) or not all(isinstance(settings, Mapping) for settings in variants.values()):
        raise SpaceError(f"variants of a space must be a mapping of names to settings, not {variants!r}")
    if not variants:
        raise SpaceError("a study needs at least one variant; name one, or write Space(...) for a search")
    checked = {}
    for name, settings in variants.items():
        if not isinstance(name, str) or not is_word(name):
            raise SpaceError(f"a variant's name must be letters, digits, '_', '-' and '.', not {name!r}")
        for setting in settings:
            if not key(setting).searchable and setting not in besides:
                raise SpaceError(
                    f"{setting} is the same in all trials of a study, but variant {name} sets it; "
                    "move it to the parameters"
                )
        checked[name] = MappingProxyType(
            {entry.name: entry.check(settings[entry.name]) for entry in VOCABULARY.values() if entry.name in settings}
        )
    return MappingProxyType(checked)


def complete_study(parameters: Mapping[str, Dimension], variants: Variants) -> dict[str, Dimension]:
    """Return a study's parameters, completed by those that follow from others or that every variant sets.

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
    """Return the value of a whole-numbered key, or its default if it is not given."""
    given = parameters.get(name, Fixed(VOCABULARY[name].default or 0))
    value = VOCABULARY[name].check(given.value if isinstance(given, Fixed) else given)
    assert isinstance(value, int)
    return value
