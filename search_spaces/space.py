"""A space: what one sweep may vary, what it keeps fixed, and the rules that every point of it obeys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from search_spaces.dimensions import Choice, Dimension, Fixed, Integer, Real, SpaceError, Value, is_whole, is_word
from search_spaces.listed import DISTILLED, sizes
from search_spaces.variants import FOLLOWING, Variants, check_variants, complete_study
from search_spaces.vocabulary import VOCABULARY, Key, key

__all__ = ["Choice", "Dimension", "Fixed", "Integer", "Real", "Space", "SpaceError", "Value"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a sweep varies and what it keeps, complete and checked: no point of it is invalid.

    The matching range is drawn as a start and two widths, so that T_minus < T ≤ T_plus, and the largest T_plus + M of
    any point is checked against `horizon_epochs` here, once. Bounds are inclusive.

    A space with variants is a study: nothing is searched, and its points are the grid of variants and repeats, named by
    the two keys `variant` and `repeat`.

    Raises:
        SpaceError: at construction, for a key that is unknown or missing, a value that breaks its key's rule, or keys
            that do not fit together.
    """

    name: str
    """What `load` and a sweep's files call it."""
    title: str
    """One line: the question that the space asks."""
    dataset: str
    """The dataset's name."""
    reference: str
    """One line: whose setting trial 0 is, with its source."""
    parameters: Mapping[str, Dimension]
    """Every key of the vocabulary, in its order; what is left out at construction gets the vocabulary's default."""
    variants: Variants = field(default_factory=dict)
    """A study's settings by name: what each sets of the searchable keys; the first is trial 0. Empty: a search."""

    def __post_init__(self) -> None:
        for line in ("name", "title", "dataset", "reference"):
            text = getattr(self, line)
            if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
                raise SpaceError(f"{line} of a space must be one line of text, not {text!r}")
        if not is_word(self.name):
            raise SpaceError(f"name of a space must be letters, digits, '_', '-' and '.', not {self.name!r}")
        if not isinstance(self.parameters, Mapping):
            raise SpaceError(f"parameters of a space must be a mapping of names, not {self.parameters!r}")
        for name in self.parameters:
            key(name)
        object.__setattr__(self, "variants", check_variants(self.variants, comparison=self._is_comparison()))
        given = complete_study(self.parameters, self.variants) if self.variants else self.parameters
        complete = {entry.name: _complete(entry, given.get(entry.name)) for entry in VOCABULARY.values()}
        object.__setattr__(self, "parameters", MappingProxyType(complete))
        if not self.variants and complete["repeats"].values != (VOCABULARY["repeats"].default,):
            raise SpaceError(f"repeats are those of a study's variants, and {self.name} has none; leave repeats out")
        self._check_comparison()
        self._check_horizon()
        self._check_iterations()

    def __reduce__(self) -> tuple[Callable[[], "Space"], tuple[()]]:
        # A mapping proxy cannot be pickled; building anew also checks what was read.
        state = {"name": self.name, "title": self.title, "dataset": self.dataset, "reference": self.reference}
        variants = {name: dict(settings) for name, settings in self.variants.items()}
        return partial(Space, parameters=dict(self.parameters), variants=variants, **state), ()

    @property
    def ipcs(self) -> tuple[int, ...]:
        """Images per class that a comparison measures at; none of a search or a study."""
        (text,) = self.parameters["ipcs"].values
        return sizes(str(text))

    @property
    def searched(self) -> dict[str, Integer | Real | Choice]:
        """The parameters in which trials differ, in the vocabulary's order."""
        return {name: each for name, each in self.parameters.items() if not isinstance(each, Fixed)}

    @property
    def fixed(self) -> dict[str, Fixed]:
        """The parameters that all trials share, in the vocabulary's order."""
        varied = {name for settings in self.variants.values() for name in settings}
        return {name: each for name, each in self.parameters.items() if isinstance(each, Fixed) and name not in varied}

    @property
    def varied(self) -> list[str]:
        """Names of what differs from point to point: the searched parameters, or a study's variant, repeat and keys."""
        fixed = self.fixed
        varied = [name for name in self.parameters if name not in fixed]
        return ["variant", "repeat", *varied] if self.variants else varied

    @property
    def horizon_epochs(self) -> int:
        """Epochs of an expert."""
        return self._largest("horizon_epochs")

    @property
    def last_epoch(self) -> int:
        """The largest T_plus + M of any point: how far the experts are needed."""
        if self.variants:
            return max(int(point["T_plus"] + point["M"]) for point in self._variant_points())
        return sum(self._largest(name) for name in ("T_minus", "T_width", "T_growth", "M"))

    def first(self) -> dict[str, Value]:
        """Return trial 0: the searched parameters' first values, or a study's first variant, as Optuna enqueues it."""
        if self.variants:
            return {"variant": next(iter(self.variants)), "repeat": 0}
        return {name: dimension.first for name, dimension in self.searched.items()}

    def points(self) -> list[dict[str, Value]]:
        """Return what is run before anything is proposed: trial 0 of a search, all of a study.

        A study's come repeat by repeat, so that one that is stopped has measured its variants equally often.
        """
        if not self.variants:
            return [self.first()]
        repeats = range(self._largest("repeats"))
        return [{"variant": variant, "repeat": repeat} for repeat in repeats for variant in self.variants]

    def pinned(self) -> dict[str, Dimension]:
        """Return trial 0 as the parameters of a study: all fixed, less those that only a search reads."""
        first, only_search = self.first(), (*FOLLOWING, "reduction_factor")
        return {
            name: Fixed(first[name], source=each.source) if name in first else each
            for name, each in self.parameters.items()
            if name not in only_search
        }

    def draw(self, trial: Any) -> dict[str, Value]:
        """Ask `trial` for what is searched, or for variant and repeat, and return everything else.

        Ray's OptunaSearch merges what is returned with what was asked for; together they are `resolve`'s result.

        Args:
            trial: an Optuna trial, or what behaves like one: suggest_int, suggest_float and suggest_categorical.
        """
        raw: dict[str, Value] = {}
        if self.variants:
            raw["variant"] = trial.suggest_categorical("variant", list(self.variants))
            raw["repeat"] = trial.suggest_int("repeat", 0, self._largest("repeats") - 1)
        for name, dimension in self.searched.items():
            match dimension:
                case Integer():
                    raw[name] = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
                case Real():
                    raw[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
                case Choice():
                    raw[name] = trial.suggest_categorical(name, dimension.options)
        return {name: value for name, value in self.resolve(raw).items() if name not in raw}

    def resolve(self, raw: Mapping[str, Value]) -> dict[str, Any]:
        """Return the complete settings of one point: every key of the vocabulary, then T and T_plus.

        Of a study also `variant` and `repeat`, last.

        Args:
            raw: a value for each searched parameter, or a study's variant and repeat, and no other.

        Raises:
            SpaceError: if a name is missing or too many, or a value lies outside its bounds.
        """
        values = {name: each.value for name, each in self.parameters.items() if isinstance(each, Fixed)}
        values.update(self._choose(raw))
        point: dict[str, Any] = {name: values[name] for name in self.parameters}
        point["T"] = point["T_minus"] + point["T_width"]
        point["T_plus"] = point["T"] + point["T_growth"]
        return point | (dict(raw) if self.variants else {})

    def _choose(self, raw: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return what a point, checked, sets of the vocabulary."""
        names = list(self.first())
        missing, surplus = sorted(set(names) - raw.keys()), sorted(raw.keys() - set(names))
        if missing or surplus:
            raise SpaceError(
                f"a point of {self.name} must have exactly its searched parameters, {', '.join(names) or 'none'}; "
                f"missing: {', '.join(missing) or 'none'}; too many: {', '.join(surplus) or 'none'}"
            )
        if self.variants:
            repeats = self._largest("repeats")
            if raw["variant"] not in self.variants:
                raise SpaceError(
                    f"variant must be one of {self.name}'s ({', '.join(self.variants)}), not {raw['variant']!r}"
                )
            if not is_whole(raw["repeat"]) or not 0 <= raw["repeat"] < repeats:
                raise SpaceError(f"repeat must be a whole number from 0 to {repeats - 1}, not {raw['repeat']!r}")
            return self.variants[str(raw["variant"])]
        for name, dimension in self.searched.items():
            if not dimension.contains(raw[name]):
                raise SpaceError(f"{name} must lie in {self.name}'s range ({dimension}), not {raw[name]!r}")
        return {name: VOCABULARY[name].check(value) for name, value in raw.items()}

    def override(self, settings: Mapping[str, Value], source: str = "--set") -> "Space":
        """Return the space with some parameters, searched or fixed, fixed at other values.

        What a study's variants set is refused, even if all set it alike: one value for all would be another study.

        Args:
            settings: values by name; a string, as from `--set name=value`, is read as the parameter's type.
            source: where the values come from.

        Raises:
            SpaceError: if a name is unknown, a value breaks its rule, or the new space as a whole does.
        """
        pinned: dict[str, Dimension] = {
            name: Fixed(key(name).parse(value) if isinstance(value, str) else key(name).check(value), source=source)
            for name, value in settings.items()
        }
        for name in pinned:
            if setting := [variant for variant, values in self.variants.items() if name in values]:
                raise SpaceError(
                    f"{name} is what the variants {', '.join(setting)} of {self.name} set, and {source} would set it "
                    "for all; leave it out, or copy the space's file and change its variants"
                )
        kept = {name: each for name, each in self.parameters.items() if not (self.variants and name in FOLLOWING)}
        return replace(self, parameters={**kept, **pinned})

    def _variant_points(self) -> list[dict[str, Any]]:
        """Return a study's variants, resolved."""
        return [self.resolve({"variant": variant, "repeat": 0}) for variant in self.variants]

    def _largest(self, name: str) -> int:
        """Return the largest value of a whole-numbered parameter; of a fixed one, its value."""
        return max(value for value in self.parameters[name].values if isinstance(value, int))

    def _is_comparison(self) -> bool:
        """Say whether sizes are given, before the parameters are complete."""
        given = self.parameters.get("ipcs")
        return isinstance(given, Fixed) and given.value != "none"

    def _check_comparison(self) -> None:
        """Refuse what a comparison, or anything else, would not read."""
        defaults = {name: VOCABULARY[name].default for name in ("methods", "baselines", "final_networks")}
        if self.ipcs and set(self.variants) != set(DISTILLED):
            (given,) = self.parameters["ipcs"].values
            raise SpaceError(
                f"a comparison (ipcs={given}) needs the variants {', '.join(DISTILLED)}, and {self.name} has "
                f"{', '.join(self.variants) or 'none'}; copy search_spaces/digits_regimes.py, or leave ipcs at none"
            )
        for name in ("methods", "regimes") if self.ipcs else ():
            if self.parameters[name].values == ("none",):
                raise SpaceError(f"a comparison needs {name}, and they are none; name some, or all")
        for name in ("baselines", "final_networks") if self.ipcs else ("methods",):
            if self.parameters[name].values != (defaults[name],):
                kind = "a comparison" if self.ipcs else "what compares no methods (ipcs is none)"
                raise SpaceError(f"{name} has no effect in {kind}; leave it at {defaults[name]}")

    def _check_horizon(self) -> None:
        if self.variants and self.last_epoch > self.horizon_epochs:
            furthest = max(self._variant_points(), key=lambda point: point["T_plus"] + point["M"])
            raise SpaceError(
                f"T_plus + M must not exceed horizon_epochs in any variant, but {furthest['variant']} has "
                f"{furthest['T_plus']} + {furthest['M']} = {self.last_epoch} and horizon_epochs is "
                f"{self.horizon_epochs}; set it to {self.last_epoch} or lower the variant's range"
            )
        if self.last_epoch > self.horizon_epochs:
            sizes = [f"max({name}) {self._largest(name)}" for name in ("T_minus", "T_width", "T_growth", "M")]
            raise SpaceError(
                f"T_plus + M must not exceed horizon_epochs at any point, but {' + '.join(sizes)} = {self.last_epoch} "
                f"and horizon_epochs is {self.horizon_epochs}; set it to {self.last_epoch} or narrow a range"
            )

    def _check_iterations(self) -> None:
        iterations, rung = self._largest("iterations"), self._largest("first_rung_iterations")
        every = self._largest("validation_every_iterations")
        for name, value in (("iterations", iterations), ("first_rung_iterations", rung)):
            if value % every:
                raise SpaceError(
                    f"{name} must be a multiple of validation_every_iterations, but they are {value} and {every}; "
                    f"set {name} to {value + every - value % every} or validation_every_iterations to a divisor"
                )
        if rung > iterations:
            raise SpaceError(
                f"first_rung_iterations must not exceed iterations, but they are {rung} and {iterations}; "
                f"set first_rung_iterations to {iterations} or less"
            )


def _complete(entry: Key, dimension: object) -> Dimension:
    """Return `dimension`, or the default's, with every value checked and of the key's type."""
    match dimension:
        case None:
            if entry.default is None:
                raise SpaceError(f"{entry.name} ({entry.meaning}) has no default; give it a value")
            return Fixed(entry.default, source=entry.source)
        case Fixed():
            return replace(dimension, value=entry.check(dimension.value))
        case Integer() | Real() | Choice() if not entry.searchable:
            raise SpaceError(f"{entry.name} is the same in all trials of a sweep, not {dimension}; make it Fixed")
        case Choice():
            options = tuple(entry.check(option) for option in dimension.options)
            return replace(dimension, options=options, first=entry.check(dimension.first))
        case Integer() | Real():
            wanted = Integer if entry.kind is int else Real
            if not isinstance(dimension, wanted):
                raise SpaceError(f"{entry.name} must be searched as {wanted.__name__}, not {dimension!r}")
            for value in dimension.values:
                entry.check(value)
            return dimension
        case _:
            raise SpaceError(f"{entry.name} must be Integer, Real, Choice or Fixed, not {dimension!r}; write Fixed(…)")
