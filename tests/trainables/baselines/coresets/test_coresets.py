"""Each method against brute force, hand-computed cases or another library; all of them on real images for balance,
determinism and indifference to the order of the rows."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import pairwise_distances
from torch import Tensor

from search_spaces.entry import Kind
from tests.support.implementations import own
from trainables.baselines import coresets
from trainables.baselines.coresets import (
    Evidence,
    cad_prune,
    dynamic_uncertainty,
    el2n,
    forgetting,
    grand,
    herding,
    k_center,
    moderate,
    uncertainty,
)
from trainables.baselines.coresets.scores import FIGURES, Dynamics
from trainables.baselines.coresets.selection import highest, lowest
from trainables.data.augmentation import Augmentation
from trainables.data.datasets import ImageDataset, Split
from trainables.errors import ConfigError
from trainables.networks.convnet import ConvNet
from trainables.seeding import generator

CORESETS = {entry.name: entry for entry in own(Kind.CORESET)}
NAMES = tuple(CORESETS)
SMALLEST = 15  # images of the smallest class among the first 200
SEEDS = (0, 1)
SIZES = (1, 3)


def select(name: str, evidence: Evidence, ipc: int, seed: int) -> Tensor:
    """What the coreset of that name chooses."""
    return coresets.select(CORESETS[name].load(), evidence, ipc, seed)


def with_rows(dataset: ImageDataset, rows: np.ndarray) -> ImageDataset:
    """The dataset with those training rows alone, in that order, and no other split."""
    split = dataset.split("train")
    digest = f"{split.digest} {rows.tolist()}"
    return replace(dataset, digest=digest, splits={"train": Split(split.images[rows], split.labels[rows], digest)})


def prefer(rows: Tensor) -> float:
    """A stand-in for validation accuracy that no two windows share."""
    return float((rows * rows % 1009).sum() % 997) / 997


@pytest.fixture(scope="module")
def make_evidence(small_network: ConvNet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Evidence]:
    def make(dataset: ImageDataset, **changes: Any) -> Evidence:
        options = {
            "dataset": dataset,
            "network": small_network,
            "augmentation": Augmentation(families=("flip", "crop"), align_corners=False),
            "device": torch.device("cpu"),
            "folder": tmp_path_factory.mktemp("runs"),
            "epochs": 12,
            "validate": prefer,
        }
        return Evidence(**{**options, **changes})

    return make


@pytest.fixture(scope="module")
def evidence(small_digits: ImageDataset, make_evidence: Callable[..., Evidence]) -> Evidence:
    return make_evidence(with_rows(small_digits, np.arange(200)))


@pytest.fixture(scope="module")
def shuffled(small_digits: ImageDataset, make_evidence: Callable[..., Evidence]) -> tuple[np.ndarray, Evidence]:
    """The same images in another order: the order, and their evidence. Its validation judges images, not rows."""
    order = np.random.default_rng(0).permutation(200)
    return order, make_evidence(with_rows(small_digits, order), validate=lambda rows: prefer(torch.tensor(order)[rows]))


def points(max_points: int = 9) -> st.SearchStrategy[tuple[np.ndarray, ...]]:
    """Features with ties and duplicates among them, and keys in any order."""
    return st.integers(4, max_points).flatmap(
        lambda count: st.tuples(
            arrays(np.float64, (count, 2), elements=st.integers(-3, 3).map(float)),
            st.permutations(range(count)).map(np.array),
            st.permutations(range(count)).map(np.array),
        )
    )


def tensors(features: np.ndarray, keys: np.ndarray) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(features), torch.from_numpy(keys)


class TestAllMethods:
    @settings(deadline=None, max_examples=30)
    @given(st.sampled_from(NAMES), st.sampled_from(SIZES), st.sampled_from(SEEDS))
    def test_balance_determinism_and_range(self, evidence: Evidence, name: str, ipc: int, seed: int) -> None:
        rows = select(name, evidence, ipc, seed)
        assert (rows.dtype, rows.shape) == (torch.int64, (10 * ipc,))
        assert evidence.dataset.labels("train", rows).tolist() == [index // ipc for index in range(10 * ipc)]
        assert len(set(rows.tolist())) == 10 * ipc
        assert torch.equal(select(name, evidence, ipc, seed), rows)

    @settings(deadline=None, max_examples=30)
    @given(st.sampled_from(NAMES), st.sampled_from(SIZES), st.sampled_from(SEEDS))
    def test_the_order_of_the_rows_is_nothing_to_them(
        self, evidence: Evidence, shuffled: tuple[np.ndarray, Evidence], name: str, ipc: int, seed: int
    ) -> None:
        order, other = shuffled
        assert torch.equal(torch.tensor(order)[select(name, other, ipc, seed)], select(name, evidence, ipc, seed))

    def test_a_folder_without_records_gives_the_same(
        self, evidence: Evidence, make_evidence: Callable[..., Evidence]
    ) -> None:
        again = make_evidence(evidence.dataset)
        for name in reversed(NAMES):
            assert torch.equal(select(name, again, 2, 0), select(name, evidence, 2, 0)), name

    @pytest.mark.parametrize("name", NAMES)
    def test_another_seed_is_another_coreset(self, evidence: Evidence, name: str) -> None:
        one, other = (select(name, evidence, 3, seed) for seed in SEEDS)
        assert not torch.equal(one, other)

    def test_no_two_choose_the_same(self, evidence: Evidence) -> None:
        chosen = {
            name: frozenset(select(name, evidence, 3, 0).tolist())
            for name in NAMES
            if name != "el2n_best"  # one of the windows, so it may be the easy one or the hard one
        }
        assert len(set(chosen.values())) == len(chosen) == 11

    @pytest.mark.parametrize("name", NAMES)
    def test_more_images_than_a_class_has_are_refused_before_anything_is_trained(
        self, evidence: Evidence, make_evidence: Callable[..., Evidence], name: str
    ) -> None:
        counts = torch.bincount(evidence.dataset.labels("train")).tolist()
        assert min(counts) == SMALLEST
        fresh = make_evidence(evidence.dataset)
        first = next(label for label, count in enumerate(counts) if count == SMALLEST)
        with pytest.raises(
            ConfigError, match=rf"class '{first}' has 15 training images, fewer than ipc = 16; lower ipc"
        ):
            select(name, fresh, SMALLEST + 1, 0)
        with pytest.raises(ConfigError, match="ipc must be at least 1, not 0"):
            select(name, fresh, 0, 0)
        assert not list(fresh.folder.iterdir())

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            (torch.arange(19), "a coreset gives ipc · classes = 20 different rows, int64"),
            (torch.zeros(20, dtype=torch.int64), "a coreset gives ipc · classes = 20 different rows, int64"),
            (torch.arange(20), "a coreset gives 2 rows of class 0, then 2 of class 1 and so on; order its rows so"),
        ],
    )
    def test_what_breaks_the_contract_is_refused(self, evidence: Evidence, rows: Tensor, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            coresets.select(lambda evidence, ipc, seed: rows, evidence, 2, 0)


class TestSharing:
    def test_early_runs_serve_el2n_and_grand_and_the_full_training_the_rest(
        self, evidence: Evidence, make_evidence: Callable[..., Evidence]
    ) -> None:
        fresh = make_evidence(evidence.dataset)
        expected = {
            "random": 0, "el2n_easy": 10, "el2n_hard": 10, "el2n_best": 10, "grand": 10, "forgetting": 11,
            "k_center": 11, "herding": 11, "moderate": 11, "uncertainty": 11, "dynamic_uncertainty": 11,
            "cad_prune": 12,
        }  # fmt: skip
        for name, files in expected.items():
            select(name, fresh, 2, 0)
            assert len(list(fresh.folder.iterdir())) == files, name

    def test_runs_have_the_lengths_that_were_asked_for(self, evidence: Evidence) -> None:
        assert evidence.long_run(0).epochs == 12
        assert [run.epochs for run in evidence.early_runs(0, 2, 10)] == [1, 1]  # scored after the last of them
        # 300 epochs of 4 · 10 images are 60 of 200, of 10 images 15.
        assert [evidence.matched_run(0, ipc, 2).epochs for ipc in (1, 4)] == [15, 60]

    def test_early_runs_are_independent(self, evidence: Evidence) -> None:
        one, other = evidence.early_runs(0, 2, 10)
        (first_of_another_seed,) = evidence.early_runs(1, 1, 10)
        assert not torch.equal(one.el2n, other.el2n)
        assert not torch.equal(one.el2n, first_of_another_seed.el2n)

    def test_no_run_is_refused(self, evidence: Evidence) -> None:
        with pytest.raises(ConfigError, match="runs to average must be at least 1, not 0"):
            el2n.select_easy(evidence, 1, 0, runs=0)


class TestRanking:
    @settings(max_examples=100)
    @given(st.lists(st.sampled_from([0.0, 1.0, 2.0, math.inf]), min_size=1, max_size=8), st.randoms(), st.data())
    def test_is_by_score_and_then_by_key(self, scores: list[Any], shuffle: random.Random, data: st.DataObject) -> None:
        keys = list(range(100, 100 + len(scores)))
        shuffle.shuffle(keys)
        count = data.draw(st.integers(1, len(scores)))
        up = sorted(range(len(scores)), key=lambda position: (scores[position], keys[position]))
        down = sorted(range(len(scores)), key=lambda position: (-scores[position], keys[position]))
        assert lowest(torch.tensor(scores), torch.tensor(keys), count).tolist() == up[:count]
        assert highest(torch.tensor(scores), torch.tensor(keys), count).tolist() == down[:count]


class TestRandom:
    def test_every_image_is_as_likely_as_any_other(self, evidence: Evidence) -> None:
        """600 choices of 3: each image's count is binomial, and all within five standard deviations of its mean."""
        counts = torch.zeros(200)
        for seed in range(600):
            counts[select("random", evidence, 3, seed)] += 1
        labels = evidence.dataset.labels("train")
        share = 3 / torch.bincount(labels)[labels]
        assert ((counts - 600 * share).abs() < 5 * (600 * share * (1 - share)).sqrt()).all()

    def test_fewer_begin_more(self, evidence: Evidence) -> None:
        few, many = (select("random", evidence, ipc, 0).view(10, ipc) for ipc in (2, 5))
        assert torch.equal(many[:, :2], few)


