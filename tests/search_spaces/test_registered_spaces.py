"""The contract of every registered space, and what each one's trial 0 literally is."""

import pickle

import optuna
import pytest

from search_spaces import Space, load, names
from search_spaces.vocabulary import VOCABULARY

optuna.logging.set_verbosity(optuna.logging.WARNING)

# From METHOD §2 (M-DATM Table 1; DATM's configurations), written out by hand; the digits are ours.
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
}  # fmt: skip


def test_every_registered_space_has_a_golden_trial_0():
    assert sorted(TRIAL_0) == sorted(names())


@pytest.mark.parametrize("name", names())
class TestContract:
    def test_it_is_a_space_of_that_name(self, name):
        space = load(name)
        assert isinstance(space, Space)
        assert space.name == name

    def test_trial_0_is_the_reference(self, name):
        space = load(name)
        point = space.resolve(space.first())
        assert {key: point[key] for key in TRIAL_0[name]} == TRIAL_0[name]

    def test_optuna_starts_with_trial_0(self, name):
        space = load(name)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial(space.first())
        trial = study.ask()
        rest = space.draw(trial)
        assert trial.params == space.first()
        assert {**trial.params, **rest} == space.resolve(space.first())

    @pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
    def test_every_draw_is_valid_and_complete(self, name, sampler):
        space = load(name)
        study = optuna.create_study(sampler=sampler(seed=0), direction="maximize")
        for number in range(25):
            trial = study.ask()
            rest = space.draw(trial)
            assert not rest.keys() & trial.params.keys()
            point = {**trial.params, **rest}
            assert point == space.resolve(trial.params)
            assert point.keys() == {*VOCABULARY, "T", "T_plus"}
            assert 0 <= point["T_minus"] < point["T"] <= point["T_plus"]
            assert point["T_plus"] + point["M"] <= point["horizon_epochs"]
            assert point["T"] == point["T_minus"] + point["T_width"]
            assert point["T_plus"] == point["T"] + point["T_growth"]
            for key, value in point.items():
                if key in VOCABULARY:
                    assert VOCABULARY[key].check(value) == value
            study.tell(trial, float(number % 7))

    def test_parameters_are_drawn_in_the_vocabularys_order(self, name):
        space = load(name)
        trial = optuna.create_study().ask()
        space.draw(trial)
        assert list(trial.params) == [key for key in VOCABULARY if key in space.searched]

    def test_the_bounds_themselves_are_points(self, name):
        space = load(name)
        for pick in (min, max):
            space.resolve({key: pick(dimension.values) for key, dimension in space.searched.items()})

    def test_it_survives_pickling(self, name):
        space = load(name)
        assert pickle.loads(pickle.dumps(space)) == space
        drawn = pickle.loads(pickle.dumps(space.draw))(optuna.trial.FixedTrial(space.first()))
        assert drawn == space.draw(optuna.trial.FixedTrial(space.first()))

    def test_trial_0_can_be_pinned_as_text(self, name):
        space = load(name)
        pinned = space.override({key: str(value) for key, value in space.first().items()})
        assert not pinned.searched
        assert pinned.resolve({}) == space.resolve(space.first())

    def test_everything_it_sets_has_a_source(self, name):
        assert [key for key, dimension in load(name).parameters.items() if not dimension.source] == []

    def test_the_experts_go_no_further_than_needed(self, name):
        space = load(name)
        assert space.horizon_epochs == space.last_epoch


def test_searched_ranges_of_tiny_imagenet():
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
