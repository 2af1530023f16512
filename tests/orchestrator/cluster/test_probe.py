"""Clusters that require a token: a wrong one and a missing one are told as what they are."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster import probe
from orchestrator.cluster.probe import check_answers, has_token
from orchestrator.errors import UserError

RIGHT = "right-" + "a" * 40


CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
print("ADDRESS", cluster.address, flush=True)
input()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster that requires a token, made in another process: Ray reads its token once a process."""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": RIGHT}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert cluster.stdout is not None
    address = next(line for line in cluster.stdout if line.startswith("ADDRESS")).split()[1]
    try:
        yield address
    finally:
        cluster.communicate("\n", timeout=60)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without a token, and no variables of Ray."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that what the probe sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(probe, "CONNECTIONS", 2)
    return tmp_path


def keep_token(home: Path, token: str) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)


@pytest.mark.slow
def test_the_right_token_is_sent_from_where_it_is(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", RIGHT)
    check_answers(address)
    assert os.environ["RAY_AUTH_MODE"] == "token"


@pytest.mark.slow
def test_a_wrong_one_is_said(address: str, home: Path) -> None:
    keep_token(home, "wrong")
    with pytest.raises(UserError, match=r"requires its cluster's token, and that of ~/\.ray/auth_token is wrong"):
        check_answers(address)


@pytest.mark.slow
def test_a_missing_one_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(UserError, match="and there is none; put the token into"):
        check_answers(address)


@pytest.mark.slow
def test_one_that_is_not_sent_is_said(address: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_token(home, RIGHT)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UserError, match="none was sent, because RAY_AUTH_MODE is disabled"):
        check_answers(address)


def test_a_home_that_is_none_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null/home")
    assert not has_token()
