"""How a network is trained on a set of images and tested."""

from dataclasses import dataclass
from typing import Self

from trainables.config.checks import (
    require,
    require_count,
    require_fraction,
    require_not_negative,
    require_positive,
)
from trainables.errors import ConfigError

__all__ = ["REGIMES", "Protocol"]

REGIMES = ("hard", "soft", "soft_kd")
"""Where a set's labels come from in an evaluation: `Protocol.regime`, `regimes.targets`.

Source: docs/method.md, "Label regimes".
"""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a new network is trained on a set of images and tested; the defaults are the challenge's.

    Source: docs/method.md, "Challenge protocol" and "Label regimes".
    """

    epochs: int = 1001
    """Epochs of training."""
    learning_rate: float = 0.01
    """Learning rate of the first epoch."""
    drop_after_epochs: int = 502
    """Epochs at the first learning rate, if the schedule is drop."""
    drop_factor: float = 0.1
    """Factor by which the drop multiplies the learning rate."""
    momentum: float = 0.9
    """Momentum of SGD; β₁ of AdamW."""
    weight_decay: float = 5e-4
    """Weight decay: part of the gradient with SGD, decoupled from it with AdamW."""
    batch_size: int = 256
    """Images per step, shuffled; the last, partial batch is used."""
    optimizer: str = "sgd"
    """sgd or adamw."""
    schedule: str = "drop"
    """Schedule of the learning rate: one drop, or cosine: ½(1 + cos(π·epoch/epochs)) of the first, towards 0."""
    restart_momentum: bool = True
    """Whether the drop creates a new optimiser, as the challenge's does, so that momentum restarts at 0."""
    temperature: float | None = None
    """Temperature of the KL divergence to a teacher's labels; None: cross-entropy with hard labels."""
    cutmix: bool = False
    """Whether CutMix mixes a batch's augmented images; a teacher then labels the mixed images."""

    def __post_init__(self) -> None:
        """Refuse invalid settings, and settings that would have no effect."""
        require_count(self, "epochs", "batch_size")
        require_positive(self, "learning_rate", "drop_factor")
        require_not_negative(self, "drop_after_epochs", "weight_decay")
        require_fraction(self, "momentum")
        for name, known in {"optimizer": ("sgd", "adamw"), "schedule": ("drop", "cosine")}.items():
            value = getattr(self, name)
            require(value in known, f"{name} is one of {', '.join(known)}, not {value}")
        if self.schedule == "cosine":
            for name in ("drop_after_epochs", "drop_factor", "restart_momentum"):
                value, default = getattr(self, name), getattr(Protocol, name)
                require(
                    value == default,
                    f"{name} has no effect where schedule is cosine, so it must not be {value}; leave it at {default}",
                )
        if self.temperature is not None:
            require_positive(self, "temperature")
        require(
            not self.cutmix or self.temperature is not None,
            "cutmix must be False where labels are hard, not True: a mixed image needs a teacher's label; "
            "set it to False or set a temperature",
        )

    @classmethod
    def challenge(cls, epochs: int = 1001) -> Self:
        """Return the challenge's protocol, scaled to `epochs`: the drop comes at the same share of them."""
        return cls(epochs=epochs, drop_after_epochs=round(epochs * 502 / 1001))

    @classmethod
    def regime(cls, name: str, *, epochs: int = 300, temperature: float = 20.0) -> Self:
        """Return the protocol of a label regime: the small-scale recipes.

        Source: docs/method.md, "Label regimes".

        Args:
            name: `hard`: cross-entropy with hard labels, SGD, the rate dropped at 151 of 300 epochs with the momentum
                kept (StepLR). `soft`: one stored teacher label per image, AdamW, cosine. `soft_kd`: the same, but the
                teacher labels every view after DSA and CutMix, which is a reconstruction [R].
            epochs: Epochs of training; the drop stays at the same share of them.
            temperature: Temperature of the KL divergence; `hard` does not use it.

        Raises:
            ConfigError: The regime is unknown, or a value is invalid.
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
