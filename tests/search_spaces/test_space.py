"""What a space accepts, resolves and draws; the registered spaces have a suite of their own."""

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Choice, Fixed, Integer, Real, Space, SpaceError, load
from search_spaces.dimensions import Value
from search_spaces.vocabulary import AUGMENTATIONS, VOCABULARY

optuna.logging.set_verbosity(optuna.logging.WARNING)

SMALLEST = {
    "N": Integer(1, 5, first=2),
    "M": Integer(1, 2, first=1),
    "T_minus": Integer(0, 3, first=0),
    "T_width": Integer(1, 4, first=3),
    "T_growth": Integer(0, 1, first=1),
    "interval": Fixed(10),
    "lr_pixel": Real(1.0, 10.0, first=5.0, log=True),
    "lr_alpha": Fixed(0.0),
    "batch_syn": Choice((5, 10), first=10),
    "ipc": Fixed(1),
    "iterations": Fixed(100),
    "horizon_epochs": Fixed(10),
    "validation_epochs": Fixed(3),
    "full_data_epochs": Fixed(2),
    "trials": Fixed(4),
    "validation_every_iterations": Fixed(10),
    "first_rung_iterations": Fixed(20),
}


def build(parameters: Mapping[str, Any] = SMALLEST, **others: Any) -> Space:
    return Space(**{"name": "s", "title": "t", "dataset": "d", "reference": "r", **others, "parameters": parameters})


