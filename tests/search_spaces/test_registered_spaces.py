"""The contract of every registered space, and what each one's trial 0 literally is."""

import pickle
from collections.abc import Callable
from typing import Any

import optuna
import pytest

from search_spaces import Space, SpaceError, Study, load, names
from search_spaces.vocabulary import VOCABULARY
from tests.support.studies import load_study

optuna.logging.set_verbosity(optuna.logging.WARNING)

# From docs/method.md, "Published settings", written out by hand; the digits are ours.
TRIAL_0 = {
    "ti_ranges": {
        "N": 25, "M": 2, "T_minus": 0, "T": 15, "T_plus": 20, "interval": 250, "lr_pixel": 10_000.0, "lr_alpha": 1e-4,
        "alpha_init": 0.01, "batch_syn": 1000, "ipc": 10, "iterations": 10_000, "range_end": "exclusive",
        "max_matching_loss": 1.0, "momentum_pixel": 0.5, "expert_optimizer": "gsam", "net_depth": 3,
    },
    "cifar100_ranges": {
        "N": 40, "M": 2, "T_minus": 0, "T": 15, "T_plus": 20, "interval": 100, "lr_pixel": 1000.0, "lr_alpha": 1e-5,
        "alpha_init": 0.01, "batch_syn": 1000, "ipc": 10, "iterations": 10_000, "range_end": "exclusive",
        "max_matching_loss": 1.0, "momentum_pixel": 0.5, "expert_optimizer": "gsam", "net_depth": 3,
    },
    "cifar10_ranges": {
        "N": 80, "M": 2, "T_minus": 0, "T": 10, "T_plus": 20, "interval": 100, "lr_pixel": 100.0, "lr_alpha": 1e-5,
        "alpha_init": 0.01, "batch_syn": 100, "ipc": 10, "iterations": 10_000, "range_end": "exclusive",
        "max_matching_loss": 1.0, "momentum_pixel": 0.5, "expert_optimizer": "gsam", "net_depth": 3,
    },
    "digits": {"N": 20, "M": 2, "T_minus": 0, "batch_syn": 10, "ipc": 1, "expert_optimizer": "gsam", "net_depth": 2},
    "digits_range_study": {"variant": "early", "repeat": 0, "N": 20, "T_minus": 0, "T": 6, "T_plus": 8, "ipc": 1},
    "digits_ablation": {
        "variant": "datm", "repeat": 0, "N": 20, "T_minus": 8, "T": 14, "T_plus": 16, "ipc": 1, "label_mode": "soft",
    },
    "digits_regimes": {"variant": "dm", "method": "distribution", "ipcs": "1,5,10", "regimes": "all", "repeats": 5},
    "cifar10_regimes": {
        "variant": "dm", "method": "distribution", "iterations": 20_000, "lr_pixel": 1.0, "batch_real": 256,
        "ipcs": "1,10,50", "net_depth": 3,
    },
    "cifar100_range_study": {
        "variant": "early", "N": 40, "M": 2, "T_minus": 0, "T": 15, "T_plus": 20, "interval": 100, "lr_pixel": 1000.0,
        "lr_alpha": 1e-5, "batch_syn": 1000, "ipc": 10, "iterations": 10_000, "label_mode": "hard",
    },
    "ti_range_study": {
        "variant": "early", "N": 25, "M": 2, "T_minus": 0, "T": 15, "T_plus": 20, "interval": 250,
        "lr_pixel": 10_000.0, "lr_alpha": 1e-4, "batch_syn": 1000, "ipc": 10, "iterations": 10_000,
    },
    "cifar100_ablation": {
        "variant": "datm", "N": 80, "M": 2, "T_minus": 0, "T": 30, "T_plus": 50, "interval": 100, "lr_pixel": 1000.0,
        "lr_alpha": 1e-5, "batch_syn": 1000, "ipc": 10, "label_mode": "soft", "lr_label": 10.0, "zca": False,
    },
    "ti_ablation": {
        "variant": "datm", "N": 40, "M": 2, "T_minus": 10, "T": 50, "T_plus": 50, "lr_pixel": 100.0, "lr_alpha": 1e-4,
        "batch_syn": 500, "ipc": 10, "label_mode": "soft", "lr_label": 10.0, "zca": False, "net_depth": 3,
    },
}  # fmt: skip

