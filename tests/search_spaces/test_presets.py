"""The methods' rules and figures against the tables of docs/method.md, written out by hand."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from search_spaces import SpaceError, Study, load, names
from search_spaces.presets import PRESETS, preset, settings
from search_spaces.vocabulary import VOCABULARY

# docs/method.md, "Published settings": N, M, T⁻, T, T⁺, batch_syn, lr_img, lr_y; lr_lr from "Distillation".
DATM = {
    ("cifar10", 1): (80, 2, 0, 4, 4, 10, 100, 5, 1e-7),
    ("cifar10", 10): (80, 2, 0, 10, 20, 100, 100, 2, 1e-5),
    ("cifar10", 50): (80, 2, 0, 20, 40, 500, 1000, 2, 1e-5),
    ("cifar10", 500): (40, 2, 40, 60, 60, 1000, 50, 10, 1e-5),
    ("cifar10", 1000): (100, 2, 40, 60, 60, 1000, 50, 10, 1e-5),
    ("cifar100", 1): (40, 3, 0, 10, 20, 1000, 1000, 10, 1e-5),
    ("cifar100", 10): (80, 2, 0, 30, 50, 1000, 1000, 10, 1e-5),
    ("cifar100", 50): (80, 2, 20, 70, 70, 1000, 1000, 10, 1e-5),
    ("cifar100", 100): (80, 2, 30, 70, 70, 1000, 50, 10, 1e-5),
    ("tiny_imagenet", 1): (40, 2, 0, 15, 20, 1000, 10_000, 10, 1e-4),
    ("tiny_imagenet", 10): (40, 2, 10, 50, 50, 500, 100, 10, 1e-4),
    ("tiny_imagenet", 50): (20, 2, 40, 70, 70, 1000, 100, 10, 1e-4),
}
# docs/method.md, "Published settings": N, M, T⁻, T, T⁺, I, batch_syn, lr_pixel; lr_lr is DATM's.
TABLE_1 = {
    ("cifar100", 10): (40, 2, 0, 15, 20, 100, 1000, 1000, 1e-5),
    ("tiny_imagenet", 10): (25, 2, 0, 15, 20, 250, 1000, 10_000, 1e-4),
}
# docs/method.md, "Matching range", E_exp = I·(T⁺ − T), for the configurations whose range grows.
INTERVALS = {
    ("cifar10", 10): 100, ("cifar10", 50): 100, ("cifar100", 1): 100, ("cifar100", 10): 100, ("tiny_imagenet", 1): 400,
}  # fmt: skip


def matched_range(figures: Mapping[str, Any]) -> tuple[int, int, int]:
    T = figures["T_minus"] + figures["T_width"]
    return figures["T_minus"], T, T + figures["T_growth"]


def refusal(action: Callable[..., object], *args: object) -> str:
    with pytest.raises(SpaceError) as caught:
        action(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_datm_has_a_row_a_configuration() -> None:
    assert PRESETS["datm"].figures.keys() == PRESETS["datm_hard"].figures.keys() == DATM.keys()
    assert PRESETS["m_datm"].figures.keys() == TABLE_1.keys()


@pytest.mark.parametrize("place", DATM)
def test_datms_figures(place: tuple[str, int]) -> None:
    figures = settings("datm", *place)
    rest = [figures[key] for key in ("batch_syn", "lr_pixel", "lr_label", "lr_alpha")]
    assert (figures["N"], figures["M"], *matched_range(figures), *rest) == DATM[place]
    assert figures.get("interval") == INTERVALS.get(place)
    assert figures["max_matching_loss"] == (1.1 if place == ("cifar10", 1) else 1.0)
    assert figures.get("net_depth", 3) == (4 if place[0] == "tiny_imagenet" else 3)
    assert figures["ipc"] == place[1] and figures["iterations"] == 10_000


@pytest.mark.parametrize("place", DATM)
def test_datm_hard_is_datm_with_hard_labels_and_the_challenges_images(place: tuple[str, int]) -> None:
    soft, hard = settings("datm", *place), settings("datm_hard", *place)
    assert {key for key in soft if soft[key] != hard[key]} == {"label_mode", "lr_label", "zca"}
    assert (hard["label_mode"], hard["lr_label"], hard["zca"]) == ("hard", 0.0, False)


@pytest.mark.parametrize("place", TABLE_1)
def test_m_datms_figures(place: tuple[str, int]) -> None:
    figures = settings("m_datm", *place)
    rest = [figures[key] for key in ("interval", "batch_syn", "lr_pixel", "lr_alpha")]
    assert (figures["N"], figures["M"], *matched_range(figures), *rest) == TABLE_1[place]
    assert (figures["label_mode"], figures["zca"], figures["initialization"]) == ("hard", False, "correct")
    assert (figures["sam_rho"], figures["gsam_alpha"], figures["expert_optimizer"]) == (0.01, 0.3, "gsam")


@pytest.mark.parametrize(("dataset", "ema", "lr_pixel"), [("cifar100", 0.9995, 1000), ("tiny_imagenet", 0.999, 10_000)])
def test_ftds_figures(dataset: str, ema: float, lr_pixel: int) -> None:
    figures = settings("ftd", dataset, 10)
    assert (figures["N"], *matched_range(figures)) == (20, 0, 40, 40)
    assert (figures["ema_decay"], figures["lr_pixel"], figures["gsam_alpha"]) == (ema, lr_pixel, 1.0)
    assert figures["iterations"] == 5000 and figures["zca"] and figures["label_mode"] == "hard"
    assert float(figures["max_matching_loss"]) > 3.4028235e38, "no float32 loss is above it"


def test_what_tells_the_methods_apart() -> None:
    rules = {name: method.rules for name, method in PRESETS.items()}
    assert list(rules) == ["mtt", "ftd", "datm", "datm_hard", "m_datm"]

    def differing(one: str, other: str) -> set[str]:
        keys = rules[one].keys() | rules[other].keys()
        return {key for key in keys if rules[one].get(key) != rules[other].get(key)}

    assert differing("mtt", "ftd") == {"expert_optimizer", "ema_decay"}
    assert differing("datm", "datm_hard") == {"label_mode", "lr_label", "zca"}
    assert differing("datm_hard", "m_datm") == set()
    assert rules["mtt"]["expert_optimizer"] == "sgd" and rules["mtt"]["initialization"] == "real"
    assert rules["mtt"]["T_growth"] == rules["mtt"]["T_minus"] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_rules_and_figures_keep_the_vocabularys_rules(name: str) -> None:
    method = PRESETS[name]
    for values in (method.rules, method.everywhere, *method.figures.values()):
        for key, value in values.items():
            assert VOCABULARY[key].check(value) == value


def test_rules_are_no_scale() -> None:
    """A preset on the digits must not ask for the papers' scale."""
    scale = {"iterations", "expert_count", "horizon_epochs", "N", "M", "batch_syn", "lr_pixel", "lr_alpha", "interval"}
    assert [name for name, method in PRESETS.items() if scale & method.rules.keys()] == []


