"""`--gpus-per-trial auto`: what is made of measured memory. The measurement itself needs a GPU (test_footprint)."""

import pytest

from orchestrator.cluster.resources import _shares
from orchestrator.errors import UserError
from orchestrator.planning.gpu_share import heaviest_settings, share_of
from search_spaces import load
from trainables.distillation.micro_batches import SPARE
from trainables.workers.footprint import Footprint

GIB = 2**30


def measured(trial: float, gpu: float, name: str = "A") -> Footprint:
    return Footprint(trial_bytes=round(trial * GIB), gpu_bytes=round(gpu * GIB), gpu=name)


@pytest.mark.parametrize(
    ("trial", "gpu", "trials"), [(40, 80, 1), (30, 80, 2), (20, 80, 3), (5, 80, 12), (70, 80, 1), (0.5, 139, 222)]
)
def test_as_many_trials_fit_as_memory_less_the_reserve_has(trial: float, gpu: float, trials: int) -> None:
    share = share_of([measured(trial, gpu)])
    assert _shares(share) == trials
    assert trials * share <= 1
    assert trials == 1 or trials * trial <= SPARE * gpu


def test_the_tightest_type_of_gpu_decides() -> None:
    assert share_of([measured(5, 80), measured(6, 16, "B")]) == 0.5


def test_a_trial_larger_than_the_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="a trial takes more memory than B has; set --memory-budget"):
        share_of([measured(5, 80), measured(17, 16, "B")])


def test_the_setting_measured_takes_the_largest_steps_and_batch_of_the_space() -> None:
    space = load("ti_ranges")
    heaviest = heaviest_settings(space)
    for name in ("N", "batch_syn"):
        assert heaviest[name] == max(space.parameters[name].values)
    assert heaviest["M"] == space.resolve(space.first())["M"]


def test_of_a_study_the_heaviest_variant_is_measured() -> None:
    space = load("digits_ablation")
    points = [space.resolve(point) for point in space.points()]
    assert heaviest_settings(space)["N"] * heaviest_settings(space)["batch_syn"] == max(
        point["N"] * point["batch_syn"] for point in points
    )
