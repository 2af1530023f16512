"""MLflow's own pages over a workdir, on 127.0.0.1.

python -m orchestrator.ui
"""

import json
import os
import subprocess
import sys
from contextlib import suppress

import click
from filelock import FileLock, Timeout

from orchestrator.cli import one_line_errors, workdir_option
from orchestrator.errors import ClusterError, UserError
from orchestrator.mirror import Mirror
from orchestrator.workdir import Workdir

__all__ = ["main"]


@click.command(help="Serve the MLflow comparison of a sweep's trials on 127.0.0.1.")
@workdir_option
@click.option("--sweep", metavar="SWEEP", help="Whose trials to compare; default: the last finished sweep.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@one_line_errors
def main(workdir: str, sweep: str | None, port: int) -> None:
    """Start the server, say where to look, and stay until stopped."""
    place = _with_databases(Workdir.at(workdir), sweep)
    if not place.mlflow_database.exists():
        raise UserError(f"there is no MLflow database in {workdir}; run a sweep there first, or give --workdir")
    address = _compare_address(Workdir.at(workdir), sweep, port)
    click.echo(f"MLflow serves {place.mlflow_database} on 127.0.0.1:{port}; Ctrl-C stops it")
    click.echo(f"Compare the trials: {address}")
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", place.mlflow_uri, "--default-artifact-root", place.mlflow_artifacts.absolute().as_uri(),
    ]  # fmt: skip
    # MLflow's job runners would start eight more processes that serve nothing of ours.
    server = subprocess.Popen(command, env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.wait()
        return
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()
    raise ClusterError(f"the MLflow server ended with exit code {code}; is port {port} free?")


def _with_databases(workdir: Workdir, sweep: str | None) -> Workdir:
    """Return the folder that has the databases; of a workdir at a URI the sweep's, as it is there now.

    Raises:
        UserError: At the URI there is no such sweep, or none was named.
    """
    if workdir.uri is None:
        return workdir
    if sweep is None or workdir.shared_sweep(sweep).read("settings.json") is None:
        names = workdir.sweeps()
        there = f"there are {', '.join(names)}" if names else "there is none"
        raise UserError(f"--sweep names a sweep of {workdir}, not {sweep}; {there}")
    folder = workdir.sweep(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(folder / ".lock", timeout=0):  # else its driver is at work here, and ahead
        Mirror(workdir, sweep).pull()
    return workdir.databases(sweep)


def _compare_address(workdir: Workdir, sweep: str | None, port: int) -> str:
    results = sorted(workdir.root.glob("sweeps/*/result.json"), key=lambda path: path.stat().st_mtime)
    if sweep is not None:
        results = [path for path in results if path.parent.name == sweep]
    if not results:
        raise UserError(f"no finished sweep{f' named {sweep!r}' if sweep else ''} in {workdir}/sweeps")
    address: str = json.loads(results[-1].read_text())["mlflow"]["compare_url"]
    return address.replace(":5000/", f":{port}/", 1)


if __name__ == "__main__":
    main()
