"""Checks whether a Ray cluster answers at an address; does not import ray itself, so that an error appears soon."""

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.errors import UserError

__all__ = ["check_answers", "has_token"]

ANSWER_TIMEOUT_S = 20.0
CONNECTIONS = 10
"""Attempts of Ray to connect, a second each: after its usual 20 the reason would come too late."""
_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that give a token; without them it is the home folder's."""
_REFUSED_TOKEN = ("AuthenticationError", "InvalidAuthToken", "Invalid or missing authentication token")
"""What Ray says of a wrong or missing token."""


def check_answers(address: str) -> None:
    """Refuse an address at which no cluster answers, or one that requires another token.

    A child process tries the connection, because Ray waits for minutes and then aborts the connecting process.

    Raises:
        UserError: No cluster answers within `ANSWER_TIMEOUT_S`, or it does not accept the token.
    """
    if address == "local":
        return
    if has_token() or any(name in os.environ for name in _TOKEN):
        # A cluster that was started with a token requires it, and by default Ray does not send it.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    attempt = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", attempt, address],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_TIMEOUT_S,
            env={"RAY_NUM_REDIS_GET_RETRIES": str(CONNECTIONS), **os.environ},
        )
    except subprocess.TimeoutExpired as error:
        raise _no_answer(address, f"no answer within {ANSWER_TIMEOUT_S:.0f} s") from error
    if any(words in probe.stderr for words in _REFUSED_TOKEN) and probe.returncode:
        raise _no_access(address)
    if probe.returncode:
        lines = [line for line in probe.stderr.splitlines() if line.strip()]
        raise _no_answer(address, lines[-1] if lines else f"exit code {probe.returncode}")


def has_token() -> bool:
    """Return whether this user's home has Ray's token."""
    try:
        return (Path.home() / ".ray" / "auth_token").exists()
    except (OSError, RuntimeError):  # the home cannot be read, or there is none
        return False


def _no_access(address: str) -> UserError:
    """Return the error of a wrong or missing token: which token was sent, or why none was."""
    given = [name for name in _TOKEN if name in os.environ]
    if os.environ.get("RAY_AUTH_MODE", "disabled").lower() != "token":
        what = f"none was sent, because RAY_AUTH_MODE is {os.environ.get('RAY_AUTH_MODE', 'not set')}"
    elif given:
        what = f"that of {given[0]} is wrong"
    else:
        what = "that of ~/.ray/auth_token is wrong" if has_token() else "there is none"
    return UserError(
        f"Ray at --address {address} requires its cluster's token, and {what}; put the token into ~/.ray/auth_token or "
        "RAY_AUTH_TOKEN, and set RAY_AUTH_MODE=token"
    )


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at --address {address} ({reason}); --address is local, auto, HOST:PORT or "
        "ray://HOST:PORT: use local, or start the cluster"
    )
