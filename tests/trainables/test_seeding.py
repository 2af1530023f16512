"""Named generators: a name, and its name alone, decides the numbers."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.seeding import generator, seed_of

PARTS = st.lists(st.integers() | st.text(), min_size=1, max_size=4)


class TestSeedOf:
    def test_a_seed_is_the_same_on_every_machine_and_day(self) -> None:
        # Stored experts and interrupted sweeps depend on these numbers.
        assert seed_of(0, "expert", 3, "epoch", 7) == 7089129174913194193
        assert seed_of("a") == 529978260370350907

    @given(PARTS)
    def test_is_one_that_torch_takes(self, name: list[int | str]) -> None:
        assert 0 <= seed_of(*name) < 2**63
        torch.Generator().manual_seed(seed_of(*name))

    @given(PARTS, PARTS)
    def test_different_names_have_different_seeds(self, one: list[int | str], other: list[int | str]) -> None:
        assert (seed_of(*one) == seed_of(*other)) == ([*map(str, one)] == [*map(str, other)])


class TestGenerator:
    def test_a_name_gives_the_same_numbers_whatever_was_drawn_before(self) -> None:
        first = torch.rand(5, generator=generator(0, "a"))
        torch.manual_seed(99)
        torch.rand(3, generator=generator(0, "b"))
        assert torch.equal(torch.rand(5, generator=generator(0, "a")), first)

    def test_neighbouring_names_give_independent_numbers(self) -> None:
        rows = torch.stack([torch.randn(2000, generator=generator(0, "expert", k)) for k in range(20)])
        correlations = torch.corrcoef(rows) - torch.eye(20)
        assert correlations.abs().max() < 5 / 2000**0.5

    def test_the_global_generator_is_left_alone(self) -> None:
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        torch.rand(4, generator=generator(0, "a"))
        assert torch.equal(torch.rand(3), expected)