class TestEL2N:
    def test_is_averaged_after_the_last_epoch(self, evidence: Evidence) -> None:
        runs = list(evidence.early_runs(0, 10, 10))
        expected = np.mean([run.el2n[0].double().numpy() for run in runs], axis=0)
        np.testing.assert_allclose(el2n.mean_el2n(runs).numpy(), expected, rtol=1e-12)

    def test_easy_and_hard_are_the_two_ends(self, evidence: Evidence) -> None:
        scores = el2n.mean_el2n(evidence.early_runs(0, 10, 10))
        labels = evidence.dataset.labels("train")
        easy, hard = (select(name, evidence, 4, 0).view(10, 4) for name in ("el2n_easy", "el2n_hard"))
        for label in range(10):
            ordered = scores[labels == label].sort().values
            assert torch.equal(scores[easy[label]], ordered[:4])
            assert torch.equal(scores[hard[label]], ordered.flip(0)[:4])

    def test_windows_by_hand(self) -> None:
        scores, keys = torch.arange(20.0), torch.arange(20)  # the hardest is 19
        starts = [int(19 - el2n.window(scores, keys, 3, number, 10)[0]) for number in range(10)]
        assert starts == [0, 2, 4, 6, 8, 10, 12, 14, 16, 17]  # the last would leave 2 of 3
        assert el2n.window(scores, keys, 3, 1, 10).tolist() == [17, 16, 15]

    @settings(max_examples=100)
    @given(st.integers(1, 40), st.integers(1, 12), st.data())
    def test_windows_go_from_hard_to_easy_and_are_whole(self, size: int, windows: int, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, size))
        scores = torch.tensor(data.draw(st.permutations(range(size)))).double()
        keys = torch.arange(size)
        means = []
        for number in range(windows):
            chosen = el2n.window(scores, keys, count, number, windows)
            ranks = sorted(size - 1 - int(score) for score in scores[chosen])
            assert ranks == list(range(ranks[0], ranks[0] + count))  # neighbours in the ranking
            assert ranks[0] == min(math.floor(number * size / windows), size - count)
            means.append(float(scores[chosen].mean()))
        assert means == sorted(means, reverse=True)
        assert torch.equal(el2n.window(scores, keys, count, 0, windows), highest(scores, keys, count))

    def test_best_is_the_window_that_validates_best(
        self, make_evidence: Callable[..., Evidence], evidence: Evidence
    ) -> None:
        asked = []

        def validate(rows: Tensor) -> float:
            asked.append(rows)
            return [0.1, 0.3, 0.7, 0.2][len(asked) % 4]

        best = select("el2n_best", make_evidence(evidence.dataset, validate=validate), 2, 0)
        assert torch.equal(best, asked[1])
        assert len(asked) == 10
        assert torch.equal(asked[-1], select("el2n_hard", evidence, 2, 0))
        assert len({tuple(rows.tolist()) for rows in asked}) == 10
        for rows in asked:
            assert evidence.dataset.labels("train", rows).tolist() == [index // 2 for index in range(20)]

    def test_windows_that_are_the_same_are_validated_once(
        self, make_evidence: Callable[..., Evidence], evidence: Evidence
    ) -> None:
        asked = []

        def validate(rows: Tensor) -> float:
            asked.append(tuple(rows.tolist()))
            return 0.5

        best = select("el2n_best", make_evidence(evidence.dataset, validate=validate), SMALLEST, 0)
        assert len(set(asked)) == len(asked) < 10
        assert tuple(best.tolist()) == asked[0]  # all equally good: the easiest

    def test_best_needs_a_validation_and_a_window(
        self, make_evidence: Callable[..., Evidence], evidence: Evidence
    ) -> None:
        with pytest.raises(ConfigError, match="el2n_best chooses its window by validation accuracy"):
            select("el2n_best", make_evidence(evidence.dataset, validate=None), 1, 0)
        with pytest.raises(ConfigError, match="windows must be at least 1, not 0"):
            el2n.select_best(evidence, 1, 0, windows=0)


class TestGraNd:
    @pytest.mark.parametrize("form", grand.FORMS)
    def test_keeps_the_largest_mean_norm(self, evidence: Evidence, form: str) -> None:
        runs = list(evidence.early_runs(0, 2, 4))
        every = [run.grand[-1] if form == "last_layer" else evidence.gradient_norms(run.theta) for run in runs]
        scores, labels = torch.stack(every).double().mean(dim=0), evidence.dataset.labels("train")
        chosen = grand.select(evidence, 3, 0, form=form, runs=2, epochs=4).view(10, 3)
        for label in range(10):
            assert torch.equal(scores[chosen[label]], scores[labels == label].sort(descending=True).values[:3])

    def test_the_forms_differ_and_others_are_refused(self, evidence: Evidence) -> None:
        one, other = (grand.select(evidence, 3, 0, form=form, runs=1, epochs=4) for form in grand.FORMS)
        assert not torch.equal(one, other)
        with pytest.raises(ConfigError, match="form of GraNd is one of last_layer, exact, not full"):
            grand.select(evidence, 3, 0, form="full")

    def test_the_exact_norms_are_in_the_order_of_the_rows(
        self, evidence: Evidence, shuffled: tuple[np.ndarray, Evidence]
    ) -> None:
        order, other = shuffled
        theta = evidence.long_run(0).theta
        assert torch.equal(other.gradient_norms(theta), evidence.gradient_norms(theta)[order])


class TestForgetting:
    #                     learned, kept; forgotten twice; never learned; right at first only
    CORRECT = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)

    def test_by_hand(self) -> None:
        assert forgetting.forgettings(self.CORRECT, "most").tolist() == [0, 2, math.inf, 1]
        assert forgetting.forgettings(self.CORRECT, "least").tolist() == [0, 2, 0, 1]
        with pytest.raises(ConfigError, match="never_learned is one of most, least, not all"):
            forgetting.forgettings(self.CORRECT, "all")

    @settings(max_examples=50)
    @given(arrays(np.bool_, (6, 3)))
    def test_counts_the_falls(self, correct: np.ndarray) -> None:
        counts = forgetting.forgettings(torch.from_numpy(correct), "least").tolist()
        assert counts == (np.diff(correct.astype(int), axis=0) == -1).sum(axis=0).tolist()
        assert max(counts) <= 3

    def test_the_setting_decides_about_the_never_learned(self, evidence: Evidence) -> None:
        correct = evidence.long_run(0).correct
        never = set((~correct.any(dim=0)).nonzero().flatten().tolist())
        most, least = (set(forgetting.select(evidence, 3, 0, never_learned=way).tolist()) for way in ("most", "least"))
        assert never and len(most & never) > len(least & never)


