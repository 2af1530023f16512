"""What the finals of a search distil again: the winner's and the reference's settings, with seeds of their own."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.results.trials import TrialRecord
from orchestrator.stages.fresh_seeds import repeat_settings
from orchestrator.state.settings import SweepSettings
from orchestrator.state.stage import FINALS, final_stage, seconds_key
from search_spaces import Space, Study, load
from search_spaces.dimensions import Value
from tests.support.builders import sweep_settings, trial_record
from trainables.config.distillation import DistillationConfig

SEARCH = load("digits").override({"final_seeds": 3})
BETTER = {
    "N": 11, "M": 3, "T_minus": 1, "T_width": 2, "T_growth": 1, "lr_pixel": 7.5, "lr_alpha": 2e-6, "alpha_init": 0.02
}  # fmt: skip


def settings_of(space: Space) -> SweepSettings:
    return sweep_settings(space=space, seed=5, time_budget_s=60)


def record(space: Space, number: int, point: Mapping[str, Value]) -> TrialRecord:
    return trial_record(number, settings=space.resolve(point), rungs={150: 0.9})


BEST, REFERENCE = record(SEARCH, 4, BETTER), record(SEARCH, 0, SEARCH.first())


def test_both_settings_run_whole_with_each_seed() -> None:
    settings = settings_of(SEARCH)
    again = repeat_settings(settings, BEST, REFERENCE)
    assert again is not None
    points = [again.space.resolve(point) for point in again.space.points()]
    assert [(point["variant"], point["repeat"]) for point in points] == [
        (name, repeat) for repeat in range(3) for name in ("winner", "paper_setting")
    ]
    of = {"winner": BEST.settings, "paper_setting": REFERENCE.settings}
    for point in points:
        assert DistillationConfig.from_settings(point) == DistillationConfig.from_settings(of[point["variant"]])
    assert (again.time_budget_s, again.stage) == (None, FINALS)


def test_nothing_of_the_search_is_shared_but_its_folder() -> None:
    settings = settings_of(SEARCH)
    again = repeat_settings(settings, BEST, REFERENCE)
    assert again is not None
    assert again.seed != settings.seed and again.places.folder == settings.places.folder
    for name in ("study_name", "checkpoints", "tune_name"):
        assert getattr(again.places, name) != getattr(settings.places, name)
    elsewhere = replace(settings, storage_path="s3://bucket/x")
    there = repeat_settings(elsewhere, BEST, REFERENCE)
    assert there is not None and there.places.checkpoints == "s3://bucket/x/a/checkpoints/final"


def test_those_of_another_winner_share_nothing_with_the_first_but_the_clock() -> None:
    first = repeat_settings(settings_of(SEARCH), BEST, REFERENCE)
    assert first is not None
    second = replace(first, stage=final_stage(2))
    assert first.stage == final_stage(1)
    for name in ("study_name", "checkpoints", "tune_name"):
        assert getattr(first.places, name) != getattr(second.places, name)
    assert seconds_key(first.stage) == seconds_key(second.stage) == "finals"


def test_a_reference_that_won_is_distilled_once_and_one_that_failed_not_at_all() -> None:
    for best, reference, variants in ((REFERENCE, REFERENCE, ["winner"]), (BEST, None, ["winner"])):
        again = repeat_settings(settings_of(SEARCH), best, reference)
        assert again is not None and isinstance(again.space, Study)
        assert list(again.space.variants) == variants


def test_none_where_none_was_asked_for_or_a_study_has_its_repeats() -> None:
    without = SEARCH.override({"final_seeds": 0})
    assert repeat_settings(settings_of(without), BEST, REFERENCE) is None
    study = load("digits_range_study")
    assert study.fixed["final_seeds"].value == 0
    first = record(study, 0, study.points()[0])
    assert repeat_settings(settings_of(study), first, first) is None
