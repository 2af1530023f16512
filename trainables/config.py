"""Settings of one unit of work, frozen and validated at construction.

The fields carry the names that search spaces use, so that `from_settings` can pick them out of a trial's flat settings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from trainables.errors import ConfigError
from trainables.schedule import MatchingRange

__all__ = ["REGIMES", "DistillationConfig", "ExpertRecipe", "Protocol"]

REGIMES = ("hard", "soft", "soft_kd")
"""Where a set's labels come from in an evaluation: `Protocol.regime`, `regimes.targets`. METHOD §6."""


def _require(rule: bool, message: str) -> None:
    if not rule:
        raise ConfigError(message)


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(math.isfinite(value) and value > 0, f"{name} must be larger than 0 and finite, not {value}")


def _require_count(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(type(value) is int and value >= 1, f"{name} must be a whole number of at least 1, not {value!r}")


def _require_whole(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(type(value) is int and value >= 0, f"{name} must be a whole number of at least 0, not {value!r}")


def _require_not_negative(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(math.isfinite(value) and value >= 0, f"{name} must be at least 0 and finite, not {value}")


def _require_fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value < 1, f"{name} must lie in [0, 1), not {value}")


class _FromSettings:
    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Build from a flat mapping that holds at least every field's name; others' keys are left to their owners."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(_FromSettings):
    """How an expert is trained. METHOD §1."""

    expert_optimizer: str = "gsam"
    """gsam (FTD, DATM) or sgd (MTT)."""
    expert_lr: float = 0.01
    """Learning rate, constant."""
    expert_momentum: float = 0.0
    """Momentum of SGD."""
    expert_weight_decay: float = 0.0
    """Weight decay of SGD."""
    expert_batch_size: int = 256
    """Real images a step; the last, partial batch of an epoch is used."""
    sam_rho: float = 0.01
    """ρ: how far GSAM looks for the sharpest neighbour."""
    gsam_alpha: float = 0.3
    """α of GSAM: weight of the part of the gradient orthogonal to the perturbed one."""
    sam_adaptive: bool = True
    """Whether the perturbation scales with the parameters (ASAM), as in the reference code whatever its flag says."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        _require(
            self.expert_optimizer in ("gsam", "sgd"), f"expert_optimizer is gsam or sgd, not {self.expert_optimizer}"
        )
        _require_count(self, "expert_batch_size")
        _require_positive(self, "expert_lr", "sam_rho")
        _require_fraction(self, "expert_momentum")
        _require_not_negative(self, "expert_weight_decay", "gsam_alpha")


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(_FromSettings):
    """One distillation: M-DATM's trajectory matching, METHOD §2, or what it is compared with, METHOD §6.

    Sweeps give all fields to every method. `distribution` and `gradient` do not read those that only trajectory
    matching has: N, M, T_minus, T, T_plus, interval, range_end, lr_alpha, momentum_alpha, alpha_floor,
    max_matching_loss, momentum_label. `distribution` trains no network, and so reads neither alpha_init nor batch_syn.
    What asks for something that a method cannot do is refused.
    """

    method: str = "trajectory"
    """What is matched: trajectory (MTT, DATM, M-DATM), distribution (DM) or gradient (DC)."""
    ipc: int
    """Images per class."""
    N: int
    """Inner steps on the synthetic set."""
    M: int
    """Expert epochs matched."""
    T_minus: int
    """First start epoch."""
    T: int
    """Upper bound of the start epoch at iteration 0."""
    T_plus: int
    """Largest upper bound of the start epoch."""
    interval: int
    """Iterations for each +1 of the upper bound."""
    range_end: str = "exclusive"
    """Whether the upper bound itself is a start epoch."""
    lr_pixel: float
    """Learning rate of the synthetic images."""
    lr_alpha: float
    """Learning rate of α; 0 keeps α as it is."""
    alpha_init: float = 0.01
    """α, the rate at which a network is trained on the set, before the first iteration."""
    batch_syn: int
    """Synthetic images an inner step; as many as the set or more: the whole set every step."""
    batch_real: int = 256
    """Real images of each class an iteration of distribution or gradient matching; of a smaller class all."""
    outer_loop: int = 0
    """Updates of the images that a network of gradient matching meets; 0: as ipc asks, see `loops`."""
    inner_loop: int = 0
    """Epochs on the set that the network is trained between two of them; 0: as ipc asks."""
    momentum_pixel: float = 0.5
    """Momentum of the images' SGD."""
    momentum_alpha: float = 0.5
    """Momentum of α's SGD."""
    max_matching_loss: float = 1.0
    """Iterations with a larger, or no finite, matching loss update nothing."""
    alpha_floor: float = 0.0
    """α is not let below this; 0: no floor, as in the reference codes, where α can turn negative."""
    label_mode: str = "hard"
    """Labels: hard in default order (M-DATM), or soft, initially experts' logits (DATM)."""
    lr_label: float = 0.0
    """Learning rate of soft labels; 0 keeps them as they are."""
    momentum_label: float = 0.9
    """Momentum of the soft labels' SGD."""
    initialization: str = "correct"
    """Initial images: real ones of the class, which expert 0 gets right (correct) or any (real); or noise."""
    ema_decay: float = 0.0
    """Decay, an iteration, of FTD's moving average of the images, which then is the result; 0: none."""
    gradient: str = "exact"
    """Of the matching loss: exact, truncated (TESLA's, without Hessian products) or unrolled (the reference codes')."""
    precision: str = "fp32"
    """What the network multiplies in: fp32, tf32 or bf16."""
    compile: str = "auto"
    """Whether the inner step is compiled: on, off, or auto, where it pays."""
    iterations: int = 10_000
    """Iterations of the whole distillation."""

    def __post_init__(self) -> None:
        """Refuse what cannot run, and settings that would have no effect."""
        _require_count(self, "ipc", "N", "M", "batch_syn", "batch_real", "iterations")
        _require_positive(self, "lr_pixel", "alpha_init", "max_matching_loss")
        _require_fraction(self, "momentum_pixel", "momentum_alpha", "momentum_label", "ema_decay")
        _require_not_negative(self, "lr_alpha", "lr_label", "alpha_floor")
        _require_whole(self, "outer_loop", "inner_loop")
        for name, known in {
            "method": ("trajectory", "distribution", "gradient"),
            "label_mode": ("hard", "soft"),
            "initialization": ("correct", "real", "noise"),
            "gradient": ("exact", "truncated", "unrolled"),
            "precision": ("fp32", "tf32", "bf16"),
            "compile": ("auto", "on", "off"),
        }.items():
            value = getattr(self, name)
            _require(value in known, f"{name} is one of {', '.join(known)}, not {value}")
        _require(
            self.label_mode == "soft" or self.lr_label == 0,
            f"lr_label must be 0 where labels are hard, not {self.lr_label}; set it to 0 or label_mode to soft",
        )
        _require(
            self.label_mode == "hard" or self.initialization != "noise",
            "initialization must be correct or real where labels are soft, not noise: "
            "they start as experts' logits on real images; or set label_mode to hard",
        )
        _require(
            self.alpha_init >= self.alpha_floor,
            f"alpha_init must be at least alpha_floor, not {self.alpha_init} with a floor of {self.alpha_floor}; "
            "lower alpha_floor",
        )
        _require(
            self.gradient != "unrolled" or self.compile != "on",
            "compile must be auto or off where gradient is unrolled, not on: the unrolled loop is not compiled",
        )
        self._require_of_method()
        _ = self.matching_range

    def _require_of_method(self) -> None:
        method = self.method
        if method != "trajectory":
            for name, only in {"label_mode": "hard", "gradient": "exact"}.items():
                value = getattr(self, name)
                _require(
                    value == only,
                    f"{name} must be {only} where method is {method}, not {value}; "
                    f"set {name} to {only} or method to trajectory",
                )
            _require(
                self.compile != "on",
                f"compile must be auto or off where method is {method}, not on: its step is not compiled",
            )
        _require(
            method != "distribution" or self.precision != "bf16",
            "precision must be fp32 or tf32 where method is distribution, not bf16: features are not rounded",
        )
        if method != "gradient":
            for name in ("outer_loop", "inner_loop"):
                value = getattr(self, name)
                _require(
                    value == 0,
                    f"{name} must be 0 where method is {method}, not {value}; set it to 0 or method to gradient",
                )
        elif self.loops[0] == 1:
            _require(
                self.inner_loop <= 1,
                f"inner_loop must be at most 1 where a network meets one update of the images, not {self.inner_loop}: "
                "it is not trained; set inner_loop to 0 or outer_loop to 2 or more",
            )

    @property
    def loops(self) -> tuple[int, int]:
        """Outer and inner loop of gradient matching. METHOD §6, DC: (1, 1), (10, 50), (50, 10) for ipc 1, 10, 50.

        Between and beyond them ours: as many updates as images a class, at most 50, and 500 / ipc epochs after each, at
        least 10 and at most 50.
        """
        by_ipc = (1, 1) if self.ipc == 1 else (min(self.ipc, 50), min(max(500 // self.ipc, 10), 50))
        return self.outer_loop or by_ipc[0], self.inner_loop or by_ipc[1]

    @property
    def matching_range(self) -> MatchingRange:
        """The start epochs that may be sampled."""
        return MatchingRange(
            T_minus=self.T_minus, T=self.T, T_plus=self.T_plus, interval=self.interval, range_end=self.range_end
        )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a fresh network is trained on a set and tested; the defaults are the challenge's. METHOD §3 and §6."""

    epochs: int = 1001
    """Epochs of training."""
    learning_rate: float = 0.01
    """Learning rate of the first epoch."""
    drop_after_epochs: int = 502
    """Epochs at the first learning rate, where the schedule is drop."""
    drop_factor: float = 0.1
    """What the learning rate is multiplied with at the drop."""
    momentum: float = 0.9
    """Momentum of SGD; β₁ of AdamW."""
    weight_decay: float = 5e-4
    """Weight decay of the optimiser: part of SGD's gradient, apart from AdamW's."""
    batch_size: int = 256
    """Images a step, shuffled; the last, partial batch is used."""
    optimizer: str = "sgd"
    """sgd or adamw."""
    schedule: str = "drop"
    """Of the learning rate: drop, once, or cosine: ½(1 + cos(π·epoch/epochs)) of the first, towards 0."""
    restart_momentum: bool = True
    """Whether the drop brings a new optimiser, as the challenge's does, so that momentum starts at 0 again."""
    temperature: float | None = None
    """Of the KL divergence to a teacher's labels; None: cross-entropy with hard labels."""
    cutmix: bool = False
    """Whether CutMix mixes a batch's augmented images; a teacher then labels what came out."""

    def __post_init__(self) -> None:
        """Refuse what cannot train, and settings that would have no effect."""
        _require_count(self, "epochs", "batch_size")
        _require_positive(self, "learning_rate", "drop_factor")
        _require_not_negative(self, "drop_after_epochs", "weight_decay")
        _require_fraction(self, "momentum")
        for name, known in {"optimizer": ("sgd", "adamw"), "schedule": ("drop", "cosine")}.items():
            value = getattr(self, name)
            _require(value in known, f"{name} is one of {', '.join(known)}, not {value}")
        if self.schedule == "cosine":
            for name in ("drop_after_epochs", "drop_factor", "restart_momentum"):
                value, default = getattr(self, name), getattr(Protocol, name)
                _require(
                    value == default,
                    f"{name} has no effect where schedule is cosine, so it must not be {value}; leave it at {default}",
                )
        if self.temperature is not None:
            _require_positive(self, "temperature")
        _require(
            not self.cutmix or self.temperature is not None,
            "cutmix must be False where labels are hard, not True: a mixed image needs a teacher's label; "
            "set it to False or set a temperature",
        )

    @classmethod
    def challenge(cls, epochs: int = 1001) -> Self:
        """Return the challenge's protocol, or the same over `epochs`, with the drop at the same share of them."""
        return cls(epochs=epochs, drop_after_epochs=round(epochs * 502 / 1001))

    @classmethod
    def regime(cls, name: str, *, epochs: int = 300, temperature: float = 20.0) -> Self:
        """Return how a network is trained in one of the label regimes; the small-scale recipes of METHOD §6, "Regimes".

        Args:
            name: `hard`: cross-entropy with hard labels, SGD, the rate dropped at 151 of 300 epochs with the momentum
                kept (StepLR). `soft`: a stored teacher label an image, AdamW, cosine. `soft_kd`: the same with the
                teacher labelling every view after DSA and CutMix, which is a reconstruction [R].
            epochs: Epochs of training; the drop stays at the same share of them.
            temperature: Of the KL divergence; `hard` has none, and takes no notice of it.

        Raises:
            ConfigError: There is no such regime, or no such training.
        """
        if name not in REGIMES:
            raise ConfigError(f"a label regime is one of {', '.join(REGIMES)}, not {name}")
        if name == "hard":
            return cls(epochs=epochs, drop_after_epochs=round(epochs * 151 / 300), restart_momentum=False)
        return cls(
            epochs=epochs,
            learning_rate=1e-3,
            weight_decay=0.01,
            optimizer="adamw",
            schedule="cosine",
            temperature=temperature,
            cutmix=name == "soft_kd",
        )