def diameter_of(distances: np.ndarray, centers: Sequence[int]) -> float:
    """Largest distance of a point to its nearest centre."""
    return float(distances[list(centers)].min(axis=0).max())


class TestKCenter:
    @settings(max_examples=100, deadline=None)
    @given(points(), st.integers(1, 4))
    def test_each_step_takes_the_farthest_and_the_whole_is_at_most_twice_the_best(
        self, drawn: tuple[np.ndarray, ...], count: int
    ) -> None:
        features, keys, _ = drawn
        chosen = k_center.centers(*tensors(features, keys), count).tolist()
        distances = pairwise_distances(features)
        assert chosen[0] == keys.argmin()
        assert len(set(chosen)) == count
        for step in range(1, count):
            before = chosen[:step]
            others = [position for position in range(len(keys)) if position not in before]
            expected = max(others, key=lambda position: (distances[before, position].min().round(9), -keys[position]))
            assert chosen[step] == expected
        best = min(diameter_of(distances, centers) for centers in itertools.combinations(range(len(keys)), count))
        assert diameter_of(distances, chosen) <= 2 * best + 1e-9

    @settings(max_examples=50, deadline=None)
    @given(points(), st.integers(1, 4))
    def test_the_order_of_the_points_is_nothing_to_it(self, drawn: tuple[np.ndarray, ...], count: int) -> None:
        features, keys, order = drawn
        chosen = k_center.centers(*tensors(features, keys), count)
        assert (
            order[k_center.centers(*tensors(features[order], keys[order]), count).numpy()].tolist() == chosen.tolist()
        )

    def test_fewer_begin_more(self, evidence: Evidence) -> None:
        few, many = (select("k_center", evidence, ipc, 0).view(10, ipc) for ipc in (2, 6))
        assert torch.equal(many[:, :2], few)


