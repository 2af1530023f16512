"""What a report says of baselines and label regimes: the sentence, the table, the spread, by hand."""

from typing import Any

import pytest

from orchestrator.reporting.sections.regimes import against_best, regime_section
from orchestrator.results.differences import compare_finals
from orchestrator.results.finals import CHALLENGE
from orchestrator.results.regimes import summarize_regimes
from orchestrator.results.statistics import summarize
from orchestrator.state.settings import SweepSettings
from orchestrator.state.workdir import Workdir
from search_spaces import load
from search_spaces.name_lists import REGIMES, is_list_of, listed
from tests.support.builders import sweep_settings
from trainables.config import protocol
from trainables.evaluation.metrics import Metrics

WINNER = (0.9, 0.91, 0.92, 0.9, 0.91)


def sets(**values: tuple[float, ...]) -> dict[str, Any]:
    return {name: {"accuracy": summarize(list(each))} for name, each in values.items()}


def sentence(**values: tuple[float, ...]) -> str:
    named = sets(**values)
    return against_best(named, compare_finals(named))


class TestAgainstBest:
    def test_a_clear_winner(self) -> None:
        said = sentence(winner=WINNER, random_real=(0.7, 0.71, 0.7, 0.69, 0.7), k_center=(0.8, 0.81, 0.8, 0.79, 0.8))
        assert said.startswith(
            "The distilled set beats the best of 2 baselines, k-centre greedy (0.800 ± 0.007): +0.108"
        )
        assert "chance does not explain it" in said

    def test_a_coreset_that_is_better(self) -> None:
        said = sentence(winner=WINNER, random_real=(0.95, 0.96, 0.95, 0.94, 0.95))
        assert said.startswith("The distilled set does not beat random real images (0.950 ± 0.007): -0.042")

    def test_a_difference_that_may_be_chance(self) -> None:
        said = sentence(winner=WINNER, rded=(0.8, 0.99, 0.85, 0.95, 0.9))
        assert "does not beat" not in said and "which may be chance" in said

    def test_too_few_values_say_so(self) -> None:
        assert "(too few values to test)" in sentence(winner=(0.9, 0.91), random_real=(0.8, 0.81))

    def test_neither_the_reference_nor_all_images_are_baselines(self) -> None:
        rivals = {"paper_setting": (0.99,) * 5, "full_data": (0.99,) * 5, "random_real": (0.7, 0.71, 0.7, 0.69, 0.7)}
        assert "beats random real images" in sentence(winner=WINNER, **rivals)


def confusion(hits: int) -> Metrics:
    """Of ten images of either class so many are right."""
    return Metrics(((hits, 10 - hits), (10 - hits, hits)))


@pytest.fixture
def settings(tmp_path: Any) -> SweepSettings:
    space = load("digits").override({"ipc": 5, "regime_epochs": 300, "temperature": 4.0, "regimes": "hard,soft"})
    return sweep_settings(space=space, workdir=Workdir(tmp_path))


def test_every_regime_has_its_sets_differences_and_budget(settings: SweepSettings) -> None:
    measured = {
        CHALLENGE: {"trial-004": [confusion(10)] * 3, "full_data": [confusion(10)] * 3},
        "hard": {
            "random_real": [confusion(6), confusion(7), confusion(8)],
            "trial-004": [confusion(9)] * 2 + [confusion(8)],
        },
        "soft": {"random_real": [confusion(8)] * 3, "trial-004": [confusion(9)] * 3},
    }
    regimes = summarize_regimes(settings, measured, "trial-004", images=100)
    assert list(regimes) == ["hard", "soft"]
    assert list(regimes["hard"]["sets"]) == ["winner", "random_real"]
    assert regimes["hard"]["full_data_epochs"] == 300 * 5 * 2 / 100  # two classes
    assert regimes["hard"]["sets"]["winner"]["accuracy"]["mean"] == pytest.approx(26 / 30)
    assert [(each["a"], each["b"]) for each in regimes["hard"]["comparisons"]] == [("winner", "random_real")]

    text = regime_section(settings, {"regimes": regimes})
    assert "as many images as 30 epochs on all real ones; T = 4; the teacher is trained on all real images" in text
    assert "| random real images | 0.700 ± 0.100 | 0.800 ± 0.000 |" in text
    assert "From the worst set to the best: 0.167 in `hard`, 0.100 in `soft`." in text
    assert regime_section(settings, {}) == ""


def test_lists_of_names() -> None:
    assert listed("all", REGIMES) == REGIMES and listed("none", REGIMES) == ()
    assert listed("soft_kd,hard", REGIMES) == ("hard", "soft_kd")
    assert not is_list_of("hard,hard", REGIMES) and not is_list_of("hard,", REGIMES) and not is_list_of("", REGIMES)


def test_the_names_are_those_that_the_numerics_know() -> None:
    assert REGIMES == protocol.REGIMES
