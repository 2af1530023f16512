"""A space: the parameters that a sweep varies and fixes, and the rules that every point of it obeys."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self

from search_spaces import registry
from search_spaces.dimensions import Choice, Dimension, Fixed, Integer, Real, SpaceError, Value, is_word
from search_spaces.entry import REAL_SETS, Entry, Kind
from search_spaces.name_lists import listed
from search_spaces.parameters import complete_parameter
from search_spaces.set_size import size_text
from search_spaces.variants import FOLLOWING
from search_spaces.vocabulary import VOCABULARY, key

__all__ = ["Choice", "Dimension", "Fixed", "Integer", "Real", "Space", "SpaceError", "Value"]


@dataclass(frozen=True, kw_only=True)
class Space:
    """The searched and fixed parameters of a search, complete and checked: all its points are valid.

    The matching range is drawn as a start and two widths, so that T_minus < T ≤ T_plus. The largest T_plus + M of all
    points is checked against `horizon_epochs` once, at construction. Bounds are inclusive.

    `Study` and `Comparison` are spaces without searched parameters.

    Raises:
        SpaceError: at construction, for a key that is unknown or missing, a value that breaks its key's rule, or keys
            that do not fit together.
    """

    name: str
    """Name in `load` and in a sweep's files."""
    title: str
    """One line: the question that the space asks."""
    dataset: str
    """Name of the dataset."""
    reference: str
    """One line: the origin of trial 0's settings."""
    parameters: Mapping[str, Dimension]
    """Every key of the vocabulary, in its order; a key that is left out at construction gets its default."""
    extensions: tuple[Entry, ...] = ()
    """The user's registry entries that the space uses; set at construction, and part of a stored space."""

    is_grid: ClassVar[bool] = False
    """Whether `points` are all trials: nothing is proposed, and no trial is stopped early."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Refuse `Space(variants=...)`, which wrote a study before `Study` was a type, and name the new form."""
        if cls is Space and "variants" in kwargs:
            raise SpaceError("Space takes no variants; write Study(...), or Comparison(...) where ipcs is set")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        registry.restore(self.extensions)
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
        given = self._check_given()
        complete = {entry.name: complete_parameter(entry, given.get(entry.name)) for entry in VOCABULARY.values()}
        object.__setattr__(self, "parameters", MappingProxyType(complete))
        user_entries = (entry for kind in Kind for entry in self.used(kind) if entry.source is not None)
        object.__setattr__(self, "extensions", tuple(user_entries))
        self._check_kind()
        self._check_network()
        self._check_horizon()
        self._check_iterations()

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        # A mapping proxy cannot be pickled; the constructor also checks the unpickled values.
        return partial(type(self), **self._fields()), ()

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines that the finals measure besides random real images, in the order of reports."""
        return listed(self._word("baselines"), registry.compared(*REAL_SETS))

    @property
    def searched(self) -> dict[str, Integer | Real | Choice]:
        """The parameters in which trials differ, in the vocabulary's order."""
        return {name: dimension for name, dimension in self.parameters.items() if not isinstance(dimension, Fixed)}

    @property
    def fixed(self) -> dict[str, Fixed]:
        """The parameters that all trials share, in the vocabulary's order."""
        return {name: dimension for name, dimension in self.parameters.items() if isinstance(dimension, Fixed)}

    @property
    def varied(self) -> list[str]:
        """Names of the parameters in which points differ, in the vocabulary's order."""
        return list(self.searched)

    @property
    def trial_keys(self) -> list[str]:
        """Names of the settings in which trials differ: `varied`, then T and T_plus if they depend on it."""
        varied = self.varied
        following = {"T": {"T_minus", "T_width"}, "T_plus": {"T_minus", "T_width", "T_growth"}}
        return [*varied, *(name for name, sources in following.items() if sources & set(varied))]

    @property
    def horizon_epochs(self) -> int:
        """Epochs of an expert."""
        return self._largest("horizon_epochs")

    @property
    def last_epoch(self) -> int:
        """The largest T_plus + M of all points: the last expert epoch that is needed."""
        return sum(self._largest(name) for name in ("T_minus", "T_width", "T_growth", "M"))

    def first(self) -> dict[str, Value]:
        """Return trial 0 as Optuna enqueues it: the first values of the searched parameters."""
        return {name: dimension.first for name, dimension in self.searched.items()}

    def points(self) -> list[dict[str, Value]]:
        """Return the points that run before anything is proposed: trial 0."""
        return [self.first()]

    def extremes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return resolved points such that each of these parameters has its largest value at one of them."""
        largest: dict[str, Value] = {name: max(self.searched[name].values) for name in names if name in self.searched}
        return [self.resolve({**self.first(), **largest})]

    def pinned(self) -> dict[str, Dimension]:
        """Return trial 0 as the parameters of a study: all fixed, without those that only a search reads."""
        first, only_search = self.first(), (*FOLLOWING, "reduction_factor")
        return {
            name: Fixed(first[name], source=dimension.source) if name in first else dimension
            for name, dimension in self.parameters.items()
            if name not in only_search
        }

    def draw(self, trial: Any) -> dict[str, Value]:
        """Let `trial` suggest the varied parameters, and return all other settings.

        Ray's OptunaSearch merges the returned settings with the suggested ones; together they are `resolve`'s result.

        Args:
            trial: an Optuna trial, or an object with suggest_int, suggest_float and suggest_categorical.
        """
        raw = self._ask(trial)
        return {name: value for name, value in self.resolve(raw).items() if name not in raw}

    def _ask(self, trial: Any) -> dict[str, Value]:
        raw: dict[str, Value] = {}
        for name, dimension in self.searched.items():
            match dimension:
                case Integer():
                    raw[name] = trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
                case Real():
                    raw[name] = trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)
                case Choice():
                    raw[name] = trial.suggest_categorical(name, dimension.options)
        return raw

    def resolve(self, raw: Mapping[str, Value]) -> dict[str, Any]:
        """Return the complete settings of one point: every key of the vocabulary, then T and T_plus.

        Args:
            raw: a value for each name of `first`, and no other.

        Raises:
            SpaceError: if a name is missing or surplus, or a value lies outside its bounds.
        """
        values = {name: dimension.value for name, dimension in self.parameters.items() if isinstance(dimension, Fixed)}
        values.update(self._choose(raw))
        point: dict[str, Any] = {name: values[name] for name in self.parameters}
        point["T"] = point["T_minus"] + point["T_width"]
        point["T_plus"] = point["T"] + point["T_growth"]
        return point

    def split(self, point: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of a resolved point in two parts: those that all trials share, and `trial_keys`."""
        own = self.trial_keys
        return {name: value for name, value in point.items() if name not in own}, {name: point[name] for name in own}

    def _choose(self, raw: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return the keys of the vocabulary that a point sets, checked."""
        self._check_names(raw)
        for name, dimension in self.searched.items():
            if not dimension.contains(raw[name]):
                raise SpaceError(f"{name} must lie in {self.name}'s range ({dimension}), not {raw[name]!r}")
        return {name: VOCABULARY[name].check(value) for name, value in raw.items()}

    def _check_names(self, raw: Mapping[str, Value]) -> None:
        names = list(self.first())
        missing, surplus = sorted(set(names) - raw.keys()), sorted(raw.keys() - set(names))
        if missing or surplus:
            raise SpaceError(
                f"a point of {self.name} must have exactly its searched parameters, {', '.join(names) or 'none'}; "
                f"missing: {', '.join(missing) or 'none'}; too many: {', '.join(surplus) or 'none'}"
            )

    def override(self, settings: Mapping[str, Value], source: str = "--set") -> Self:
        """Return the space with some parameters, searched or fixed, fixed at other values.

        Where the title says the size of the set, it says the new one.

        Args:
            settings: values by name; a string, as from `--set name=value`, is read as the parameter's type.
            source: the source of the values.

        Raises:
            SpaceError: if a name is unknown, a value breaks its rule, or the new space is invalid.
        """
        pinned: dict[str, Dimension] = {
            name: Fixed(key(name).parse(value) if isinstance(value, str) else key(name).check(value), source=source)
            for name, value in settings.items()
        }
        parameters = {**self._kept(pinned, source), **pinned}
        before, after = (size_text(int(each["ipc"].values[0])) for each in (self.parameters, parameters))
        return replace(self, title=self.title.replace(before, after), parameters=parameters)

    def set_by(self, source: str = "--set") -> dict[str, Value]:
        """Return the values that `override` has set with this source, by key."""
        return {name: dimension.value for name, dimension in self.fixed.items() if dimension.source == source}

    def entry(self, kind: Kind, name: str) -> Entry:
        """Return an entry of the registry; a user's entry of this space comes first.

        Raises:
            SpaceError: There is none of that name.
        """
        own = (entry for entry in self.extensions if (entry.kind, entry.name) == (kind, name))
        return next(own, None) or registry.entry(kind, name)

    def used(self, kind: Kind) -> list[Entry]:
        """Return the entries of a kind that the space names.

        An unknown dataset is left out; the code that loads the dataset refuses it.

        Raises:
            SpaceError: There is no entry of one of the names.
        """
        known = registry.names(kind)
        match kind:
            case Kind.DATASET:
                named = [name for name in known if name == self.dataset]
            case Kind.NETWORK:
                named = [self._word("network")]
            case Kind.METHOD:
                named = self._distillation_methods()
            case Kind.CORESET | Kind.BASELINE:
                named = [name for name in known if name in self._sets_made()]
        return [self.entry(kind, name) for name in named]

    def _distillation_methods(self) -> list[str]:
        """Return the values of `method` that points may have."""
        return [str(value) for value in self.parameters["method"].values]

    def _sets_made(self) -> tuple[str, ...]:
        """Return the names of the sets that are measured besides those of the trials."""
        return self.baselines

    def _word(self, name: str) -> str:
        """Return the value of a fixed key as a string."""
        (word,) = self.parameters[name].values
        return str(word)

    def _kept(self, pinned: Mapping[str, Dimension], source: str) -> dict[str, Dimension]:
        """Return the parameters that overrides from a source are applied to; refuse overrides that are not allowed."""
        return dict(self.parameters)

    def _fields(self) -> dict[str, Any]:
        """Return the constructor's arguments, mappings as plain dicts."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "parameters": dict(self.parameters)}

    def _check_given(self) -> Mapping[str, Dimension]:
        """Check the fields that only this kind of space has; return the parameters with those that follow from them."""
        return self.parameters

    def _largest(self, name: str) -> int:
        """Return the largest value of a whole-numbered parameter."""
        return max(value for value in self.parameters[name].values if isinstance(value, int))

    def _check_kind(self) -> None:
        """Refuse keys that have no effect in this kind of space."""
        if self.parameters["repeats"].values != (VOCABULARY["repeats"].default,):
            raise SpaceError(f"repeats are those of a study's variants, and {self.name} has none; leave repeats out")
        self._check_no_comparison()

    def _check_no_comparison(self) -> None:
        given = self._word("ipcs")
        if given != VOCABULARY["ipcs"].default:
            raise SpaceError(
                f"ipcs={given} is what a comparison measures at, and {self.name} is none; write Comparison(...) as "
                "search_spaces/registered/digits_regimes.py does, or leave ipcs out"
            )
        self._check_unread("methods", "what compares no methods")

    def _check_unread(self, name: str, where: str) -> None:
        """Refuse a value other than the default of a key that this kind of space does not read."""
        default = VOCABULARY[name].default
        if self.parameters[name].values != (default,):
            raise SpaceError(f"{name} has no effect in {where}; leave it at {default}")

    def _check_network(self) -> None:
        """Refuse settings that only the ConvNet supports."""
        network, (own, *_) = self._word("network"), registry.names(Kind.NETWORK)
        if network == own:
            return
        for name, value in (("compile", "on"), ("precision", "bf16")):
            if self._word(name) == value:
                raise SpaceError(f"{name}={value} needs network={own}, not {network}; change one of them")
        if "sre2l" in self._sets_made():
            raise SpaceError(f"sre2l squeezes network={own} alone, not {network}; leave sre2l out or change network")

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
