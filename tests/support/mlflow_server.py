"""MLflow's own server, which can be away for a while."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.support.processes import end
from tests.support.servers import free_port


class MlflowServer:
    """A real MLflow server over a SQLite file, which can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'remote.db'}",
            "--artifacts-destination", str(self.folder / "store"),
        ]  # fmt: skip
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True, env=environment
            )
        while True:  # the test's own timeout bounds it
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            end(self._process)
            self._process = None
