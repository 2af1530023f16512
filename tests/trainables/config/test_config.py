"""Settings: every rule refuses with a message that names the field and the value."""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.settings import distillation_config, expert_recipe
from trainables.config.arithmetic import IEEE, PRECISIONS, Arithmetic
from trainables.config.distillation import DistillationConfig
from trainables.config.experts import ExpertRecipe
from trainables.config.protocol import Protocol
from trainables.distillation import inner_step
from trainables.distillation.matching import METHODS
from trainables.errors import ConfigError

VALID = {
    "ipc": 10,
    "N": 40,
    "M": 2,
    "T_minus": 0,
    "T": 15,
    "T_plus": 20,
    "interval": 100,
    "lr_pixel": 1000.0,
    "lr_alpha": 1e-5,
    "batch_syn": 1000,
}
NOT_POSITIVE = [0, -1, math.nan, math.inf]
NOT_A_FRACTION = [-0.1, 1, 1.5, math.nan]


def distillation(**changed: Any) -> DistillationConfig:
    return distillation_config(**{**VALID, **changed})


@pytest.mark.parametrize(
    ("build", "field", "values"),
    [
        *(
            (distillation, field, NOT_POSITIVE)
            for field in ("ipc", "N", "M", "lr_pixel", "alpha_init", "batch_syn", "max_matching_loss", "iterations")
        ),
        *(
            (distillation, field, NOT_A_FRACTION)
            for field in ("momentum_pixel", "momentum_alpha", "momentum_label", "ema_decay")
        ),
        *((distillation, field, [-1e-9, math.nan, math.inf]) for field in ("lr_alpha", "lr_label", "alpha_floor")),
        *(
            (distillation, field, ["other", ""])
            for field in ("label_mode", "initialization", "gradient", "precision", "compile")
        ),
        (distillation, "range_end", ["open", ""]),
        (distillation, "interval", [0, -1]),
        *((expert_recipe, field, NOT_POSITIVE) for field in ("expert_lr", "expert_batch_size", "sam_rho")),
        (expert_recipe, "expert_momentum", NOT_A_FRACTION),
        *((expert_recipe, field, [-1e-9, math.nan]) for field in ("expert_weight_decay", "gsam_alpha")),
        (expert_recipe, "expert_optimizer", ["adam", ""]),
        *((Protocol, field, NOT_POSITIVE) for field in ("epochs", "learning_rate", "batch_size", "drop_factor")),
        (Protocol, "momentum", NOT_A_FRACTION),
    ],
)
def test_a_wrong_value_is_refused_by_name(build: Callable[..., object], field: str, values: Sequence[object]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{field} .*not {re.escape(str(value))}$"):
            build(**{field: value})


@pytest.mark.parametrize(
    ("build", "field", "value"),
    [
        *((distillation, field, 1.5) for field in ("ipc", "N", "M", "batch_syn", "iterations", "interval")),
        *((distillation, "T_minus", 0.5), (distillation, "T", 3.5), (distillation, "T_plus", 30.5)),
        (expert_recipe, "expert_batch_size", 1.5),
        *((expert_recipe, field, math.inf) for field in ("expert_weight_decay", "gsam_alpha")),
        *((Protocol, field, 1.5) for field in ("epochs", "batch_size")),
        *((Protocol, "drop_after_epochs", -1), (Protocol, "weight_decay", -1e-9), (Protocol, "weight_decay", math.nan)),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(build: Callable[..., object], field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{field}.*{re.escape(str(value))}"):
        build(**{field: value})


def test_the_bounds_themselves_are_allowed() -> None:
    distillation(lr_alpha=0.0, momentum_pixel=0.0, momentum_alpha=0.0, T_minus=0, T=1, T_plus=1, interval=1)
    distillation(label_mode="soft", lr_label=0.0, momentum_label=0.0, ema_decay=0.0)
    distillation(alpha_init=0.02, alpha_floor=0.02)
    expert_recipe(expert_weight_decay=0.0, gsam_alpha=0.0, expert_momentum=0.0)


class TestRulesBetweenFields:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"lr_label": 5.0}, "lr_label must be 0 where labels are hard, not 5.0; set it to 0 or label_mode to soft"),
            ({"label_mode": "soft", "initialization": "noise"}, "initialization must be correct or real .* not noise"),
            ({"alpha_floor": 0.02}, "alpha_init must be at least alpha_floor, not 0.01 with a floor of 0.02; lower"),
            ({"gradient": "unrolled", "compile": "on"}, "compile must be auto or off where gradient is unrolled, not"),
            ({"precision": "bf16", "compile": "off"}, "compile must be auto or on .* bf16, not off: .* set compile to"),
            (
                {"precision": "bf16", "gradient": "unrolled"},
                "precision must be fp32 or tf32 where gradient is unrolled",
            ),
            (
                {"precision": "bf16", "method": "gradient"},
                "precision must be fp32 or tf32 where method is gradient, not",
            ),
        ],
    )
    def test_are_said_in_one_line(self, changed: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            distillation(**changed)
        assert len(str(caught.value).splitlines()) == 1

    def test_each_part_alone_is_allowed(self) -> None:
        distillation(label_mode="soft", lr_label=5.0)
        distillation(initialization="noise")
        distillation(gradient="unrolled")
        distillation(gradient="truncated", compile="on")
        distillation(precision="bf16", gradient="truncated")
        distillation(precision="bf16", compile="on")


def test_the_names_are_those_of_the_modules_that_act_on_them() -> None:
    for field, names in (("gradient", METHODS), ("precision", tuple(inner_step.PRECISIONS))):
        for name in names:
            distillation(**{field: name})
        with pytest.raises(ConfigError, match=rf"^{field} is one of {', '.join(names)}, not other$"):
            distillation(**{field: "other"})


def test_arithmetic_is_labelled_where_it_changes_what_is_trained() -> None:
    labels = {
        (precision, deterministic): Arithmetic(precision=precision, deterministic=deterministic).label
        for precision in PRECISIONS
        for deterministic in (False, True)
    }
    assert labels["fp32", False] == labels["bf16", False] == IEEE.label == ""
    assert labels["fp32", True] == labels["bf16", True] == "deterministic"
    assert (labels["tf32", False], labels["tf32", True]) == ("tf32", "tf32-deterministic")
    with pytest.raises(ConfigError, match="deterministic must be True or False, not 1"):
        Arithmetic(precision="fp32", deterministic=1)  # type: ignore[arg-type]


def test_a_range_without_a_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="T_minus < T ≤ T_plus, not 15, 15, 20"):
        distillation(T_minus=15)