def refusal(action: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(SpaceError) as caught:
        action(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestWords:
    """alpha_init is a number or a word, fixed or among options."""

    def test_stand_beside_numbers(self) -> None:
        space = build({**SMALLEST, "alpha_init": Choice(("auto", 1), first="auto")})
        alpha = space.parameters["alpha_init"]
        assert isinstance(alpha, Choice) and alpha.options == ("auto", 1.0)
        assert type(alpha.options[1]) is float
        assert space.resolve({**space.first(), "alpha_init": 1.0})["alpha_init"] == 1.0

    def test_are_no_bounds(self) -> None:
        assert "Real: low must be a finite number" in refusal(Real, "auto", 1.0, first=1.0)


class TestConstruction:
    def test_every_key_is_there_in_the_vocabularys_order(self) -> None:
        shuffled = dict(reversed(SMALLEST.items()))
        assert list(build(shuffled).parameters) == list(VOCABULARY)

    def test_defaults_come_with_their_source(self) -> None:
        assert build().parameters["expert_lr"] == Fixed(0.01, source='FTD, docs/method.md, "Experts"')

    def test_every_default_keeps_its_own_rule(self) -> None:
        for entry in VOCABULARY.values():
            if entry.default is not None:
                assert entry.check(entry.default) == entry.default
                assert type(entry.check(entry.default)) is entry.kind

    def test_whole_numbers_become_floats_where_floats_are_wanted(self) -> None:
        space = build({**SMALLEST, "lr_pixel": Fixed(100), "alpha_init": Choice((1, 2), first=2)})
        assert type(space.fixed["lr_pixel"].value) is float
        alpha = space.parameters["alpha_init"]
        assert isinstance(alpha, Choice)
        assert [type(option) for option in alpha.options] == [float, float]

    @pytest.mark.parametrize("name", [name for name, entry in VOCABULARY.items() if entry.default is None])
    def test_a_key_without_default_must_be_given(self, name: str) -> None:
        left = {key: value for key, value in SMALLEST.items() if key != name}
        assert refusal(build, left).startswith(f"{name} (")

    @pytest.mark.parametrize("name", [name for name, entry in VOCABULARY.items() if not entry.searchable])
    def test_a_key_that_trials_share_must_be_fixed(self, name: str) -> None:
        said = refusal(build, {**SMALLEST, name: Choice((1, 2), first=1)})
        assert said == f"{name} is the same in all trials of a sweep, not 1, 2; make it Fixed"

    def test_an_unknown_key_gets_the_nearest_and_all(self) -> None:
        said = refusal(build, {**SMALLEST, "lr_pixels": Fixed(1.0)})
        assert said.startswith("unknown parameter lr_pixels; did you mean lr_pixel? Known: N, M, T_minus")
        assert said.endswith("reduction_factor")
        assert "did you mean T_minus?" in refusal(build, {**SMALLEST, "t_minus": Fixed(1)})

    @pytest.mark.parametrize("name", ["T", "T_plus"])
    def test_what_follows_cannot_be_given(self, name: str) -> None:
        assert f"{name} follows from T_minus + T_width" in refusal(build, {**SMALLEST, name: Fixed(3)})

    @pytest.mark.parametrize(
        ("name", "dimension", "said"),
        [
            ("N", Integer(0, 5, first=2), "N must be a whole number of at least 1, not 0"),
            ("N", Real(1.0, 5.0, first=2.0), "N must be searched as Integer"),
            ("N", Fixed(2.5), "N must be a whole number of at least 1, not 2.5"),
            ("N", Fixed(True), "not True"),
            ("N", Choice((1, 2.0), first=1), "not 2.0"),
            ("N", 20, "N must be Integer, Real, Choice or Fixed, not 20; write Fixed"),
            ("lr_pixel", Integer(1, 5, first=2), "lr_pixel must be searched as Real"),
            ("lr_pixel", Real(0.0, 5.0, first=2.0), "lr_pixel must be a finite number larger than 0, not 0.0"),
            ("lr_alpha", Fixed(-1e-9), "lr_alpha must be a finite number of at least 0, not -1e-09"),
            ("T_minus", Fixed(-1), "T_minus must be a whole number of at least 0, not -1"),
            ("T_width", Integer(0, 4, first=3), "T_width must be a whole number of at least 1, not 0"),
            ("momentum_pixel", Fixed(1.0), "at least 0 and less than 1, not 1.0"),
            ("validation_share", Fixed(0.51), "larger than 0 and at most 0.5, not 0.51"),
            ("validation_share", Fixed(0.0), "larger than 0 and at most 0.5, not 0.0"),
            ("final_networks", Fixed(1), "of at least 2, not 1"),
            ("reduction_factor", Fixed(1), "of at least 2, not 1"),
            ("sam_adaptive", Fixed(1), "sam_adaptive must be true or false, not 1"),
            ("range_end", Fixed("both"), "(exclusive or inclusive), not 'both'"),
            ("initialization", Fixed("blank"), "(correct or real or noise), not 'blank'"),
            ("label_mode", Fixed("medium"), "(hard or soft), not 'medium'"),
            ("lr_label", Fixed(-1.0), "lr_label must be a finite number of at least 0, not -1.0"),
            ("ema_decay", Fixed(1.0), "at least 0 and less than 1, not 1.0"),
            ("gradient", Fixed("none"), "(exact or truncated or unrolled), not 'none'"),
            ("precision", Fixed("fp64"), "(fp32 or tf32 or bf16), not 'fp64'"),
            ("compile", Fixed(True), "compile must be a word (auto or on or off), not True"),
            ("classes", Fixed(-1), "classes must be a whole number of at least 0, not -1"),
            ("repeats", Fixed(0), "repeats must be a whole number of at least 1, not 0"),
            ("expert_optimizer", Fixed("adam"), "(gsam or sgd), not 'adam'"),
        ],
    )
    def test_values_keep_their_keys_rule(self, name: str, dimension: object, said: str) -> None:
        assert said in refusal(build, {**SMALLEST, name: dimension})

    @given(st.lists(st.sampled_from(AUGMENTATIONS), min_size=1, unique=True))
    def test_augmentations_are_different_names(self, names: list[str]) -> None:
        strategy = "_".join(names)
        assert build({**SMALLEST, "augmentation": Fixed(strategy)}).resolve(build().first())["augmentation"] == strategy
        for wrong in (f"{strategy}_{names[0]}", f"{strategy}_blur", f"{strategy}_", ""):
            assert "augmentation must be" in refusal(build, {**SMALLEST, "augmentation": Fixed(wrong)})

    def test_the_worst_corner_must_fit_the_horizon(self) -> None:
        assert build().last_epoch == 10
        said = refusal(build, {**SMALLEST, "horizon_epochs": Fixed(9)})
        for part in ("max(T_minus) 3", "max(T_width) 4", "max(T_growth) 1", "max(M) 2", "= 10", "is 9", "set it to 10"):
            assert part in said

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (
                {"first_rung_iterations": 110},
                "first_rung_iterations must not exceed iterations, but they are 110 and 100",
            ),
            ({"first_rung_iterations": 25}, "first_rung_iterations must be a multiple of validation_every_iterations"),
            ({"iterations": 101}, "but they are 101 and 10; set iterations to 110"),
        ],
    )
    def test_iterations_fit_together(self, changes: dict[str, int], said: str) -> None:
        assert said in refusal(build, SMALLEST | {name: Fixed(value) for name, value in changes.items()})

    @pytest.mark.parametrize("field", ["name", "title", "dataset", "reference"])
    @pytest.mark.parametrize("text", ["", "  ", "a\nb", None])
    def test_texts_are_one_line(self, field: str, text: str | None) -> None:
        assert f"{field} of a space must be one line" in refusal(build, **{field: text})

    def test_a_name_can_be_part_of_a_path(self) -> None:
        assert "not '../up'" in refusal(build, name="../up")

    def test_parameters_are_read_only_and_a_copy(self) -> None:
        given_parameters = dict(SMALLEST)
        space = build(given_parameters)
        given_parameters["N"] = Fixed(1)
        assert space.parameters["N"] == SMALLEST["N"]
        with pytest.raises(TypeError):
            space.parameters["N"] = Fixed(1)  # type: ignore[index]

    @pytest.mark.parametrize("again", [lambda space: pickle.loads(pickle.dumps(space)), copy.copy, copy.deepcopy])
    def test_copies_are_equal_and_draw(self, again: Callable[[Space], Space]) -> None:
        space = again(build())
        assert space == build()
        draw = pickle.loads(pickle.dumps(space.draw))
        assert draw(optuna.create_study().ask())["ipc"] == 1


