"""What every driver does around its stages: hold a sweep, go on with it, track it, and tell how it ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from orchestrator.cluster import Resources, connected
from orchestrator.console import make_console
from orchestrator.errors import ClusterError, Stopped
from orchestrator.mirror import Mirror
from orchestrator.outcome import finished_result
from orchestrator.settings import SweepSettings
from orchestrator.system_metrics import monitored
from orchestrator.tracking import SweepRun, open_sweep_run, reopen_sweep_run

__all__ = ["drive", "status_after", "tracked"]

Stages = Callable[[SweepSettings, Resources, Mirror, Console], dict[str, Any]]
"""Runs what is left, and returns what result.json holds."""


def drive(settings: SweepSettings, stages: Stages) -> dict[str, Any]:
    """Run what is left of a sweep or comparison as its only driver, and return what result.json holds.

    Of a finished one, MLflow is sent what a driver that was cut off has not sent.
    """
    settings.check_dataset()
    with settings.held():
        mirror = Mirror(settings.workdir, settings.name)
        mirror.pull()
        settings.check_same()  # again: another driver may have been at it meanwhile
        result = finished_result(settings)
        if result is None:
            with connected(settings.address, settings.gpus_per_trial, settings.concurrent) as resources:
                return stages(settings, resources, mirror, make_console(quiet=settings.quiet))
        run = reopen_sweep_run(settings.tracking_uri, settings.workdir, settings.name)
        if run is not None:
            run.log_result(result, settings)
            _end(run, settings, "FINISHED")
            mirror.push()
        return result


@contextmanager
def tracked(settings: SweepSettings, mirror: Mirror) -> Iterator[SweepRun]:
    """Keep MLflow's run of a sweep, what the machine does and the mirror in step with what is done inside.

    Raises:
        Stopped: In place of KeyboardInterrupt, with the command that goes on.
    """
    run = open_sweep_run(
        settings.tracking_uri, settings.workdir, settings.space.name, settings.name,
        {**settings.fixed, "seed": settings.seed, "preset": settings.preset or "none"},
    )  # fmt: skip
    settings.write()
    try:
        mirror.push()  # from here on it is this driver's
        with monitored(run):
            yield run
    except BaseException as error:
        _end(run, settings, "KILLED" if status_after(error) == "stopped" else "FAILED")
        try:
            mirror.push(patience_s=0)
        except ClusterError as lost:  # what ended the sweep is what is to be told
            make_console().print(f"Not everything is at {settings.place}: {lost}", markup=False)
        if isinstance(error, KeyboardInterrupt):
            raise Stopped(f"stopped by hand; go on with: {settings.resume_command}") from None
        raise
    _end(run, settings, "FINISHED")
    mirror.push()


def status_after(error: BaseException) -> str:
    """Return what result.json calls a sweep that an error ended: stopped, by hand, or failed."""
    return "stopped" if isinstance(error, KeyboardInterrupt | Stopped) else "failed"


def _end(run: SweepRun, settings: SweepSettings, status: str) -> None:
    """Close the sweep's run, and say what MLflow has not taken in yet."""
    if waiting := run.end(status):
        make_console().print(
            f"{waiting} entries wait for MLflow at {run.tracking_uri}; to send them: {settings.resume_command}"
        )