def test_what_is_not_known_lists_what_is() -> None:
    assert refusal(preset, "dtam") == "unknown preset dtam; did you mean datm? Known: mtt, ftd, datm, datm_hard, m_datm"
    assert refusal(settings, "ftd", "cifar10", 10).endswith("known: cifar100 at 10, tiny_imagenet at 10")
    assert refusal(settings, "mtt", "cifar10", 10).endswith("known: none")


@pytest.mark.parametrize("name", [name for name in names() if not isinstance(load(name), Study)])
@pytest.mark.parametrize("method", PRESETS)
def test_every_preset_applies_to_every_search(name: str, method: str) -> None:
    space = load(name).override(PRESETS[method].rules, source=f"--preset {method}")
    point = space.resolve(space.first())
    assert {key: point[key] for key in PRESETS[method].rules} == PRESETS[method].rules
    assert space.parameters["zca"].source == f"--preset {method}"


def test_a_preset_that_would_undo_a_studys_variants_is_refused() -> None:
    study = load("digits_range_study")
    said = refusal(study.override, PRESETS["ftd"].rules, "--preset ftd")
    assert said.startswith("T_minus is what the variants early, medium, late of digits_range_study set, and --preset")
    assert study.override(PRESETS["datm"].rules, "--preset datm").fixed["label_mode"].value == "soft"
