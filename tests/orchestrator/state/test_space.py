"""The space that is asked for: the preset's rules, then the overrides, then the options."""

from pathlib import Path

import pytest

from orchestrator.state.space import load_space
from search_spaces import SpaceError, load


def test_a_space_is_taken_by_name_by_path_or_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from search_spaces.registered.digits import SPACE\n")
    assert load_space("digits", {}) == load_space(file, {}) == load_space(load("digits"), {}) == load("digits")


def test_text_and_values_are_the_same_override() -> None:
    assert load_space("digits", {"N": "3"}) == load_space("digits", {"N": 3})


def test_several_values_are_a_sequence_or_joined_by_commas() -> None:
    joined = load_space("digits", {}, baselines="k_center,herding")
    assert load_space("digits", {}, baselines=("k_center", "herding")) == joined
    assert joined.fixed["baselines"].value == "k_center,herding"


def test_an_option_comes_after_an_override_and_none_is_not_given() -> None:
    space = load_space("digits", {"trials": 3, "expert_count": 5}, trials=7, expert_count=None)
    assert (space.fixed["trials"].value, space.fixed["expert_count"].value) == (7, 5)


def test_an_override_comes_after_the_presets_rules() -> None:
    assert load_space("digits", {"label_mode": "hard", "lr_label": 0}, "datm").fixed["label_mode"].value == "hard"
    with pytest.raises(SpaceError):
        load_space("digits", {}, "no_such_preset")