class TestHerding:
    @settings(max_examples=100, deadline=None)
    @given(points(), st.integers(1, 4), st.sampled_from(herding.CRITERIA))
    def test_each_step_is_the_best_there_is(self, drawn: tuple[np.ndarray, ...], count: int, criterion: str) -> None:
        features, keys, _ = drawn
        chosen = herding.herd(*tensors(features, keys), count, criterion).tolist()
        sign = 1 if criterion == "closest" else -1
        assert len(set(chosen)) == count
        for step in range(count):
            before = chosen[:step]
            target = (step + 1) * features.mean(axis=0) - features[before].sum(axis=0)
            distances = sign * np.linalg.norm(target - features, axis=1)
            others = [position for position in range(len(keys)) if position not in before]
            assert distances[chosen[step]] <= distances[others].min() + 1e-9

    @settings(max_examples=50, deadline=None)
    @given(points(), st.integers(1, 4), st.sampled_from(herding.CRITERIA))
    def test_the_order_of_the_points_is_nothing_to_it(
        self, drawn: tuple[np.ndarray, ...], count: int, criterion: str
    ) -> None:
        features, keys, order = drawn
        chosen = herding.herd(*tensors(features, keys), count, criterion)
        again = herding.herd(*tensors(features[order], keys[order]), count, criterion)
        assert order[again.numpy()].tolist() == chosen.tolist()

    def test_keeps_the_mean_better_than_chance_and_the_other_criterion_worse(self, evidence: Evidence) -> None:
        """A random sample's mean squared miss is σ²/n · (m − n)/(m − 1), drawing without replacement."""
        rows, count = evidence.rows_by_class[3], 5
        features = evidence.features(evidence.long_run(0).theta, rows).double()
        away = features - features.mean(dim=0)
        chance = away.square().sum(dim=1).mean() / count * (len(rows) - count) / (len(rows) - 1)
        closest, farthest = (
            away[herding.herd(features, torch.arange(len(rows)), count, criterion)].mean(dim=0).square().sum()
            for criterion in herding.CRITERIA
        )
        assert closest < chance / 2
        assert farthest > chance * 2

    def test_other_criteria_are_refused(self, evidence: Evidence) -> None:
        with pytest.raises(ConfigError, match="criterion of herding is one of closest, farthest, not best"):
            herding.select(evidence, 1, 0, criterion="best")


