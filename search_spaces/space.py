"""A space: what one sweep may vary, what it keeps fixed, and the rules that every point of it obeys."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from search_spaces.dimensions import Choice, Dimension, Fixed, Integer, Real, SpaceError, Value
from search_spaces.vocabulary import VOCABULARY, Key, key

__all__ = ["Choice", "Dimension", "Fixed", "Integer", "Real", "Space", "SpaceError", "Value"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a sweep varies and what it keeps, complete and checked: no point of it is invalid.

    The matching range is drawn as a start and two widths, so that T_minus < T ≤ T_plus, and the largest T_plus + M of
    any point is checked against `horizon_epochs` here, once. Bounds are inclusive.

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

    def __post_init__(self) -> None:
        for field in ("name", "title", "dataset", "reference"):
            text = getattr(self, field)
            if not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1:
                raise SpaceError(f"{field} of a space must be one line of text, not {text!r}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise SpaceError(f"name of a space must be letters, digits, '_', '-' and '.', not {self.name!r}")
        if not isinstance(self.parameters, Mapping):
            raise SpaceError(f"parameters of a space must be a mapping of names, not {self.parameters!r}")
        for name in self.parameters:
            key(name)
        complete = {entry.name: _complete(entry, self.parameters.get(entry.name)) for entry in VOCABULARY.values()}
        object.__setattr__(self, "parameters", MappingProxyType(complete))
        self._check_horizon()
        self._check_iterations()

    def __reduce__(self) -> tuple[Callable[[], "Space"], tuple[()]]:
        # A mapping proxy cannot be pickled; building anew also checks what was read.
        state = {"name": self.name, "title": self.title, "dataset": self.dataset, "reference": self.reference}
        return partial(Space, parameters=dict(self.parameters), **state), ()

    @property
    def searched(self) -> dict[str, Integer | Real | Choice]:
        """The parameters in which trials differ, in the vocabulary's order."""
        return {name: each for name, each in self.parameters.items() if not isinstance(each, Fixed)}

    @property
    def fixed(self) -> dict[str, Fixed]:
        """The parameters that all trials share, in the vocabulary's order."""
        return {name: each for name, each in self.parameters.items() if isinstance(each, Fixed)}

    @property
    def horizon_epochs(self) -> int:
        """Epochs of an expert."""
        return self._largest("horizon_epochs")

    @property
    def last_epoch(self) -> int:
        """The largest T_plus + M of any point: how far the experts are needed."""
        return sum(self._largest(name) for name in ("T_minus", "T_width", "T_growth", "M"))

    def first(self) -> dict[str, Value]:
        """Return trial 0: the searched parameters' first values, as Optuna's `enqueue_trial` takes them."""
        return {name: dimension.first for name, dimension in self.searched.items()}

    def draw(self, trial: Any) -> dict[str, Value]:
        """Ask `trial` for the searched parameters and return everything else: the fixed ones, T and T_plus.

        Ray's OptunaSearch merges what is returned with what was asked for; together they are `resolve`'s result.

        Args:
            trial: an Optuna trial, or what behaves like one: suggest_int, suggest_float and suggest_categorical.
        """
        raw: dict[str, Value] = {}
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

        Args:
            raw: a value for each searched parameter, and no other.

        Raises:
            SpaceError: if a name is missing or too many, or a value lies outside its bounds.
        """
        searched = self.searched
        missing, surplus = sorted(searched.keys() - raw.keys()), sorted(raw.keys() - searched.keys())
        if missing or surplus:
            raise SpaceError(
                f"a point of {self.name} must have exactly its searched parameters, {', '.join(searched) or 'none'}; "
                f"missing: {', '.join(missing) or 'none'}; too many: {', '.join(surplus) or 'none'}"
            )
        for name, dimension in searched.items():
            if not dimension.contains(raw[name]):
                raise SpaceError(f"{name} must lie in {self.name}'s range ({dimension}), not {raw[name]!r}")
        point: dict[str, Any] = {
            name: dimension.value if isinstance(dimension, Fixed) else VOCABULARY[name].check(raw[name])
            for name, dimension in self.parameters.items()
        }
        point["T"] = point["T_minus"] + point["T_width"]
        point["T_plus"] = point["T"] + point["T_growth"]
        return point

    def override(self, settings: Mapping[str, Value]) -> "Space":
        """Return the space with some parameters, searched or fixed, fixed at other values.

        Args:
            settings: values by name; a string, as from `--set name=value`, is read as the parameter's type.

        Raises:
            SpaceError: if a name is unknown, a value breaks its rule, or the new space as a whole does.
        """
        pinned = {
            name: Fixed(key(name).parse(value) if isinstance(value, str) else key(name).check(value), source="--set")
            for name, value in settings.items()
        }
        return replace(self, parameters={**self.parameters, **pinned})

    def _largest(self, name: str) -> int:
        """Return the largest value of a whole-numbered parameter; of a fixed one, its value."""
        return max(value for value in self.parameters[name].values if isinstance(value, int))

    def _check_horizon(self) -> None:
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
