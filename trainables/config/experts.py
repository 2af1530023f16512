"""How experts are trained."""

from dataclasses import dataclass

from trainables.config.checks import (
    FromSettings,
    require,
    require_count,
    require_fraction,
    require_not_negative,
    require_positive,
)

__all__ = ["ExpertRecipe"]


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(FromSettings):
    """How an expert is trained. docs/method.md, "Experts"."""

    expert_optimizer: str
    """gsam (FTD, DATM) or sgd (MTT)."""
    expert_lr: float
    """Learning rate, constant."""
    expert_momentum: float
    """Momentum of SGD."""
    expert_weight_decay: float
    """Weight decay of SGD."""
    expert_batch_size: int
    """Real images per step; the last, partial batch of an epoch is used."""
    sam_rho: float
    """ρ: radius of GSAM's perturbation of the parameters."""
    gsam_alpha: float
    """α of GSAM: weight of the part of the gradient orthogonal to the perturbed one."""
    sam_adaptive: bool
    """Whether the perturbation scales with the parameters (ASAM), as in the reference code whatever its flag says."""

    def __post_init__(self) -> None:
        """Refuse invalid settings."""
        require(
            self.expert_optimizer in ("gsam", "sgd"), f"expert_optimizer is gsam or sgd, not {self.expert_optimizer}"
        )
        require_count(self, "expert_batch_size")
        require_positive(self, "expert_lr", "sam_rho")
        require_fraction(self, "expert_momentum")
        require_not_negative(self, "expert_weight_decay", "gsam_alpha")
