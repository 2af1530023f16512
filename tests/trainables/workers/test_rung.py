"""What a trial reports at a rung: the dict that Tune carries, and what is logged and kept of it."""

import math

import pytest

from trainables.workers.rung import Halted, RungResult, SettingsFailed

WHOLE = RungResult(
    iteration=50, validation_accuracy=0.5, matching_loss=0.75, alpha=0.01, skip_rate=0.0, image_displacement=2.0,
    not_finite_rate=0.25, floor_rate=0.0, upper_bound_epochs=7, micro_batch_images=10, seconds_per_iteration=0.1,
    trial_seconds=9.0, resident_memory_mib=300.0, done=True,
)  # fmt: skip


def test_is_read_back_from_a_report_to_which_tune_has_added() -> None:
    report = {**WHOLE.to_report(), "training_iteration": 2, "config": {"alpha_init": 1}, "trial_id": "a"}
    assert RungResult.from_report(report) == WHOLE


def test_a_report_has_what_tune_is_told_to_look_at_and_no_figure_that_is_missing() -> None:
    report = RungResult(iteration=25, validation_accuracy=0.0, skip_rate=0.0).to_report()
    assert report == {"iteration": 25, "validation_accuracy": 0.0, "skip_rate": 0.0, "done": False}
    assert (report[RungResult.TIME], report[RungResult.METRIC]) == (25, 0.0)


@pytest.mark.parametrize("end", [SettingsFailed("diverged; lower lr_pixel"), Halted("free space")])
def test_an_end_is_read_back_and_never_finishes_a_trial(end: SettingsFailed | Halted) -> None:
    stopped = RungResult(iteration=100, validation_accuracy=math.nan, done=True, end=end)
    again = RungResult.from_report(stopped.to_report())
    assert again.end == end and again.iteration == 100 and again.done and math.isnan(again.validation_accuracy)
    assert not again.finishes(100)


def test_a_trial_finishes_with_its_last_iteration() -> None:
    assert [WHOLE.finishes(iterations) for iterations in (25, 50, 75)] == [True, True, False]


def test_mlflow_is_sent_every_figure_and_the_study_keeps_those_that_its_readers_know() -> None:
    assert WHOLE.logged.keys() == WHOLE.to_report().keys() - {"iteration", "done"}
    assert WHOLE.kept == {"matching_loss": 0.75, "alpha": 0.01, "skip_rate": 0.0, "image_displacement": 2.0}


def test_a_report_without_an_accuracy_is_refused() -> None:
    with pytest.raises(KeyError, match="validation_accuracy"):
        RungResult.from_report({"iteration": 25})
