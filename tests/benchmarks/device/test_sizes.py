"""The sizes of a GPU's measurement are those of the papers, and the parts' shares of the time grow."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks.device.jobs import parts_of
from benchmarks.device.sizes import Sizes, cpu_sizes, gpu_sizes


def test_a_gpu_is_measured_at_the_settings_of_the_paper() -> None:
    cifar100, tiny = gpu_sizes().settings.values()
    assert (cifar100.images, cifar100.batch, cifar100.steps, cifar100.size, cifar100.width) == (1000, 1000, 40, 32, 128)
    assert (tiny.images, tiny.batch, tiny.steps, tiny.size, tiny.classes) == (2000, 1000, 25, 64, 200)
    assert len(cifar100.families) == len(tiny.families) == 6


@pytest.mark.parametrize(("sizes", "device"), [(gpu_sizes(), "cuda"), (cpu_sizes(), "cpu")])
def test_the_parts_end_one_after_the_other_and_within_the_time(sizes: Sizes, device: str) -> None:
    shares = list(dataclasses.asdict(sizes.shares).values())
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] < 1
    parts = parts_of(sizes, device, None, Path("out"), nullcontext)
    assert [part.until for part in parts] == shares
    jobs = [job.name for part in parts for job in part.jobs]
    assert len(jobs) == len(set(jobs))
    for name, precision in sizes.compiled:
        assert f"{name}, compiled, {precision}" in jobs
    for name in sizes.settings:
        for precision in sizes.precisions:
            assert (f"{name}, eager, {precision}" in jobs) == (precision != "bf16")


def test_a_cpu_is_not_asked_for_tf32() -> None:
    assert not any(
        "tf32" in job.name for part in parts_of(cpu_sizes(), "cpu", None, Path("out"), nullcontext) for job in part.jobs
    )
