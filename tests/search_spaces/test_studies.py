"""A space with variants: its grid, what it refuses, and how an override meets it."""

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest

from search_spaces import Choice, Fixed, Integer, Real, Space, SpaceError, Study

optuna.logging.set_verbosity(optuna.logging.WARNING)

SHARED = {
    "N": Fixed(5),
    "M": Fixed(2),
    "interval": Fixed(10),
    "lr_pixel": Fixed(1.0),
    "lr_alpha": Fixed(0.0),
    "batch_syn": Fixed(10),
    "ipc": Fixed(1),
    "iterations": Fixed(100),
    "horizon_epochs": Fixed(12),
    "validation_epochs": Fixed(3),
    "full_data_epochs": Fixed(2),
    "validation_every_iterations": Fixed(10),
    "repeats": Fixed(2),
}
VARIANTS = {
    "early": {"T_minus": 0, "T_width": 3, "T_growth": 1},
    "late": {"T_minus": 6, "T_width": 3, "T_growth": 1, "N": 7},
}


def build(parameters: Mapping[str, Any] = SHARED, variants: Mapping[str, Any] = VARIANTS) -> Study:
    return Study(name="s", title="t", dataset="d", reference="r", parameters=parameters, variants=variants)


def refusal(action: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(SpaceError) as caught:
        action(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestGrid:
    def test_the_points_are_all_variants_repeat_by_repeat(self) -> None:
        assert build().points() == [
            {"variant": "early", "repeat": 0},
            {"variant": "late", "repeat": 0},
            {"variant": "early", "repeat": 1},
            {"variant": "late", "repeat": 1},
        ]
        assert build().first() == build().points()[0]

    def test_a_point_has_what_its_variant_sets_and_the_shared_rest(self) -> None:
        early, late = (build().resolve({"variant": name, "repeat": 1}) for name in ("early", "late"))
        assert (early["T_minus"], early["T"], early["T_plus"], early["N"]) == (0, 3, 4, 5)
        assert (late["T_minus"], late["T"], late["T_plus"], late["N"]) == (6, 9, 10, 7)
        assert (late["variant"], late["repeat"]) == ("late", 1)
        assert {key for key in early if early[key] != late[key]} == {"T_minus", "T", "T_plus", "N", "variant"}

    def test_a_draw_asks_for_variant_and_repeat_alone(self) -> None:
        space = build()
        raw: dict[str, Any] = {"variant": "late", "repeat": 1}
        trial = optuna.trial.FixedTrial(raw)
        rest = space.draw(trial)
        assert trial.params == raw and not rest.keys() & raw.keys()
        assert {**raw, **rest} == space.resolve(raw)

    def test_trials_and_the_first_rung_follow(self) -> None:
        assert build().fixed["trials"].value == 4
        assert build().fixed["first_rung_iterations"].value == 100
        more = build().override({"repeats": "5", "iterations": 50})
        assert (more.fixed["trials"].value, more.fixed["first_rung_iterations"].value) == (10, 50)

    def test_nothing_is_searched_and_what_varies_is_not_fixed(self) -> None:
        space = build()
        assert space.searched == {}
        assert space.varied == ["variant", "repeat", "N", "T_minus", "T_width", "T_growth"]
        assert not {"N", "T_minus"} & space.fixed.keys()

    def test_a_search_has_one_point_to_begin_with_and_neither_key(self) -> None:
        search = Space(
            name="s", title="t", dataset="d", reference="r",
            parameters={**SHARED, "repeats": Fixed(3), "trials": Fixed(2), "first_rung_iterations": Fixed(10),
                        "T_minus": Fixed(0), "T_width": Fixed(3), "T_growth": Fixed(0), "N": Integer(1, 3, first=2)},
        )  # fmt: skip
        assert search.points() == [search.first()] == [{"N": 2}]
        assert search.varied == ["N"]
        assert not {"variant", "repeat"} & search.resolve({"N": 2}).keys()
        assert "repeats are those of a study's variants" in refusal(search.override, {"repeats": 4})

    def test_pinned_makes_a_study_of_a_search(self) -> None:
        search = Space(
            name="s", title="t", dataset="d", reference="r",
            parameters={**SHARED, "repeats": Fixed(3), "trials": Fixed(2), "first_rung_iterations": Fixed(10),
                        "reduction_factor": Fixed(2), "T_minus": Fixed(0), "T_width": Fixed(3), "T_growth": Fixed(0),
                        "lr_pixel": Real(1.0, 9.0, first=4.0, source="here"), "N": Choice((1, 3), first=3)},
        )  # fmt: skip
        study = build(search.pinned(), {"a": {"M": 1}, "b": {}})
        assert study.parameters["lr_pixel"] == Fixed(4.0, source="here")
        point = study.resolve({"variant": "b", "repeat": 0})
        assert (point["N"], point["M"], point["trials"], point["reduction_factor"]) == (3, 2, 6, 3)

    @pytest.mark.parametrize("again", [lambda space: pickle.loads(pickle.dumps(space)), copy.copy, copy.deepcopy])
    def test_copies_are_equal(self, again: Callable[[Study], Study]) -> None:
        space = again(build())
        assert space == build() != build(variants={"early": VARIANTS["early"]})
        assert space.points() == build().points()

    def test_variants_are_read_only_and_of_their_keys_type(self) -> None:
        space = build(variants={"a": {**VARIANTS["early"], "lr_pixel": 3}})
        assert type(space.variants["a"]["lr_pixel"]) is float
        with pytest.raises(TypeError):
            space.variants["a"]["lr_pixel"] = 4.0  # type: ignore[index]


class TestRefusals:
    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            ({"variant": "early"}, "missing: repeat; too many: none"),
            ({"variant": "early", "repeat": 0, "N": 3}, "too many: N"),
            ({"variant": "mid", "repeat": 0}, "variant must be one of s's (early, late), not 'mid'"),
            ({"variant": "early", "repeat": 2}, "repeat must be a whole number from 0 to 1, not 2"),
            ({"variant": "early", "repeat": -1}, "not -1"),
            ({"variant": "early", "repeat": True}, "not True"),
        ],
    )
    def test_points_outside_the_grid(self, raw: dict[str, Any], said: str) -> None:
        assert said in refusal(build().resolve, raw)

    @pytest.mark.parametrize(
        ("variants", "said"),
        [
            ({"a": {"ipc": 5}}, "ipc is the same in all trials of a study, but variant a sets it"),
            ({"a": {"T": 5}}, "T follows from T_minus + T_width"),
            ({"a": {"lr": 5}}, "unknown parameter lr"),
            ({"a": {"N": 0}}, "N must be a whole number of at least 1, not 0"),
            ({"a b": {"N": 1}}, "a variant's name must be letters, digits, '_', '-' and '.', not 'a b'"),
            ({"a": 3}, "must be a mapping of names to settings"),
            ({}, "a study needs at least one variant; name one, or write Space(...) for a search"),
            ({**VARIANTS, "b": {"T_minus": 1}}, "T_width (epochs from T_minus to T"),
            ({**VARIANTS, "far": {"T_minus": 8, "T_width": 3, "T_growth": 1}}, "far has 12 + 2 = 14"),
        ],
    )
    def test_variants_that_cannot_be(self, variants: dict[str, Any], said: str) -> None:
        assert said in refusal(build, variants=variants)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"N": Integer(1, 3, first=2)}, "a study varies its variants alone, and N is searched (1 … 3)"),
            ({"lr_pixel": Choice((1.0, 2.0), first=1.0)}, "lr_pixel is searched (1.0, 2.0); make it Fixed"),
            ({"trials": Fixed(5)}, "trials of a study is 4 (2 variants × 2 repeats), not 5; leave it out"),
            ({"first_rung_iterations": Fixed(10)}, "no trial of a study is stopped early), not 10"),
            ({"reduction_factor": Fixed(2)}, "reduction_factor has no effect"),
            ({"repeats": 2}, "repeats must be Integer, Real, Choice or Fixed, not 2"),
        ],
    )
    def test_parameters_that_a_study_cannot_have(self, changes: dict[str, Any], said: str) -> None:
        assert said in refusal(build, {**SHARED, **changes})

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"N": 3}, "N is what the variants late of s set, and --set would set it for all; leave it out"),
            ({"T_minus": "0"}, "T_minus is what the variants early, late of s set"),
            ({"trials": 5}, "trials of a study is 4 (2 variants × 2 repeats), not 5"),
            ({"reduction_factor": "2"}, "reduction_factor has no effect"),
        ],
    )
    def test_overrides_that_a_study_cannot_take(self, settings: dict[str, Any], said: str) -> None:
        assert said in refusal(build().override, settings)

    def test_a_space_of_an_old_file_says_what_to_write(self) -> None:
        said = refusal(Space, name="s", title="t", dataset="d", reference="r", parameters=SHARED, variants=VARIANTS)
        assert said == "Space takes no variants; write Study(...), or Comparison(...) where ipcs is set"

    def test_sizes_make_no_comparison_of_a_study(self) -> None:
        said = refusal(build, {**SHARED, "ipcs": Fixed("1,5")})
        assert said.startswith("ipcs=1,5 is what a comparison measures at, and s is none; write Comparison(...)")

    def test_the_right_number_of_trials_may_be_said(self) -> None:
        assert build().override({"trials": 4, "lr_pixel": 3}).fixed["lr_pixel"] == Fixed(3.0, source="--set")
