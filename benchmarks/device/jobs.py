"""The jobs of a device's measurement, in order of worth."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.device.checks import gradient_checks, training_checks
from benchmarks.device.gradients import gradient, weight_term
from benchmarks.device.machine import machine
from benchmarks.device.sharing import sharing
from benchmarks.device.sizes import Sizes
from benchmarks.device.trainings import experts, networks
from benchmarks.device.whole_run import whole_run
from benchmarks.device.worker import Around

__all__ = ["CORRECTNESS", "Job", "Part", "parts_of"]

CORRECTNESS = "correctness"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A unit of work that may fail alone."""

    name: str
    run: Callable[..., Iterable[Any]]
    """Takes the arguments and a deadline on the clock of `time.monotonic`; importable by name."""
    arguments: tuple[Any, ...]
    fresh: bool = False
    """Whether it needs a process in which nothing has run."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Jobs that share a limit of time."""

    name: str
    until: float
    """When all of its jobs must have ended, as a share of the whole time."""
    jobs: tuple[Job, ...]


def parts_of(sizes: Sizes, device: str, data: Path | None, out: Path, around: Around) -> list[Part]:
    """Return all parts, the most worth knowing first.

    Args:
        sizes: How large everything is.
        device: cpu or cuda.
        data: Folder of the headline's dataset; None: made images.
        out: Folder of the headline's files.
        around: The context of the jobs of further processes.
    """
    shares = sizes.shares
    float32 = [precision for precision in sizes.precisions if precision != "bf16"]
    checks = [
        *(
            Job(name=f"gradients, {precision}", run=gradient_checks, arguments=(sizes.check, precision, device))
            for precision in ("fp64", *sizes.precisions)
        ),
        Job(name="training, fp32", run=training_checks, arguments=(sizes.check, device)),
    ]
    return [
        Part(
            name="machine", until=shares.machine, jobs=(Job(name="machine", run=machine, arguments=(device,)),)
        ),
        Part(name=CORRECTNESS, until=shares.correctness, jobs=tuple(checks)),
        Part(name="gradient", until=shares.gradient, jobs=tuple(_gradients(sizes, device, float32))),
        Part(
            name="experts",
            until=shares.experts,
            jobs=tuple(
                Job(
                    name=f"{at_once} at once, {precision}",
                    run=experts,
                    arguments=(sizes.experts, at_once, precision, device, sizes.samples),
                )
                for precision in float32
                for at_once in sizes.at_once
            ),
        ),
        Part(
            name="networks on a set",
            until=shares.networks,
            jobs=tuple(
                Job(name=precision, run=networks, arguments=(sizes.networks, precision, sizes.samples))
                for precision in float32
            ),
        ),
        Part(
            name="processes that share the device",
            until=shares.sharing,
            jobs=tuple(
                Job(
                    name=f"{problem.images} images",
                    run=sharing,
                    arguments=(problem, sizes.processes, sizes.share_seconds, device, around),
                )
                for problem in sizes.shared
            ),
        ),
        Part(
            name="headline",
            until=shares.headline,
            jobs=(
                Job(name="headline", run=whole_run, arguments=(sizes.headline, data, device, out), fresh=True),
            ),
        ),
    ]  # fmt: skip


def _gradients(sizes: Sizes, device: str, float32: list[str]) -> Iterator[Job]:
    """Yield the gradient's jobs: eager, the wide convolutions, and compiled, which takes longest; bf16 only so."""

    def job(name: str, precision: str, compile_seconds: float | None, *, keep: bool = False) -> Job:
        how, kept = "eager" if compile_seconds is None else "compiled", ", graphs kept" if keep else ""
        arguments = (name, sizes.settings[name], precision, compile_seconds, keep, device, sizes.samples)
        return Job(name=f"{name}, {how}, {precision}{kept}", run=gradient, arguments=arguments)

    for name in sizes.settings:
        for precision in float32:
            yield job(name, precision, None)
            yield job(name, precision, None, keep=True)
    for name, problem in sizes.settings.items():
        for precision in float32:
            yield Job(
                name=f"{name}, a weight term, {precision}",
                run=weight_term,
                arguments=(name, problem, precision, device, sizes.samples),
            )
    for name, precision in sizes.compiled:
        yield job(name, precision, sizes.compile_seconds)
