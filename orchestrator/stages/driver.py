"""The driver's work around the stages: lock a sweep, resume it, track it, and report how it ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from orchestrator.cluster.resources import Resources
from orchestrator.errors import ClusterError, Stopped, UserError
from orchestrator.results.result_json import finished_result
from orchestrator.stages.bulletin import mark_ended
from orchestrator.stages.resources import resources_of
from orchestrator.state.lock import exclusive_lock
from orchestrator.state.mirror import Mirror
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import check_same_settings, write_settings
from orchestrator.terminal.console import make_console
from orchestrator.tracking.opening import open_sweep_run, reopen_sweep_run
from orchestrator.tracking.result import result_entries
from orchestrator.tracking.sweep_run import SweepRun
from orchestrator.tracking.system_metrics import monitored

__all__ = ["close_lost", "drive", "status_after", "tracked"]

CLOSE_S = 10.0
"""Seconds for which the end of a lost driver waits for MLflow."""

Stages = Callable[[SweepSettings, Resources, Mirror, Console], dict[str, Any]]
"""Runs the remaining stages, and returns the content of result.json."""


def drive(settings: SweepSettings, stages: Stages) -> dict[str, Any]:
    """Run the remaining stages of a sweep or comparison as its only driver, and return the content of result.json.

    If it is already finished, the entries that an interrupted driver has not sent to MLflow are sent.

    Raises:
        DatasetError: The dataset's files are missing.
        UserError: Another process drives the sweep, or its stored settings differ from these.
        ClusterError: Ray, MLflow or the workdir's URI failed.
        Stopped: Ctrl-C or SIGTERM ended the run.
    """
    settings.check_dataset()
    with exclusive_lock(settings.places):
        mirror = Mirror(settings.workdir, settings.name)
        mirror.pull()
        check_same_settings(settings)  # again: another driver may have written settings since the first check
        result = finished_result(settings)
        if result is None:
            console = make_console(quiet=settings.quiet)
            where = "on this machine" if settings.address == "local" else f"at {settings.address}"
            console.print(f"{'Starting' if settings.address == 'local' else 'Joining'} Ray {where}", markup=False)
            with resources_of(settings, console) as resources:
                return stages(settings, resources, mirror, console)
        run = reopen_sweep_run(settings.tracking_uri, settings.workdir, settings.name)
        if run is not None:
            run.log_result(result_entries(result, settings, run.run_id))
            _end(run, settings, "FINISHED")
            mirror.push()
        return result


@contextmanager
def tracked(settings: SweepSettings, mirror: Mirror) -> Iterator[SweepRun]:
    """Open the sweep's MLflow run and its system metrics; at the end close the run and push the mirror.

    Raises:
        Stopped: In place of KeyboardInterrupt, with the command that resumes the sweep.
        ClusterError: As the stages raised it, with that command.
    """
    run = open_sweep_run(
        settings.tracking_uri, settings.workdir, settings.space.name, settings.name,
        {**settings.fixed, "seed": settings.seed, "preset": settings.preset or "none"},
    )  # fmt: skip
    write_settings(settings)
    try:
        mirror.push()  # marks the mirror as this driver's
        with monitored(run):
            yield run
    except BaseException as error:
        _end(run, settings, "KILLED" if status_after(error) == "stopped" else "FAILED")
        try:
            mirror.push(patience_s=0)
        except ClusterError as push_error:  # only printed, so that the error that ended the sweep is raised
            make_console().print(f"The copy at {settings.places.shared} is incomplete: {push_error}", soft_wrap=True)
        if isinstance(error, ClusterError) and settings.resume_command not in str(error):
            raise ClusterError(f"{error}, then resume with: {settings.resume_command}") from error
        if isinstance(error, KeyboardInterrupt):
            raise Stopped(f"stopped by hand; resume with: {settings.resume_command}") from None
        raise
    _end(run, settings, "FINISHED")
    mirror.push()


def close_lost(settings: SweepSettings, reason: str) -> None:
    """Say in result.json and in MLflow that a sweep has failed whose driver had no turn to say it.

    Args:
        settings: The sweep's.
        reason: What ended the driver.
    """
    try:
        with exclusive_lock(settings.places):
            mark_ended(settings, "failed", reason)
            run = reopen_sweep_run(settings.tracking_uri, settings.workdir, settings.name)
            if run is not None:
                run.end("FAILED", CLOSE_S)
    except (UserError, ClusterError) as error:  # only printed: the lost driver is what the command reports
        make_console().print(f"The sweep's state is not written: {error}", soft_wrap=True)


def status_after(error: BaseException) -> str:
    """Return the status in result.json of a sweep that an error ended: stopped (by hand) or failed."""
    return "stopped" if isinstance(error, KeyboardInterrupt | Stopped) else "failed"


def _end(run: SweepRun, settings: SweepSettings, status: str) -> None:
    """Close the sweep's run, and print how many entries are not sent to MLflow yet."""
    if unsent := run.end(status):
        make_console().print(
            f"{unsent} entries wait for MLflow at {run.tracking_uri}; to send them: {settings.resume_command}",
            soft_wrap=True,
        )
