"""A study: settings side by side, each distilled several times, in place of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from search_spaces.dimensions import Dimension, Fixed, SpaceError, Value, is_whole
from search_spaces.space import Space
from search_spaces.variants import FOLLOWING, Variants, check_variants, complete_study

__all__ = ["Study"]


@dataclass(frozen=True, kw_only=True)
class Study(Space):
    """A space without searched parameters: its points are the grid of variants and repeats.

    A point has the two keys `variant` and `repeat`. Keys that every variant sets may be left out of the parameters.

    Raises:
        SpaceError: as for a space, and for invalid variants.
    """

    variants: Variants
    """The searchable keys that each variant sets, by its name; the first variant is trial 0."""

    is_grid: ClassVar[bool] = True
    _variants_may_set: ClassVar[tuple[str, ...]] = ()
    """Keys that the variants may set besides the searchable ones."""

    @property
    def fixed(self) -> dict[str, Fixed]:
        """The parameters that all trials share, in the vocabulary's order."""
        return {name: dimension for name, dimension in super().fixed.items() if name not in self._set_by_variants}

    @property
    def varied(self) -> list[str]:
        """Variant and repeat, then the keys that the variants set, in the vocabulary's order."""
        return ["variant", "repeat", *(name for name in self.parameters if name in self._set_by_variants)]

    @property
    def last_epoch(self) -> int:
        """The largest T_plus + M of all variants: the last expert epoch that is needed."""
        return max(int(point["T_plus"] + point["M"]) for point in self._variant_points())

    def first(self) -> dict[str, Value]:
        """Return trial 0 as Optuna enqueues it: repeat 0 of the first variant."""
        return {"variant": next(iter(self.variants)), "repeat": 0}

    def points(self) -> list[dict[str, Value]]:
        """Return all points, repeat by repeat, so that an interrupted study has measured its variants equally often."""
        repeats = range(self._largest("repeats"))
        return [{"variant": variant, "repeat": repeat} for repeat in repeats for variant in self.variants]

    def extremes(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return resolved points such that each of these parameters has its largest value at one of them."""
        return self._variant_points()

    def resolve(self, raw: Mapping[str, Value]) -> dict[str, Any]:
        """Return the complete settings of one point: those of a space, then `variant` and `repeat`.

        Args:
            raw: variant and repeat.

        Raises:
            SpaceError: if a name is missing or surplus, or there is no such variant or repeat.
        """
        return super().resolve(raw) | dict(raw)

    @property
    def _set_by_variants(self) -> set[str]:
        return {name for settings in self.variants.values() for name in settings}

    def _ask(self, trial: Any) -> dict[str, Value]:
        return {
            "variant": trial.suggest_categorical("variant", list(self.variants)),
            "repeat": trial.suggest_int("repeat", 0, self._largest("repeats") - 1),
        }

    def _choose(self, raw: Mapping[str, Value]) -> Mapping[str, Value]:
        self._check_names(raw)
        repeats = self._largest("repeats")
        if raw["variant"] not in self.variants:
            raise SpaceError(
                f"variant must be one of {self.name}'s ({', '.join(self.variants)}), not {raw['variant']!r}"
            )
        if not is_whole(raw["repeat"]) or not 0 <= raw["repeat"] < repeats:
            raise SpaceError(f"repeat must be a whole number from 0 to {repeats - 1}, not {raw['repeat']!r}")
        return self.variants[str(raw["variant"])]

    def _kept(self, pinned: Mapping[str, Dimension], source: str) -> dict[str, Dimension]:
        """Refuse keys that the variants set, even to the same value: one value for all would be another study."""
        for name in pinned:
            if setting := [variant for variant, values in self.variants.items() if name in values]:
                raise SpaceError(
                    f"{name} is what the variants {', '.join(setting)} of {self.name} set, and {source} would set it "
                    "for all; leave it out, or copy the space's file and change its variants"
                )
        return {name: dimension for name, dimension in self.parameters.items() if name not in FOLLOWING}

    def _fields(self) -> dict[str, Any]:
        variants = {name: dict(settings) for name, settings in self.variants.items()}
        return {**super()._fields(), "variants": variants}

    def _distillation_methods(self) -> list[str]:
        return list(dict.fromkeys(str(point["method"]) for point in self._variant_points()))

    def _check_given(self) -> Mapping[str, Dimension]:
        object.__setattr__(self, "variants", check_variants(self.variants, besides=self._variants_may_set))
        return complete_study(self.parameters, self.variants)

    def _check_kind(self) -> None:
        self._check_no_comparison()

    def _check_horizon(self) -> None:
        if self.last_epoch > self.horizon_epochs:
            furthest = max(self._variant_points(), key=lambda point: point["T_plus"] + point["M"])
            raise SpaceError(
                f"T_plus + M must not exceed horizon_epochs in any variant, but {furthest['variant']} has "
                f"{furthest['T_plus']} + {furthest['M']} = {self.last_epoch} and horizon_epochs is "
                f"{self.horizon_epochs}; set it to {self.last_epoch} or lower the variant's range"
            )

    def _variant_points(self) -> list[dict[str, Any]]:
        """Return the resolved point of every variant, at repeat 0."""
        return [self.resolve({"variant": variant, "repeat": 0}) for variant in self.variants]