class TestResolve:
    def test_trial_0_is_complete(self) -> None:
        space = build()
        assert space.first() == {
            "N": 2, "M": 1, "T_minus": 0, "T_width": 3, "T_growth": 1, "lr_pixel": 5.0, "batch_syn": 10,
        }  # fmt: skip
        point = space.resolve(space.first())
        assert list(point) == [*VOCABULARY, "T", "T_plus"]
        assert (point["T_minus"], point["T"], point["T_plus"]) == (0, 3, 4)
        assert point["alpha_init"] == 0.01

    def test_names_must_be_exactly_the_searched(self) -> None:
        space = build()
        raw = space.first()
        without = {name: value for name, value in raw.items() if name != "N"}
        assert "missing: N; too many: none" in refusal(space.resolve, without)
        assert "missing: none; too many: ipc" in refusal(space.resolve, {**raw, "ipc": 1})

    @pytest.mark.parametrize(
        ("name", "value"),
        [("N", 0), ("N", 6), ("N", 2.0), ("N", True), ("lr_pixel", 10.1), ("lr_pixel", float("nan")), ("batch_syn", 7)],
    )
    def test_values_must_lie_in_their_range(self, name: str, value: float) -> None:
        space = build()
        assert refusal(space.resolve, {**space.first(), name: value}).startswith(f"{name} must lie in s's range (")

    def test_bounds_are_inclusive_in_a_draw(self) -> None:
        space = build({**SMALLEST, "N": Integer(1, 2, first=1), "T_growth": Integer(0, 1, first=0)})
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trials = [study.ask() for _ in range(40)]
        for trial in trials:
            space.draw(trial)
        for name, values in {"N": {1, 2}, "T_growth": {0, 1}, "T_width": {1, 2, 3, 4}, "batch_syn": {5, 10}}.items():
            assert {trial.params[name] for trial in trials} == values

    def test_a_space_with_nothing_searched_has_one_point(self) -> None:
        first = build().first()
        space = build({**SMALLEST, **{name: Fixed(value) for name, value in first.items()}})
        assert (space.first(), space.searched) == ({}, {})
        assert space.draw(optuna.create_study().ask()) == space.resolve({}) == build().resolve(first)

    @settings(max_examples=50)
    @given(st.data())
    def test_any_valid_widths_keep_the_inequalities(self, data: st.DataObject) -> None:
        parameters: dict[str, Any] = dict(SMALLEST)
        for name, smallest in {"T_minus": 0, "T_width": 1, "T_growth": 0, "M": 1}.items():
            low, first, high = sorted(data.draw(st.lists(st.integers(smallest, 60), min_size=3, max_size=3)))
            parameters[name] = Integer(low, high, first=first)
        last = sum(parameters[name].high for name in ("T_minus", "T_width", "T_growth", "M"))
        space = build({**parameters, "horizon_epochs": Fixed(last)})
        raw = {
            name: data.draw(st.integers(dimension.low, dimension.high)) if isinstance(dimension, Integer)
            else dimension.first
            for name, dimension in space.searched.items()
        }  # fmt: skip
        point = space.resolve(raw)
        assert point["T_minus"] < point["T"] <= point["T_plus"] <= space.horizon_epochs - point["M"]
        assert "horizon_epochs" in refusal(build, {**parameters, "horizon_epochs": Fixed(last - 1)})