class TestModerate:
    @settings(max_examples=100, deadline=None)
    @given(points(), st.integers(1, 4))
    def test_are_nearest_to_the_median_distance(self, drawn: tuple[np.ndarray, ...], count: int) -> None:
        features, keys, order = drawn
        distances = np.linalg.norm(features - features.mean(axis=0), axis=1)
        expected = np.abs(distances - np.median(distances))
        np.testing.assert_allclose(moderate.deviations(torch.from_numpy(features)).numpy(), expected, atol=1e-12)
        chosen = moderate.most_moderate(*tensors(features, keys), count)
        np.testing.assert_allclose(expected[chosen.numpy()], np.sort(expected)[:count], atol=1e-12)
        again = moderate.most_moderate(*tensors(features[order], keys[order]), count)
        assert order[again.numpy()].tolist() == chosen.tolist()


def dynamics(**figures: Tensor) -> Dynamics:
    """A run of which the figures not named are zeros."""
    shape = next(iter(figures.values())).shape
    return Dynamics(**{name: torch.zeros(shape) for name in FIGURES} | {"theta": torch.zeros(0)} | figures)


class TestUncertainty:
    RUN = dynamics(
        confidence=torch.tensor([[0.3, 0.3], [0.5, 0.75]]),
        entropy=torch.tensor([[9.0, 9.0], [0.6, 0.25]]),
        margin=torch.tensor([[0.1, 0.1], [0.0, 0.5]]),
    )

    @pytest.mark.parametrize(
        ("measure", "expected"), [("confidence", [0.5, 0.25]), ("entropy", [0.6, 0.25]), ("margin", [1.0, 0.5])]
    )
    def test_is_of_the_last_epoch(self, measure: str, expected: Any) -> None:
        assert uncertainty.uncertainties(self.RUN, measure).tolist() == pytest.approx(expected)

    def test_the_least_sure_are_kept(self, evidence: Evidence) -> None:
        run, labels = evidence.long_run(0), evidence.dataset.labels("train")
        by_measure = {"confidence": run.confidence[-1], "margin": run.margin[-1], "entropy": -run.entropy[-1]}
        for measure, sure in by_measure.items():
            chosen = uncertainty.select(evidence, 3, 0, measure=measure).view(10, 3)
            for label in range(10):
                assert torch.equal(sure[chosen[label]], sure[labels == label].sort().values[:3])

    def test_other_measures_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="is one of confidence, entropy, margin, not variance"):
            uncertainty.uncertainties(self.RUN, "variance")


