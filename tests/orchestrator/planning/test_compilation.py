"""Whether the trials compile: decided from the work ahead, and said."""

from typing import Any

import pytest

from orchestrator.cluster.resources import Resources
from orchestrator.planning.compilation import decide_compilation, is_compiled_always
from search_spaces import load
from tests.support.builders import sweep_settings
from trainables.errors import ConfigError


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


@pytest.mark.parametrize("gpus", [0, 1])
def test_bf16_is_compiled_however_little_work_there_is(gpus: int) -> None:
    pays, why = decide(gpus=gpus, precision="bf16")
    assert pays and why == "Compilation on: uncompiled, bf16 moves twice the bytes of fp32"
    assert is_compiled_always(sweep_settings(space=load("digits").override({"precision": "bf16"})))
    assert not is_compiled_always(sweep_settings())


def test_bf16_is_refused_where_it_is_not_to_be_compiled() -> None:
    with pytest.raises(ConfigError, match="compile must be auto or on where precision is bf16, not off"):
        decide(precision="bf16", compile="off")
