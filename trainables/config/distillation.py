"""Settings of one distillation, frozen and validated at construction.

The fields have the names that search spaces use, so that `from_settings` can select them from a trial's flat settings.
"""

from dataclasses import dataclass

from trainables.config.arithmetic import PRECISIONS
from trainables.config.checks import (
    FromSettings,
    require,
    require_count,
    require_fraction,
    require_not_negative,
    require_positive,
    require_whole,
)
from trainables.config.matching_range import MatchingRange
from trainables.errors import ConfigError

__all__ = ["AUTO", "DistillationConfig"]

AUTO = "auto"
"""The `alpha_init` that is found before the first iteration."""


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(FromSettings):
    """One distillation: by M-DATM's trajectory matching, or by a method that it is compared with.

    Source: docs/method.md, "Distillation", "DC" and "DM".

    Sweeps set all fields for every method. `distribution` and `gradient` do not read the fields of trajectory
    matching: N, M, T_minus, T, T_plus, interval, range_end, lr_alpha, alpha_update, momentum_alpha, alpha_floor,
    max_matching_loss, momentum_label. `distribution` trains no network, so it reads neither alpha_init nor batch_syn.
    A setting that asks for something the method cannot do is refused.
    """

    method: str
    """What is matched: trajectory (MTT, DATM, M-DATM), distribution (DM), gradient (DC), or another method's name."""
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
    range_end: str
    """Whether the upper bound itself is a start epoch."""
    lr_pixel: float
    """Learning rate of the synthetic images."""
    lr_alpha: float
    """Learning rate of α, or of log α; 0 keeps α as it is."""
    alpha_init: float | str
    """α, the rate at which a network is trained on the set, before the first iteration; auto: `starting_alpha` is to
    find it, and a distillation is made with the number found."""
    alpha_update: str
    """What is learned: α itself (linear), which can become negative, or its logarithm (log)."""
    batch_syn: int
    """Synthetic images per inner step; at least the size of the set: the whole set in every step."""
    batch_real: int
    """Real images per class in an iteration of distribution or gradient matching; all images of a smaller class."""
    outer_loop: int
    """Updates of the images per network of gradient matching; 0: depends on ipc, see `loops`."""
    inner_loop: int
    """Epochs that the network is trained on the set between two such updates; 0: depends on ipc, see `loops`."""
    momentum_pixel: float
    """Momentum of the images' SGD."""
    momentum_alpha: float
    """Momentum of α's SGD."""
    max_matching_loss: float
    """An iteration whose matching loss is larger or not finite updates nothing."""
    alpha_floor: float
    """Lower bound of α; 0: no bound, as in the reference codes, where α can become negative."""
    label_mode: str
    """Labels: hard, in default order (M-DATM), or soft, initially experts' logits (DATM)."""
    lr_label: float
    """Learning rate of soft labels; 0 keeps them as they are."""
    momentum_label: float
    """Momentum of the soft labels' SGD."""
    initialization: str
    """Initial images: real ones of the class that expert 0 classifies correctly (correct), any real ones, or noise."""
    ema_decay: float
    """Decay per iteration of FTD's moving average of the images, which is then the result; 0: no average."""
    gradient: str
    """How the gradient of the matching loss is computed: exact, truncated (TESLA's, without Hessian products) or
    unrolled (the reference codes')."""
    precision: str
    """Number format of the network's products: fp32, tf32 or bf16; the first two are every stage's."""
    compile: str
    """Whether the inner step is compiled: on, off, or auto, which compiles it where it pays, and always in bf16."""
    iterations: int
    """Iterations of the whole distillation."""

    def __post_init__(self) -> None:
        """Refuse invalid settings, and settings that would have no effect."""
        require_count(self, "ipc", "N", "M", "batch_syn", "batch_real", "iterations")
        require_positive(self, "lr_pixel", "max_matching_loss")
        if self.alpha_init != AUTO:
            require(
                not isinstance(self.alpha_init, str),
                f"alpha_init must be larger than 0 and finite, or {AUTO}, not {self.alpha_init!r}",
            )
            require_positive(self, "alpha_init")
        require_fraction(self, "momentum_pixel", "momentum_alpha", "momentum_label", "ema_decay")
        require_not_negative(self, "lr_alpha", "lr_label", "alpha_floor")
        require_whole(self, "outer_loop", "inner_loop")
        for name, known in {
            "label_mode": ("hard", "soft"),
            "initialization": ("correct", "real", "noise"),
            "gradient": ("exact", "truncated", "unrolled"),
            "precision": PRECISIONS,
            "compile": ("auto", "on", "off"),
            "alpha_update": ("linear", "log"),
        }.items():
            value = getattr(self, name)
            require(value in known, f"{name} is one of {', '.join(known)}, not {value}")
        require(
            self.label_mode == "soft" or self.lr_label == 0,
            f"lr_label must be 0 where labels are hard, not {self.lr_label}; set it to 0 or label_mode to soft",
        )
        require(
            self.label_mode == "hard" or self.initialization != "noise",
            "initialization must be correct or real where labels are soft, not noise: "
            "they start as experts' logits on real images; or set label_mode to hard",
        )
        require(
            self.alpha_init == AUTO or self.alpha >= self.alpha_floor,
            f"alpha_init must be at least alpha_floor, not {self.alpha_init} with a floor of {self.alpha_floor}; "
            "lower alpha_floor",
        )
        require(
            self.gradient != "unrolled" or self.compile != "on",
            "compile must be auto or off where gradient is unrolled, not on: the unrolled loop is not compiled",
        )
        if self.precision == "bf16":
            self._require_compiled()
        self._require_of_method()
        _ = self.matching_range

    def _require_compiled(self) -> None:
        """Refuse bf16 where the step is not compiled: written out, it moves twice the bytes of the library's fp32."""
        slow = "uncompiled, bf16 moves twice the bytes of fp32"
        require(
            self.compile != "off",
            f"compile must be auto or on where precision is bf16, not off: {slow}; set compile to auto or precision to "
            "fp32",
        )
        for name, value, step in (("gradient", "unrolled", "the unrolled loop"), ("method", "gradient", "its step")):
            require(
                getattr(self, name) != value,
                f"precision must be fp32 or tf32 where {name} is {value}, not bf16: {step} is not compiled, and {slow}",
            )

    def _require_of_method(self) -> None:
        """Refuse settings that the method cannot follow."""
        method = self.method
        if method != "trajectory":
            for name, only in {"label_mode": "hard", "gradient": "exact"}.items():
                value = getattr(self, name)
                require(
                    value == only,
                    f"{name} must be {only} where method is {method}, not {value}; "
                    f"set {name} to {only} or method to trajectory",
                )
            require(
                self.compile != "on",
                f"compile must be auto or off where method is {method}, not on: its step is not compiled",
            )
        require(
            method != "distribution" or self.precision != "bf16",
            "precision must be fp32 or tf32 where method is distribution, not bf16: features are not rounded",
        )
        if method != "gradient":
            for name in ("outer_loop", "inner_loop"):
                value = getattr(self, name)
                require(
                    value == 0,
                    f"{name} must be 0 where method is {method}, not {value}; set it to 0 or method to gradient",
                )
        elif self.loops[0] == 1:
            require(
                self.inner_loop <= 1,
                f"inner_loop must be at most 1 where a network serves one update of the images, not {self.inner_loop}: "
                "it is not trained; set inner_loop to 0 or outer_loop to 2 or more",
            )

    @property
    def alpha(self) -> float:
        """`alpha_init` as a number.

        Raises:
            ConfigError: It is auto, which names no number.
        """
        if isinstance(self.alpha_init, str):
            raise ConfigError(f"α is not known yet where alpha_init is {self.alpha_init}; find it first")
        return self.alpha_init

    @property
    def loops(self) -> tuple[int, int]:
        """Outer and inner loop of gradient matching: (1, 1), (10, 50), (50, 10) for ipc 1, 10, 50.

        Source: docs/method.md, "DC". For other ipc our own rule: as many updates as images per class, at most 50, and
        500 / ipc epochs after each update, at least 10 and at most 50.
        """
        by_ipc = (1, 1) if self.ipc == 1 else (min(self.ipc, 50), min(max(500 // self.ipc, 10), 50))
        return self.outer_loop or by_ipc[0], self.inner_loop or by_ipc[1]

    @property
    def matching_range(self) -> MatchingRange:
        """The start epochs that may be sampled."""
        return MatchingRange(
            T_minus=self.T_minus, T=self.T, T_plus=self.T_plus, interval=self.interval, range_end=self.range_end
        )