def test_the_matching_range_is_that_of_the_fields() -> None:
    config = distillation(T_minus=1, T=3, T_plus=4, interval=7, range_end="inclusive")
    assert dataclasses.asdict(config.matching_range) == {
        "T_minus": 1,
        "T": 3,
        "T_plus": 4,
        "interval": 7,
        "range_end": "inclusive",
    }


@pytest.mark.parametrize("kind", [DistillationConfig, ExpertRecipe])
class TestFromSettings:
    def settings(self, kind: type[DistillationConfig] | type[ExpertRecipe]) -> dict[str, Any]:
        filled = distillation() if kind is DistillationConfig else expert_recipe(expert_lr=0.5)
        return dataclasses.asdict(filled)

    def test_takes_its_own_and_ignores_the_others(self, kind: type[DistillationConfig] | type[ExpertRecipe]) -> None:
        settings = self.settings(kind)
        built = kind.from_settings({**settings, "net_depth": 3, "trials": 20})
        assert dataclasses.asdict(built) == settings

    def test_requires_all_of_its_own(self, kind: type[DistillationConfig] | type[ExpertRecipe]) -> None:
        settings = self.settings(kind)
        for field in settings:
            with pytest.raises(KeyError, match=field):
                kind.from_settings({name: value for name, value in settings.items() if name != field})


@pytest.mark.parametrize("config", [distillation(), expert_recipe(), Protocol()], ids=lambda c: type(c).__name__)
def test_settings_are_frozen(config: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 1)


class TestProtocol:
    def test_the_defaults_are_the_challenges(self) -> None:
        assert Protocol.challenge() == Protocol()
        assert dataclasses.astuple(Protocol()) == (
            1001, 0.01, 502, 0.1, 0.9, 5e-4, 256, "sgd", "drop", True, None, False
        )  # fmt: skip

    @pytest.mark.parametrize(("epochs", "drop"), [(1001, 502), (100, 50), (301, 151), (10, 5)])
    def test_a_shorter_one_drops_at_the_same_share(self, epochs: int, drop: int) -> None:
        assert dataclasses.replace(Protocol(), epochs=epochs, drop_after_epochs=drop) == Protocol.challenge(epochs)
