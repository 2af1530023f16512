"""What a report says first of trials that hardly moved their images."""

from typing import Any

from orchestrator.reporting.sections.accuracy import headline
from orchestrator.reporting.sections.movement import movement_text
from orchestrator.reporting.sections.starting_alpha import alpha_section
from tests.support.results import finished_result


def result_with(
    skip_rate: float, displacement: float, *, still: int, trials: int = 4, alpha_init: Any = 0.02
) -> dict[str, Any]:
    result = finished_result()
    best = {
        **result["best"],
        "config": {"max_matching_loss": 5.0, "alpha_init": alpha_init},
        "movement": {"skip_rate": skip_rate, "image_displacement": displacement},
    }
    return {**result, "best": best, "movement": {"trials": trials, "hardly_moved": still}}


def test_nothing_where_the_best_and_most_others_moved() -> None:
    assert movement_text(result_with(0.1, 0.4, still=2)) == ""
    assert movement_text(finished_result()) == ""  # of an earlier version


def test_the_best_that_skipped_its_updates_is_told_first_with_why_and_what_to_change() -> None:
    result = result_with(0.96, 0.0, still=4)
    text = headline(result)
    assert "\n" not in text  # one paragraph
    assert "**The best trial hardly moved its images**" in text
    assert "96 % of the updates were skipped, and the images are 0 from the initial ones" in text
    assert "So did 4 of the 4 trials that reached a rung." in text
    assert "above `max_matching_loss` (5)" in text and text.endswith(
        "set `alpha_init=auto`, or raise `max_matching_loss`."
    )
    assert "set `alpha_init=auto`" not in movement_text(result_with(0.96, 0.0, still=4, alpha_init="auto"))


def test_small_updates_are_not_taken_for_skipped_ones() -> None:
    text = movement_text(result_with(0.0, 0.001, still=1))
    assert text.endswith("Its updates were accepted and small: raise `lr_pixel` or `iterations`.")
    assert "So did" not in text


def test_most_trials_are_told_where_the_best_moved() -> None:
    text = movement_text(result_with(0.0, 0.5, still=3))
    assert text.startswith("**3 of the 4 trials that reached a rung hardly moved their images**")


def test_the_curve_of_a_found_alpha_is_a_table_with_the_chosen_one() -> None:
    points = [[1e-3, 0.9], [1e-2, 0.4], [0.1, None]]
    facts = {"losses": [{"name": "before"}, {"name": "winner", "alpha_curve": points}]}
    text = alpha_section(facts, {"N": 20})
    assert "N = 20 steps" in text and "began with α = 0.01, whose loss is 0.4" in text
    assert "| 0.01 | 0.4 | chosen |" in text and "| 0.1 | diverges |  |" in text
    assert alpha_section({"losses": [{"name": "winner"}]}, {"N": 20}) == ""
    worse = {"losses": [{"name": "winner", "alpha_curve": [[1e-3, 1.01], [1e-2, 2.0]]}]}
    assert "no α came nearer to the targets than no step at all (loss 1.01)" in alpha_section(worse, {"N": 20})
