"""What `search_spaces` says of a setting and what `trainables` does with it: neither imports the other."""

import math
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from orchestrator.stages.evaluation import CHALLENGE_DEPTH, CHALLENGE_WIDTH
from search_spaces import SpaceError
from search_spaces.vocabulary import AUGMENTATIONS, DEFAULTS, DERIVED, VOCABULARY, key
from tests.support.settings import distillation_config, expert_recipe
from trainables.config.arithmetic import IEEE, Arithmetic
from trainables.config.distillation import DistillationConfig
from trainables.config.experts import ExpertRecipe
from trainables.config.protocol import Protocol
from trainables.data import catalog
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet

DISTILLATION = distillation_config(
    ipc=2, N=5, M=2, T_minus=0, T=15, T_plus=20, interval=100, lr_pixel=1.0, lr_alpha=1e-5, batch_syn=8
)
CONFIGS = (DISTILLATION, expert_recipe(), IEEE)
FIELDS = [(config, field) for config in CONFIGS for field in fields(config)]
WORDS = sorted(
    {
        *(value for value in DEFAULTS.values() if isinstance(value, str)),
        "trajectory", "distribution", "gradient", "hard", "soft", "correct", "real", "noise", "exact", "truncated",
        "unrolled", "linear", "log", "fp32", "tf32", "bf16", "auto", "on", "off", "exclusive", "inclusive", "gsam",
        "sgd", "other", "",
    }
)  # fmt: skip
PROBES: dict[type, list[Any]] = {
    int: [-1, 0, 1, 2, 3],
    float: [-1.0, -1e-9, 0.0, 1e-9, 0.3, 0.999, 1.0, 2.0, math.nan, math.inf],
    bool: [False, True],
    str: WORDS,
}
# What other settings must be for a setting to have any effect, where it is refused otherwise.
WITH: dict[str, dict[str, Any]] = {
    "lr_label": {"label_mode": "soft"},
    "alpha_floor": {"alpha_init": 2.0},
    "outer_loop": {"method": "gradient"},
    "inner_loop": {"method": "gradient", "outer_loop": 2},
}


def test_the_vocabulary_has_every_field_and_alone_has_defaults() -> None:
    for config, field in FIELDS:
        assert field.name in VOCABULARY or field.name in DERIVED, (type(config), field.name)
        assert field.default is MISSING and field.default_factory is MISSING, (type(config), field.name)


def test_the_configs_have_every_key_of_distillation_and_experts() -> None:
    """Keys that neither config has are read by name; tests/search_spaces fails for one that nobody reads."""
    names = [field.name for config, field in FIELDS if config is not IEEE]
    assert len(names) == len(set(names))
    # The format of products is the process's, and bf16 the distillation's network's.
    assert {field.name for field in fields(Arithmetic)} - set(names) == {"deterministic"}
    experts = {name for name in VOCABULARY if name.startswith(("expert_", "sam_", "gsam_"))}
    assert experts - {"expert_count", "expert_seed"} == {field.name for field in fields(ExpertRecipe)}
    searched = {name for name, entry in VOCABULARY.items() if entry.searchable} - {"T_width", "T_growth"}
    assert searched <= {field.name for field in fields(DistillationConfig)}


# Which methods there are is for the registry of search_spaces to say: users add to it.
RULED = [(config, field.name) for config, field in FIELDS if field.name in VOCABULARY and field.name != "method"]


@pytest.mark.parametrize(("config", "name"), RULED)
def test_both_take_and_refuse_the_same_values(config: Any, name: str) -> None:
    entry, base = key(name), replace(config, **WITH.get(name, {}))
    taken = []
    for value in [*PROBES[entry.kind], *(WORDS if entry.words else [])]:
        try:
            entry.check(value)
        except SpaceError:
            with pytest.raises(ConfigError):
                replace(base, **{name: value})
        else:
            assert getattr(replace(base, **{name: value}), name) == value
            taken.append(value)
    assert len(taken) >= 2  # or the probes would show nothing


def test_augmentation_families_are_the_same_in_both() -> None:
    assert AUGMENTATIONS == catalog.ALL_FAMILIES


def test_the_challenges_protocol_and_the_regimes_are_the_vocabularys_defaults() -> None:
    assert Protocol.challenge().epochs == DEFAULTS["protocol_epochs"]
    regime = Protocol.regime("soft")
    assert (regime.epochs, regime.temperature) == (DEFAULTS["regime_epochs"], DEFAULTS["temperature"])
    network = ConvNet(channels=3, image_size=32, classes=10)
    assert (network.depth, network.width) == (DEFAULTS["net_depth"], DEFAULTS["net_width"])
    assert (DEFAULTS["net_depth"], DEFAULTS["net_width"]) == (CHALLENGE_DEPTH, CHALLENGE_WIDTH)
