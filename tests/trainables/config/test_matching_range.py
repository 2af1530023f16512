"""The matching range against hand-written sequences. docs/method.md, "Matching range", step 2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.config.matching_range import MatchingRange
from trainables.errors import ConfigError


def build(
    T_minus: int = 0, T: int = 15, T_plus: int = 20, interval: int = 100, range_end: str = "exclusive"
) -> MatchingRange:
    return MatchingRange(T_minus=T_minus, T=T, T_plus=T_plus, interval=interval, range_end=range_end)


class TestUpper:
    def test_cifar100_grows_from_15_to_20_over_500_iterations(self) -> None:
        expected = [15] * 100 + [16] * 100 + [17] * 100 + [18] * 100 + [19] * 100 + [20] * 300
        assert [build().upper(iteration) for iteration in range(800)] == expected

    def test_tiny_imagenet_grows_from_15_to_20_over_1250_iterations(self) -> None:
        tiny = build(interval=250)
        expected = [15] * 250 + [16] * 250 + [17] * 250 + [18] * 250 + [19] * 250 + [20] * 750
        assert [tiny.upper(iteration) for iteration in range(2000)] == expected

    def test_datms_ranges_grow_by_its_expert_epochs(self) -> None:
        # docs/method.md, "Matching range": E for CIFAR-10 and CIFAR-100 at 10 images per class, and Tiny ImageNet at 1.
        cifar10 = build(T=10, T_plus=20, interval=100)
        grown = [11] * 100 + [12] * 100 + [13] * 100 + [14] * 100 + [15] * 100 + [16] * 100 + [17] * 100 + [18] * 100
        expected = [10] * 100 + grown + [19] * 100 + [20] * 200
        assert [cifar10.upper(iteration) for iteration in range(1200)] == expected

        cifar100 = build(T=30, T_plus=50, interval=100)
        expected = [30 + hundred for hundred in range(20) for _ in range(100)] + [50] * 200
        assert expected[:101] == [30] * 100 + [31] and expected[1999:2001] == [49, 50]
        assert [cifar100.upper(iteration) for iteration in range(2200)] == expected

        tiny = build(T=15, T_plus=20, interval=400)
        expected = [15] * 400 + [16] * 400 + [17] * 400 + [18] * 400 + [19] * 400 + [20] * 400
        assert [tiny.upper(iteration) for iteration in range(2400)] == expected

    @given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 500), st.integers(0, 20_000))
    def test_is_the_formula_of_datms_code(self, T: int, growth: int, interval: int, iteration: int) -> None:
        # Its expert_epoch E is the iterations over which the whole growth happens: E = interval · (T_plus − T).
        upper = min(T + growth * iteration // (interval * growth), T + growth)
        assert build(T=T, T_plus=T + growth, interval=interval).upper(iteration) == upper

    @given(st.integers(0, 10**6))
    def test_a_range_that_starts_at_its_largest_bound_is_fixed(self, iteration: int) -> None:
        fixed = build(T_minus=3, T=8, T_plus=8, interval=1)
        assert list(fixed.starts(iteration)) == [3, 4, 5, 6, 7]


class TestStarts:
    def test_the_upper_bound_is_excluded_or_included_as_asked(self) -> None:
        for iteration, upper in ((0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (100, 4)):
            exclusive, inclusive = (
                build(T_minus=1, T=2, T_plus=4, interval=2, range_end=end).starts(iteration)
                for end in ("exclusive", "inclusive")
            )
            assert list(exclusive) == list(range(1, upper))
            assert list(inclusive) == [*range(1, upper), upper]

    def test_m_datms_epochs_of_cifar100_at_the_turns(self) -> None:
        seen = {iteration: list(build().starts(iteration)) for iteration in (0, 99, 100, 499, 500, 10_000)}
        assert seen[0] == seen[99] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
        assert seen[100] == [*seen[99], 15]
        assert seen[499] == [*seen[99], 15, 16, 17, 18]
        assert seen[500] == seen[10_000] == [*seen[99], 15, 16, 17, 18, 19]


class TestRefused:
    @pytest.mark.parametrize("bounds", [(-1, 1, 2), (1, 1, 2), (2, 1, 2), (0, 0, 0), (0, 3, 2), (5, 3, 4)])
    def test_bounds_out_of_order(self, bounds: tuple[int, int, int]) -> None:
        shown = ", ".join(map(str, bounds))
        with pytest.raises(ConfigError, match=rf"0 ≤ T_minus < T ≤ T_plus, not {shown}"):
            build(*bounds)

    @pytest.mark.parametrize("interval", [0, -1])
    def test_an_interval_below_one(self, interval: int) -> None:
        with pytest.raises(ConfigError, match=rf"interval is .* at least 1, not {interval}"):
            build(interval=interval)

    def test_another_range_end(self) -> None:
        with pytest.raises(ConfigError, match="range_end is exclusive or inclusive, not open"):
            build(range_end="open")
