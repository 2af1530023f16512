"""Servers in processes of their own, on loopback: PostgreSQL, and MLflow's."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["free_port", "mlflow_server", "postgresql", "postgresql_programs"]


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgresql_programs() -> Path | None:
    """Return the folder of Debian's PostgreSQL programs; None: it is not installed."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    return programs if programs is not None and (programs / "initdb").exists() else None


@contextmanager
def postgresql(programs: Path, *databases: str) -> Iterator[str]:
    """Serve PostgreSQL with empty databases; give the URI to which their names are appended.

    It refuses to run as root, and so runs as the user that Debian made for it.

    Args:
        programs: As `postgresql_programs` returns it.
        databases: Names of the databases.
    """
    as_user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="mdatm-postgresql-"))
    if as_user:
        shutil.chown(folder, **as_user)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    make: list[str | Path] = [programs / "initdb", "--pgdata", folder / "data", "--username=anyone", "--auth=trust"]
    subprocess.run([*make, "--no-sync"], check=True, **quiet, **as_user)
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
    options = [word for setting in settings for word in ("-c", setting)]
    server = subprocess.Popen(
        [programs / "postgres", "-D", folder / "data", "-p", str(port), *options],
        start_new_session=True, **quiet, **as_user,
    )  # fmt: skip
    at = ("--host=127.0.0.1", f"--port={port}", "--username=anyone")
    try:
        while subprocess.run([programs / "pg_isready", *at], **quiet).returncode:
            assert server.poll() is None, "PostgreSQL has ended"
            time.sleep(0.1)
        for database in databases:
            subprocess.run([programs / "createdb", *at, database], check=True, **quiet)
        yield f"postgresql://anyone@127.0.0.1:{port}/"
    finally:
        server.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        server.wait()
        shutil.rmtree(folder)


@contextmanager
def mlflow_server(folder: Path, store: str) -> Iterator[str]:
    """Serve MLflow over a database, with artifacts and log in a folder; give the server's address."""
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts"),
        "--uvicorn-opts", "--no-access-log",
    ]  # fmt: skip
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
