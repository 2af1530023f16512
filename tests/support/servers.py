"""Servers in processes of their own, on loopback: object stores, as pyarrow.fs means s3:// and gs://; PostgreSQL."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import servers
from benchmarks.servers import free_port

__all__ = ["BUCKET", "free_port", "gs_server", "postgresql", "s3_server"]

BUCKET = "bucket"


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
    """Serve Debian's PostgreSQL with empty databases; give the URI to which their names are put."""
    programs = servers.postgresql_programs()
    if programs is None:
        pytest.skip("Debian's postgresql is not installed")
    with servers.postgresql(programs, *databases) as uri:
        yield uri


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
