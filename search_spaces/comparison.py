"""A comparison: sets of several methods and sizes side by side, distilled and other ones."""

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import registry
from search_spaces.dimensions import SpaceError
from search_spaces.entry import REAL_SETS, Kind
from search_spaces.name_lists import listed, sizes
from search_spaces.nearest import nearest
from search_spaces.study import Study

__all__ = ["Comparison"]

_NAME = "name some, or all"


@dataclass(frozen=True, kw_only=True)
class Comparison(Study):
    """A study whose variants are distillation methods at the sizes `ipcs`, compared with coresets and other baselines.

    The name of a variant is the name of its method's sets in comparisons, such as `dm`.
    """

    _variants_may_set: ClassVar[tuple[str, ...]] = ("iterations",)

    @property
    def ipcs(self) -> tuple[int, ...]:
        """Images per class of the compared sets."""
        return sizes(self._word("ipcs"))

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the compared methods, in the order of reports."""
        return listed(self._word("methods"), self._known)

    @property
    def distilled(self) -> tuple[str, ...]:
        """Names of the compared distillation methods."""
        return tuple(name for name in self.methods if name in self.variants)

    @property
    def _known(self) -> tuple[str, ...]:
        variants = (name for name in registry.compared(Kind.METHOD) if name in self.variants)
        return (*registry.compared(*REAL_SETS), *variants)

    def _sets_made(self) -> tuple[str, ...]:
        return self.methods

    def _check_kind(self) -> None:
        known = registry.compared(Kind.METHOD)
        for point in self._variant_points():
            sets_name = self.entry(Kind.METHOD, point["method"]).sets_name
            if sets_name != point["variant"]:
                raise SpaceError(
                    f"a variant of a comparison is named as the sets of its method, {sets_name} where method is "
                    f"{point['method']}, not {point['variant']!r}; {nearest(point['variant'], known)}"
                )
        for name, remedy in (("ipcs", "give sizes such as 1,5,10"), ("methods", _NAME), ("regimes", _NAME)):
            if self._word(name) == "none":
                raise SpaceError(f"a comparison needs {name}, and they are none; {remedy}")
        if self._word("methods") != "all" and (unset := set(self._word("methods").split(",")) - set(self._known)):
            raise SpaceError(
                f"methods has {', '.join(sorted(unset))}, and {self.name} has no such variant; add it or leave it out"
            )
        for name in ("baselines", "final_networks"):
            self._check_unread(name, "a comparison")
