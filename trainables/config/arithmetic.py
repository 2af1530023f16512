"""How a worker's process computes on a GPU: the number format of its products, and whether it repeats its bits."""

from dataclasses import dataclass

from trainables.config.checks import FromSettings, require

__all__ = ["IEEE", "PRECISIONS", "Arithmetic"]

PRECISIONS = ("fp32", "tf32", "bf16")
"""Number formats of the distillation's products."""


@dataclass(frozen=True, kw_only=True)
class Arithmetic(FromSettings):
    """The arithmetic of every worker process of a sweep. docs/design/arithmetic.md."""

    precision: str
    """tf32: convolutions and matrix products of every stage round to TF32 on a GPU. fp32 and bf16: they are IEEE
    float32; bf16 is the format of the distillation's network alone, which `InnerStep` converts itself."""
    deterministic: bool
    """Whether a GPU computes the same bits from the same seed; a CPU does in any case."""

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
        require(self.precision in PRECISIONS, f"precision is one of {', '.join(PRECISIONS)}, not {self.precision}")
        require(type(self.deterministic) is bool, f"deterministic must be True or False, not {self.deterministic!r}")

    @property
    def tf32(self) -> bool:
        """Whether float32 products are rounded to TF32."""
        return self.precision == "tf32"

    @property
    def label(self) -> str:
        """What networks trained with this arithmetic are stored under besides their settings; empty: IEEE float32.

        It is part of addresses of stored experts and teachers, so it must never change.
        """
        return "-".join(["tf32"] * self.tf32 + ["deterministic"] * self.deterministic)


IEEE = Arithmetic(precision="fp32", deterministic=False)
"""The arithmetic of commands that have no such settings, and the default of every space."""