PROBABILITIES = st.integers(4, 12).flatmap(
    lambda epochs: arrays(np.float64, (epochs, 3), elements=st.floats(0, 1, width=16))
)


class TestDynamicUncertainty:
    @settings(max_examples=100, deadline=None)
    @given(PROBABILITIES, st.integers(2, 14))
    def test_is_the_mean_of_the_windows_unbiased_deviations(self, probabilities: np.ndarray, window: int) -> None:
        length = min(window, len(probabilities))
        windows = np.lib.stride_tricks.sliding_window_view(probabilities, length, axis=0)
        found = dynamic_uncertainty.dynamic_uncertainties(torch.from_numpy(probabilities), window).numpy()
        np.testing.assert_allclose(found, windows.std(axis=-1, ddof=1).mean(axis=0), atol=1e-12)
        assert (found >= 0).all() and (found <= math.sqrt(0.5) + 1e-12).all()  # two epochs, 0 and 1

    def test_a_window_of_one_epoch_is_refused(self) -> None:
        for epochs, window in ((1, 10), (5, 1)):
            with pytest.raises(ConfigError, match="windows of at least 2 epochs, not 1"):
                dynamic_uncertainty.dynamic_uncertainties(torch.zeros(epochs, 2), window)


class TestCADPrune:
    def test_by_hand(self) -> None:
        """K = 6, J = 2, W = 2: windows start at 2 and 3, of epochs 2, 3 and 3, 4; the last epoch is in none."""
        scores = torch.tensor([[9.0], [9.0], [0.0], [2.0], [3.0], [50.0]])
        expected = (math.sqrt(2) + math.sqrt(0.5)) / 2  # std(0, 2) = √2, std(2, 3) = √½
        assert cad_prune.cad(scores, 2, 2).tolist() == pytest.approx([expected])

    @settings(max_examples=100, deadline=None)
    @given(PROBABILITIES, st.data())
    def test_averages_the_windows_before_the_last(self, scores: np.ndarray, data: st.DataObject) -> None:
        K = len(scores)
        W = data.draw(st.integers(1, K - 2))
        J = data.draw(st.none() | st.integers(2, K - W))
        length = K - W if J is None else J
        of_window = [scores[k : k + length].std(axis=0, ddof=1) for k in range(K - length + 1)]
        expected = np.mean(of_window[K - length - W : K - length], axis=0)
        np.testing.assert_allclose(cad_prune.cad(torch.from_numpy(scores), J, W).numpy(), expected, atol=1e-12)

    def test_without_a_setting_a_deviation_takes_all_epochs_there_are(self) -> None:
        scores = torch.rand(30, 4, generator=generator("cad"))
        assert torch.equal(cad_prune.cad(scores, None, 2), cad_prune.cad(scores, 28, 2))
        assert not torch.allclose(cad_prune.cad(scores, 6, 2), cad_prune.cad(scores, 28, 2))

    @pytest.mark.parametrize(("J", "W"), [(1, 2), (3, 0), (5, 2), (None, 5)])
    def test_what_does_not_fit_is_refused(self, J: int, W: int) -> None:
        with pytest.raises(ConfigError, match=r"J \+ W of at most K = 6 epochs"):
            cad_prune.cad(torch.zeros(6, 1), J, W)

    def test_the_score_is_a_setting(self, evidence: Evidence) -> None:
        run, labels = evidence.matched_run(0, 2, 2), evidence.dataset.labels("train")
        for name, history in (("probability", run.true_probability), ("el2n", run.el2n)):
            values = cad_prune.scores(evidence, 2, 0, score=name)
            assert torch.equal(values, cad_prune.cad(history, None, 2))
            chosen = cad_prune.select(evidence, 2, 0, score=name).view(10, 2)
            for label in range(10):
                assert torch.equal(values[chosen[label]], values[labels == label].sort(descending=True).values[:2])
        with pytest.raises(ConfigError, match="score of CAD-Prune is one of probability, el2n, not loss"):
            cad_prune.select(evidence, 2, 0, score="loss")