# T_minus, T, T_plus: docs/method.md, "Matching range" and "Published settings"; the digits' are ours.
RANGES = {
    "digits_range_study": {"early": (0, 6, 8), "medium": (8, 14, 16), "late": (16, 21, 23)},
    "digits_ablation": {"datm": (8, 14, 16), "datm_hard": (8, 14, 16), "m_datm": (0, 6, 8)},
    "digits_regimes": dict.fromkeys(("dm", "dc", "m_datm"), (0, 6, 8)),
    "cifar10_regimes": dict.fromkeys(("dm", "dc", "m_datm"), (0, 10, 20)),
    "cifar100_range_study": {"early": (0, 15, 20), "medium": (30, 45, 60), "late": (60, 75, 80)},
    "cifar100_ablation": {"datm": (0, 30, 50), "datm_hard": (0, 30, 50), "m_datm": (0, 15, 20)},
    "ti_range_study": {"early": (0, 15, 20), "medium": (30, 45, 60), "late": (60, 75, 80)},
    "ti_ablation": {"datm": (10, 50, 50), "datm_hard": (10, 50, 50), "m_datm": (0, 15, 20)},
}


def test_every_registered_space_has_a_golden_trial_0() -> None:
    assert sorted(TRIAL_0) == sorted(names())


@pytest.mark.parametrize("name", names())
class TestContract:
    def test_it_is_a_space_of_that_name(self, name: str) -> None:
        space = load(name)
        assert isinstance(space, Space)
        assert space.name == name

    def test_trial_0_is_the_reference(self, name: str) -> None:
        space = load(name)
        point = space.resolve(space.first())
        assert {key: point[key] for key in TRIAL_0[name]} == TRIAL_0[name]

    def test_optuna_starts_with_trial_0(self, name: str) -> None:
        space = load(name)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial(space.first())
        trial = study.ask()
        rest = space.draw(trial)
        assert trial.params == space.first()
        assert {**trial.params, **rest} == space.resolve(space.first())

    @pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
    def test_every_draw_is_valid_and_complete(
        self, name: str, sampler: Callable[..., optuna.samplers.BaseSampler]
    ) -> None:
        space = load(name)
        study = optuna.create_study(sampler=sampler(seed=0), direction="maximize")
        for point in space.points():
            study.enqueue_trial(point)
        for number in range(25):
            trial = study.ask()
            rest = space.draw(trial)
            assert not rest.keys() & trial.params.keys()
            drawn: dict[str, Any] = {**trial.params, **rest}
            assert drawn == space.resolve(trial.params)
            assert drawn.keys() == {
                *VOCABULARY,
                "T",
                "T_plus",
                *(("variant", "repeat") if isinstance(space, Study) else ()),
            }
            assert 0 <= drawn["T_minus"] < drawn["T"] <= drawn["T_plus"]
            assert drawn["T_plus"] + drawn["M"] <= drawn["horizon_epochs"]
            assert drawn["T"] == drawn["T_minus"] + drawn["T_width"]
            assert drawn["T_plus"] == drawn["T"] + drawn["T_growth"]
            for key, value in drawn.items():
                if key in VOCABULARY:
                    assert VOCABULARY[key].check(value) == value
            study.tell(trial, float(number % 7))

    def test_parameters_are_drawn_in_the_vocabularys_order(self, name: str) -> None:
        space = load(name)
        trial = optuna.create_study().ask()
        space.draw(trial)
        assert list(trial.params) == (
            ["variant", "repeat"] if isinstance(space, Study) else [key for key in VOCABULARY if key in space.searched]
        )

    def test_the_bounds_themselves_are_points(self, name: str) -> None:
        space = load(name)
        for pick in (min, max):
            bound = {key: pick(dimension.values) for key, dimension in space.searched.items()}
            space.resolve(bound or pick(space.points(), key=lambda point: point["repeat"]))

    def test_it_survives_pickling(self, name: str) -> None:
        space = load(name)
        assert pickle.loads(pickle.dumps(space)) == space
        drawn = pickle.loads(pickle.dumps(space.draw))(optuna.trial.FixedTrial(space.first()))
        assert drawn == space.draw(optuna.trial.FixedTrial(space.first()))

    def test_trial_0_can_be_pinned_as_text(self, name: str) -> None:
        space = load(name)
        if isinstance(space, Study):
            with pytest.raises(SpaceError, match="unknown parameter variant"):
                space.override({"variant": next(iter(space.variants))})
            return
        pinned = space.override({key: str(value) for key, value in space.first().items()})
        assert not pinned.searched
        assert pinned.resolve({}) == space.resolve(space.first())

    def test_everything_it_sets_has_a_source(self, name: str) -> None:
        assert [key for key, dimension in load(name).parameters.items() if not dimension.source] == []

    def test_the_experts_go_no_further_than_needed(self, name: str) -> None:
        space = load(name)
        # These have the experts of the digits' other spaces.
        shared = name in ("digits_ablation", "digits_regimes")
        assert space.horizon_epochs == (load("digits") if shared else space).last_epoch


