"""Servers in processes of their own, on loopback: object stores, as pyarrow.fs means s3:// and gs://; PostgreSQL."""

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

import pytest

BUCKET = "bucket"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Serve S3 with an empty bucket; give the environment that leads there."""
    port = free_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    bucket = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
    with _serving(command, bucket):
        yield environment


@contextmanager
def gs_server() -> Iterator[dict[str, str]]:
    """Serve Google's storage with an empty bucket; give the environment that leads there."""
    port = free_port()
    start = "from gcp_storage_emulator.__main__ import main; import sys; main(sys.argv[1:])"
    options = ("--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}")
    address = f"http://127.0.0.1:{port}"
    with _serving([sys.executable, "-c", start, "start", *options], f"{address}/storage/v1/b/{BUCKET}"):
        yield {"CLOUD_STORAGE_EMULATOR_ENDPOINT": address}


@contextmanager
def postgresql(*databases: str) -> Iterator[str]:
    """Serve Debian's PostgreSQL with empty databases; give the URI to which their names are put.

    It refuses to run as root, and so runs as the user that Debian made for it.
    """
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None or not (programs / "initdb").exists():
        pytest.skip("Debian's postgresql is not installed")
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
            assert server.poll() is None
            time.sleep(0.1)
        for database in databases:
            subprocess.run([programs / "createdb", *at, database], check=True, **quiet)
        yield f"postgresql://anyone@127.0.0.1:{port}/"
    finally:
        server.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        server.wait()
        shutil.rmtree(folder)


@contextmanager
def _serving(command: list[str], bucket: urllib.request.Request | str) -> Iterator[None]:
    """Have a server from when it answers a request for its bucket."""
    # They say every request: a pipe that nobody reads would stop them.
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ)
    )
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(bucket).close()
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()