class TestOverride:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("N", "7", 7),
            ("N", " 7 ", 7),
            ("lr_pixel", "1e2", 100.0),
            ("lr_pixel", "3", 3.0),
            ("sam_adaptive", "false", False),
            ("sam_adaptive", "True", True),
            ("range_end", "inclusive", "inclusive"),
            ("augmentation", "color_crop", "color_crop"),
            ("alpha_init", "auto", "auto"),
            ("alpha_init", " auto ", "auto"),
            ("alpha_init", "1e-3", 1e-3),
            ("N", 7, 7),
            ("lr_pixel", 3, 3.0),
            ("sam_adaptive", False, False),
        ],
    )
    def test_text_is_read_as_the_keys_type(self, name: str, text: Value, value: Value) -> None:
        pinned = build().override({name: text}).parameters[name]
        assert pinned == Fixed(value, source="--set")
        assert type(pinned.value) is type(value)

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("N", "1e3", "N must be a whole number of at least 1, not '1e3'"),
            ("N", "0", "not 0"),
            ("N", "", "not ''"),
            ("N", True, "not True"),
            ("lr_pixel", "fast", "lr_pixel must be a finite number larger than 0, not 'fast'"),
            ("lr_pixel", "nan", "not nan"),
            ("lr_pixel", "1e400", "not inf"),
            ("alpha_init", "automatic", "alpha_init must be a finite number larger than 0 or auto, not 'automatic'"),
            ("alpha_init", "0", "not 0.0"),
            ("lr_alpha", "auto", "lr_alpha must be a finite number of at least 0, not 'auto'"),
            ("sam_adaptive", "0", "sam_adaptive must be true or false, not '0'"),
            ("range_end", "both", "not 'both'"),
            ("horizon_epoch", "3", "did you mean horizon_epochs?"),
            ("zzz", "3", "unknown parameter zzz; Known: N, M, "),
            ("T", "15", "T follows from T_minus + T_width"),
        ],
    )
    def test_bad_settings_say_why(self, name: str, text: Value, said: str) -> None:
        assert said in refusal(build().override, {name: text})

    def test_pinning_a_searched_parameter_takes_it_out_of_the_search(self) -> None:
        space = build().override({"N": "4"})
        assert "N" not in space.searched
        assert "N" not in space.first()
        assert space.resolve(space.first())["N"] == 4

    def test_pinning_may_leave_the_searched_range(self) -> None:
        assert build().override({"N": "4000"}).fixed["N"].value == 4000

    def test_the_new_space_is_checked_as_a_whole(self) -> None:
        assert "set it to 106" in refusal(build().override, {"T_minus": "99"})
        assert build().override({"T_minus": "99", "horizon_epochs": "106"}).last_epoch == 106
        assert "multiple of" in refusal(build().override, {"iterations": "55"})

    def test_a_title_that_says_the_size_says_the_new_one(self) -> None:
        space = build({**SMALLEST, "ipc": Fixed(10)}, title="What suits 10 images per class?")
        assert space.override({"N": "4"}).title == space.title
        one = space.override({"ipc": "1"})
        assert one.title == "What suits 1 image per class?"
        assert one.override({"ipc": 50}).title == "What suits 50 images per class?"

    def test_it_knows_what_was_set_by_whom(self) -> None:
        space = build().override({"N": "4"}, source="--preset datm").override({"ipc": "5", "lr_pixel": "3"})
        assert space.set_by() == {"lr_pixel": 3.0, "ipc": 5}
        assert space.set_by("--preset datm") == {"N": 4}
        assert build().set_by() == {}

    def test_the_space_itself_is_left_alone(self) -> None:
        space = build()
        space.override({"N": "4"})
        assert space == build() == space.override({})


@pytest.mark.parametrize("name", ["digits", "digits_range_study", "digits_regimes"])
def test_what_trials_share_and_what_they_differ_in_together_are_a_point(name: str) -> None:
    space = load(name)
    points = [space.resolve(point) for point in space.points()]
    parts = [space.split(point) for point in points]
    assert all(shared | own == point for point, (shared, own) in zip(points, parts, strict=True))
    assert all(shared == parts[0][0] and list(own) == space.trial_keys for shared, own in parts)


def test_the_bounds_of_the_range_are_a_trials_own_only_where_they_follow_from_what_varies() -> None:
    digits = load("digits")
    assert set(digits.trial_keys) - set(digits.varied) == {"T", "T_plus"}
    first = digits.first()
    later = digits.override({name: first[name] for name in ("T_minus", "T_width")})
    assert set(later.trial_keys) - set(later.varied) == {"T_plus"}
    whole = digits.override({name: first[name] for name in ("T_minus", "T_width", "T_growth")})
    assert whole.trial_keys == whole.varied
