"""The command that shows MLflow's pages about a sweep: its trials' charts, their table, and the best trials compared.

python -m orchestrator.ui
"""

import os
import signal
import subprocess
import sys

import click

from orchestrator.errors import ClusterError, UserError
from orchestrator.results.result_json import stored_result
from orchestrator.state.looking import fetch
from orchestrator.state.places import check_name
from orchestrator.state.settings import SweepSettings
from orchestrator.state.settings_file import read_settings
from orchestrator.state.workdir import Workdir
from orchestrator.terminal.completion import complete_sweeps
from orchestrator.terminal.options import one_line_errors, workdir_option
from search_spaces.plain_output import Command

__all__ = ["main"]


@click.command(
    cls=Command, help="Show MLflow's pages about a sweep's trials; serves them on 127.0.0.1 if no server does."
)
@workdir_option
@click.option(
    "--sweep",
    metavar="SWEEP",
    shell_complete=complete_sweeps,
    help="Sweep whose trials to compare, also while it runs; default: the sweep that was written last.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@one_line_errors
def main(workdir: str, sweep: str | None, port: int) -> None:
    """Print the pages' addresses, and serve the pages until stopped unless a tracking server serves them."""
    settings = _settings(Workdir.at(workdir), sweep)
    fetch(settings.places)
    databases, result = settings.workdir.databases(settings.name), stored_result(settings)
    if result is None:
        raise UserError(f"{settings.name!r} has no runs in MLflow yet; it begins with: {settings.resume_command}")
    tracked = result["mlflow"]
    store = settings.tracking_uri or databases.mlflow_uri
    if settings.tracking_uri is None and not databases.mlflow_database.exists():  # MLflow would make an empty one
        raise UserError(f"the MLflow database {databases.mlflow_database} is missing; restore it")
    from orchestrator.tracking.pages import prepare_pages  # here, because MLflow takes seconds to load

    pages = prepare_pages(store, settings.space, settings.name, tracked["experiment_id"], tracked["parent_run_id"])
    served = store.startswith("http")
    for title, page in pages.items():
        click.echo(f"{title}: {store.rstrip('/') if served else f'http://127.0.0.1:{port}'}/{page}")
    if not served:
        _serve(store, databases, port)


def _serve(store: str, databases: Workdir, port: int) -> None:
    """Run MLflow's server on 127.0.0.1 until stopped.

    Raises:
        ClusterError: The server ended by itself.
    """
    click.echo(f"MLflow's server on 127.0.0.1:{port} takes some seconds to start; Ctrl-C stops it")
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store, "--default-artifact-root", databases.mlflow_artifacts.absolute().as_uri(),
        "--uvicorn-opts", "--no-access-log",  # else its lines scroll the printed addresses away
    ]  # fmt: skip
    # MLflow's job runners would start eight more processes, which these pages do not use.
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server ends with this process
    try:
        code = server.wait()
    except KeyboardInterrupt:
        return
    finally:
        server.terminate()
        server.wait()
    raise ClusterError(f"the MLflow server ended with exit code {code}; is port {port} free?")


def _settings(workdir: Workdir, sweep: str | None) -> SweepSettings:
    """Return the settings of a sweep; without a name, of the one whose result.json was written last.

    Raises:
        UserError: The workdir has no such sweep, or no sweep of a workdir at a URI is named.
    """
    if sweep is not None:
        check_name(sweep)
        return read_settings(workdir, sweep)
    names = workdir.sweeps()
    if workdir.uri is not None or not names:
        existing = f"there are {', '.join(names)}" if names else "there is none; run one first"
        raise UserError(f"--sweep names a sweep of {workdir}; {existing}")
    written = [(workdir.sweep(name) / "result.json", name) for name in names]
    times = [(file.stat().st_mtime if file.exists() else 0.0, name) for file, name in written]
    return read_settings(workdir, max(times)[1])


if __name__ == "__main__":
    main()
