"""How far N steps of α go beside M expert epochs, as the plan says it."""

import pytest

from orchestrator.planning.reach import reach_text
from search_spaces import load


def point(**changed: object) -> dict[str, object]:
    space = load("cifar10_ranges")
    return {**space.resolve(space.first()), **changed}


def test_a_tenth_of_cifar_10_goes_too_far_with_the_papers_settings() -> None:
    """80 · .01 = .8 beside 2 · 18 · .01 = .36, where all of CIFAR-10 has 2 · 176 · .01 = 3.52."""
    text = reach_text(point(), 4500)
    assert text == "N · α = 80 · 0.01 = 0.8 goes 2.2 times as far as M = 2 expert epochs, 2 · 18 steps · 0.01 = 0.36"
    assert "goes 0.23 times as far" in reach_text(point(), 45_000)


@pytest.mark.parametrize(("images", "alpha"), [(4500, "0.0045"), (256, "0.00025")])
def test_of_auto_it_says_the_alpha_that_goes_as_far(images: int, alpha: str) -> None:
    assert f"at α = {alpha}; auto measures" in reach_text(point(alpha_init="auto"), images)
