"""Whether the trials compile: decided from the work ahead, and said."""

from typing import Any

import pytest

from orchestrator.cluster.resources import Resources
from orchestrator.errors import UserError
from orchestrator.planning.compilation import decide_compilation
from search_spaces import load
from tests.support.builders import sweep_settings


def decide(space: str = "digits", *, cpus: int = 2, gpus: int = 0, **overrides: Any) -> tuple[bool, str]:
    settings = sweep_settings(space=load(space).override(overrides) if overrides else load(space))
    return decide_compilation(settings, Resources(cpus=cpus, gpus=gpus, gpus_per_trial=min(gpus, 1)))


def test_the_digits_are_too_little_work_and_the_papers_scale_is_enough() -> None:
    pays, why = decide("digits")
    assert not pays
    assert why.startswith("Compilation off: it would save each worker about")
    pays, why = decide("ti_ranges")
    assert pays
    assert why.startswith("Compilation on: it would save each worker about")


def test_many_workers_have_less_work_each() -> None:
    assert decide("digits", cpus=1, iterations=1500)[0]
    assert not decide("digits", cpus=64, iterations=1500)[0]


def test_what_is_set_is_done() -> None:
    assert decide(compile="on") == (True, "Compilation on, as set")
    assert decide("ti_ranges", compile="off") == (False, "Compilation off, as set")


def test_a_gpu_compiles_only_where_it_is_told_to() -> None:
    assert not decide("ti_ranges", gpus=1)[0]
    assert decide("ti_ranges", gpus=1, compile="on")[0]


def test_what_the_device_or_the_gradient_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="precision=tf32 needs a GPU"):
        decide(precision="tf32")
    with pytest.raises(UserError, match="precision=tf32 needs a GPU"):
        decide("ti_ranges", precision="tf32")
