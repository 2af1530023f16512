"""Checks whether a Ray cluster answers at an address; does not import ray itself, so that an error appears soon."""

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import UserError

__all__ = ["check_answers", "has_token"]

ANSWER_TIMEOUT_S = 20.0


def check_answers(address: str) -> None:
    """Refuse an address at which no cluster answers.

    A child process tries the connection, because Ray waits for minutes and then aborts the connecting process.

    Raises:
        UserError: No cluster answers within `ANSWER_TIMEOUT_S`.
    """
    if address == "local":
        return
    if has_token():
        # A cluster that was started with this file requires the token, and by default Ray does not send it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    attempt = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", attempt, address],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _no_answer(address, f"no answer within {ANSWER_TIMEOUT_S:.0f} s") from error
    if probe.returncode:
        lines = [line for line in probe.stderr.splitlines() if line.strip()]
        raise _no_answer(address, lines[-1] if lines else f"exit code {probe.returncode}")


def has_token() -> bool:
    """Return whether this user's home has Ray's token."""
    try:
        return (Path.home() / ".ray" / "auth_token").exists()
    except (OSError, RuntimeError):  # the home cannot be read, or there is none
        return False


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at --address {address} ({reason}); --address is local, auto, HOST:PORT or "
        "ray://HOST:PORT: use local, or start the cluster"
    )