def test_searched_ranges_of_tiny_imagenet() -> None:
    assert {name: str(dimension) for name, dimension in load("ti_ranges").searched.items()} == {
        "N": "10 … 50",
        "M": "1 … 4",
        "T_minus": "0 … 10",
        "T_width": "1 … 20",
        "T_growth": "0 … 10",
        "interval": "50 … 500, log",
        "lr_pixel": "1000 … 100000, log",
        "lr_alpha": "1e-06 … 0.001, log",
        "batch_syn": "500, 1000, 2000",
    }


class TestStudies:
    def test_every_study_is_here(self) -> None:
        assert sorted(RANGES) == sorted(name for name in names() if isinstance(load(name), Study))

    @pytest.mark.parametrize("name", RANGES)
    def test_the_variants_have_the_papers_ranges(self, name: str) -> None:
        space = load_study(name)
        points = {variant: space.resolve({"variant": variant, "repeat": 0}) for variant in space.variants}
        assert {
            variant: (point["T_minus"], point["T"], point["T_plus"]) for variant, point in points.items()
        } == RANGES[name]

    @pytest.mark.parametrize("name", ["digits_range_study", "cifar100_range_study", "ti_range_study"])
    def test_a_range_studys_variants_differ_in_their_range_alone(self, name: str) -> None:
        for settings in load_study(name).variants.values():
            assert set(settings) == {"T_minus", "T_width", "T_growth"}

    @pytest.mark.parametrize("name", ["digits_ablation", "cifar100_ablation", "ti_ablation"])
    def test_an_ablation_changes_labels_then_the_rest(self, name: str) -> None:
        datm, hard, m_datm = load_study(name).variants.values()
        assert {key for key in datm if datm[key] != hard[key]} == {"label_mode", "lr_label"}
        assert (datm["label_mode"], hard["label_mode"], m_datm["label_mode"]) == ("soft", "hard", "hard")

    @pytest.mark.parametrize("short", ["cifar100", "ti"])
    def test_the_ablations_m_datm_is_trial_0_of_the_search(self, short: str) -> None:
        ablation, search = load(f"{short}_ablation"), load(f"{short}_ranges")
        point, reference = ablation.resolve({"variant": "m_datm", "repeat": 2}), search.resolve(search.first())
        differing = {key for key in reference if point[key] != reference[key]}
        assert differing == {"horizon_epochs", "trials", "first_rung_iterations", "final_seeds"}

    @pytest.mark.parametrize("name", ["digits_range_study", "digits_ablation", "digits_regimes"])
    def test_the_digits_studies_need_no_experts_of_their_own(self, name: str) -> None:
        """Every key of an expert, of the data and of the network is that of the digits' search."""
        search, study = load("digits").fixed, load(name).fixed
        shared = [key for key in VOCABULARY if key.startswith(("expert_", "gsam_", "sam_", "net_"))]
        for key in (*shared, "horizon_epochs", "augmentation", "validation_share", "zca", "classes"):
            assert study[key].value == search[key].value
