"""The command that shows MLflow's pages about a sweep: its trials' charts, their table, and the best trials compared.

python -m orchestrator.ui
"""

import glob
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
from filelock import FileLock, Timeout

from orchestrator.errors import ClusterError, UserError
from orchestrator.state.mirror import Mirror
from orchestrator.state.places import check_name
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
    help="Sweep whose trials to compare; default: the last finished sweep.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@one_line_errors
def main(workdir: str, sweep: str | None, port: int) -> None:
    """Print the pages' addresses, and serve the pages until stopped unless a tracking server serves them."""
    databases = _with_databases(Workdir.at(workdir), sweep)
    result = _last_result(Workdir.at(workdir), sweep)
    settings = read_settings(Workdir.at(workdir), result.parent.name)
    tracked = json.loads(result.read_text(encoding="utf-8"))["mlflow"]
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


def _with_databases(workdir: Workdir, sweep: str | None) -> Workdir:
    """Return the folder that has the databases; for a workdir at a URI, the sweep's folder, updated from the URI.

    Raises:
        UserError: The URI has no such sweep, or no sweep is named.
    """
    if workdir.uri is None:
        return workdir
    if sweep is None or workdir.shared_sweep(sweep).read("settings.json") is None:
        names = workdir.sweeps()
        existing = f"there are {', '.join(names)}" if names else "there is none"
        raise UserError(f"--sweep names a sweep of {workdir}, not {sweep}; {existing}")
    folder = workdir.sweep(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        suppress(Timeout),
        FileLock(folder / ".lock", timeout=0),
    ):  # a held lock: the sweep's driver runs here, and its folder is newer
        Mirror(workdir, sweep).pull()
    return workdir.databases(sweep)


def _last_result(workdir: Workdir, sweep: str | None) -> Path:
    """Return the path of a finished sweep's result.json; without a name, of the sweep that finished last.

    Raises:
        UserError: The name cannot be a sweep's, or the workdir has no such result.
    """
    if sweep is not None:
        check_name(sweep)
    name = "*" if sweep is None else glob.escape(sweep)
    results = sorted(workdir.root.glob(f"sweeps/{name}/result.json"), key=lambda path: path.stat().st_mtime)
    if not results:
        raise UserError(
            f"no finished sweep{'' if sweep is None else f' named {sweep!r}'} in {workdir}/sweeps; run one first"
        )
    return results[-1]


if __name__ == "__main__":
    main()
