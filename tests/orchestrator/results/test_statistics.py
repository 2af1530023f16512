"""Tests and intervals against known answers, and their promises by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.results.statistics import ALPHA, Comparison, compare, holm, rank_correlation, summarize

SIMULATIONS = 2000
# Four standard errors of a share near 5 % (or 95 %) over that many simulations.
SLACK = 4 * math.sqrt(0.05 * 0.95 / SIMULATIONS)


def with_p(p: float | None) -> Comparison:
    return Comparison(
        difference=0.0, interval_95=None, effect_size=None, welch_p=p, permutation_p=None, test="Welch", p=p, note=""
    )


class TestSummary:
    def test_of_a_worked_example(self) -> None:
        summary = summarize([1, 2, 3, 4])
        assert (summary["mean"], summary["n"]) == (2.5, 4)
        assert summary["std"] == pytest.approx(1.2909944)
        assert summary["interval_95"] == pytest.approx([0.4457397, 4.5542603])  # t(.975, 3) = 3.1824463

    def test_of_one_value_has_no_interval(self) -> None:
        assert summarize([0.5]) == {"mean": 0.5, "std": 0.0, "n": 1, "values": [0.5], "interval_95": None}

    def test_intervals_cover_the_mean_as_often_as_they_say(self) -> None:
        random = np.random.default_rng(1)
        covered = 0
        for _ in range(SIMULATIONS):
            low, high = summarize(random.normal(0.3, 0.02, 5).tolist())["interval_95"]
            covered += low <= 0.3 <= high
        assert abs(covered / SIMULATIONS - 0.95) < SLACK


class TestNull:
    """Without a difference, at most ALPHA of the tests find one."""

    @pytest.mark.parametrize(("paired", "n"), [(False, 5), (True, 5), (True, 6), (True, 10)])
    def test_false_alarms(self, paired: bool, n: int) -> None:
        random = np.random.default_rng(2)
        alarms = covered = 0
        for _ in range(SIMULATIONS):
            shared = random.normal(0, 0.05, n) if paired else np.zeros(n)
            ours, theirs = ((shared + random.normal(0.4, 0.01, n)).tolist() for _ in range(2))
            comparison = compare(ours, theirs, paired=paired)
            alarms += comparison.significant
            assert comparison.interval_95 is not None
            covered += comparison.interval_95[0] <= 0 <= comparison.interval_95[1]
        assert alarms / SIMULATIONS <= ALPHA + SLACK
        assert covered / SIMULATIONS >= 1 - ALPHA - SLACK

    def test_unequal_spreads_and_sizes_do_not_mislead_welch(self) -> None:
        random = np.random.default_rng(3)
        alarms = sum(
            compare(random.normal(0, 1, 20).tolist(), random.normal(0, 10, 5).tolist(), paired=False).significant
            for _ in range(SIMULATIONS)
        )
        assert alarms / SIMULATIONS <= ALPHA + SLACK

    def test_holm_keeps_the_chance_of_any_false_alarm(self) -> None:
        random = np.random.default_rng(4)
        alarms = 0
        for _ in range(SIMULATIONS):
            samples = random.normal(0, 1, (4, 8))
            family = holm([compare(samples[0], other, paired=False) for other in samples[1:]])
            alarms += any(each.significant for each in family)
        assert alarms / SIMULATIONS <= ALPHA + SLACK


class TestKnownAnswers:
    def test_welch_is_scipys(self) -> None:
        a, b = [0.1, 0.2, 0.4, 0.3], [0.5, 0.6, 0.4]
        comparison = compare(a, b, paired=False)
        expected = stats.ttest_ind(a, b, equal_var=False)
        assert comparison.p == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval()
        assert comparison.interval_95 == pytest.approx((interval.low, interval.high))

    @pytest.mark.parametrize("n", [3, 6, 11])
    def test_the_paired_permutation_test_is_scipys(self, n: int) -> None:
        random = np.random.default_rng(n)
        a, b = random.normal(size=n), random.normal(0.5, 1, size=n)
        expected = stats.permutation_test(
            (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True
        )
        assert compare(a.tolist(), b.tolist(), paired=True).permutation_p == pytest.approx(expected.pvalue)

    def test_more_pairs_than_all_signs_can_be_counted_for(self) -> None:
        a = np.random.default_rng(5).normal(size=40)
        assert compare((a + 0.1).tolist(), a.tolist(), paired=True).p == pytest.approx(1e-5, rel=0.01)
        assert compare(a.tolist(), (-a[::-1]).tolist(), paired=True).p == pytest.approx(
            stats.ttest_rel(a, -a[::-1]).pvalue, abs=0.02
        )  # normal data: the two agree

    def test_a_constant_difference_of_six_pairs_is_as_unlikely_as_six_heads(self) -> None:
        a = np.linspace(0, 1, 6)
        assert compare((a + 0.5).tolist(), a.tolist(), paired=True).p == 2 / 64

    def test_effect_sizes(self) -> None:
        # Hedges (1981): d = 1 with 4 + 4 values, corrected by 1 − 3/(4·6 − 1).
        a, b = np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 2, 3])
        assert compare(a.tolist(), b.tolist(), paired=False).effect_size == pytest.approx(
            1 / a.std(ddof=1) * (1 - 3 / 23)
        )
        assert compare([2, 3, 5], [1, 1, 2], paired=True).effect_size == pytest.approx(2.0)
        assert compare((a + 1).tolist(), a.tolist(), paired=True).effect_size is None

    def test_holm_of_a_worked_example(self) -> None:
        # p = .01, .04, .03, .005 → .03, .06, .06, .02 (Holm's procedure by hand), the untested one left alone.
        family = holm([with_p(p) for p in (0.01, 0.04, None, 0.03, 0.005)])
        assert [each.p_holm for each in family] == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
        assert [each.significant for each in family] == [True, False, False, False, True]
        assert [each.p_holm for each in holm([with_p(0.9), with_p(0.8)])] == [1.0, 1.0]

    def test_values_without_spread(self) -> None:
        assert compare([1, 1, 1], [1, 1, 1], paired=False).p == 1.0
        assert compare([1, 1, 1], [2, 2, 2], paired=False).p == 0.0
        assert compare([1, 1, 1], [2, 2, 2], paired=False).interval_95 == (-1, -1)


class TestRankCorrelation:
    def test_rho_is_scipys_and_p_close_to_it(self) -> None:
        random = np.random.default_rng(6)
        x = random.normal(size=30)
        y = x + random.normal(size=30)
        found = rank_correlation(x.tolist(), y.tolist())
        expected = stats.spearmanr(x, y)
        assert found is not None
        assert found[0] == pytest.approx(expected.statistic)
        assert found[1] == pytest.approx(expected.pvalue, abs=0.01)

    def test_false_alarms(self) -> None:
        random = np.random.default_rng(7)
        found = [rank_correlation(random.normal(size=6).tolist(), random.normal(size=6).tolist()) for _ in range(400)]
        alarms = sum(each is not None and each[1] <= ALPHA for each in found)
        assert alarms / 400 <= ALPHA + 4 * math.sqrt(0.05 * 0.95 / 400)

    def test_what_is_constant_or_short_has_none(self) -> None:
        assert rank_correlation([1.0] * 6, [1.0, 2, 3, 4, 5, 6]) is None
        assert rank_correlation([1.0, 2, 3, 4, 5], [1.0, 2, 3, 4, 5]) is None


class TestTooFew:
    @pytest.mark.parametrize("n", [1, 2])
    def test_values_get_no_p(self, n: int) -> None:
        comparison = compare([0.5] * n, [0.1] * 5, paired=False)
        assert (comparison.p, comparison.test, comparison.interval_95) == (None, None, None)
        assert comparison.note == f"no test: n = {n}, and fewer than 3 values say too little of chance"
        assert not comparison.significant

    def test_pairs_for_the_permutation_test_are_said(self) -> None:
        comparison = compare([0.5, 0.6, 0.7, 0.8, 0.9], [0.1, 0.2, 0.2, 0.3, 0.4], paired=True)
        assert comparison.test == "Welch" and comparison.permutation_p == 2 / 32
        assert "corrected for 1 comparison (at best 0.0625): 6 can" in comparison.note

    def test_the_test_is_one_that_the_correction_leaves_a_chance(self) -> None:
        ours, theirs = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], [0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6]
        for pairs, family, test in ((6, 1, "paired permutation"), (6, 2, "Welch"), (7, 3, "paired permutation")):
            comparison = compare(ours[:pairs], theirs[:pairs], paired=True, family=family)
            assert comparison.test == test
        assert (
            "corrected for 2 comparisons (at best 0.0625): 7 can"
            in compare(ours[:6], theirs[:6], paired=True, family=2).note
        )

    def test_pairs_are_equally_many(self) -> None:
        with pytest.raises(ValueError, match="not 3 and 4"):
            compare([1, 2, 3], [1, 2, 3, 4], paired=True)
