"""Where an embedded Ray puts its sockets if the temporary folder is too long, missing or not writable."""

import os
import socket
from pathlib import Path

import pytest

from orchestrator.cluster import session_folder as module
from orchestrator.cluster.session_folder import session_folder
from orchestrator.errors import UserError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_a_short_temporary_folder_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    short = Path("/tmp") / f"m{os.getpid()}"
    short.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", str(short))
        assert session_folder() == f"{short}/ray"
        monkeypatch.setenv("RAY_TMPDIR", f"{short}/own")
        assert session_folder() == f"{short}/own/ray"
    finally:
        short.rmdir()


@pytest.mark.parametrize("unusable", ["/tmp/" + "j" * 60, "/tmp/is-not-there", "/proc"])
@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_another_is_chosen(unusable: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if (unusable, name) == ("/tmp/is-not-there", "RAY_TMPDIR"):
        pytest.skip("Ray creates the folder that was named for it")
    monkeypatch.setenv(name, unusable)
    assert session_folder() in ("/tmp/ray", f"/tmp/ray-{os.getuid()}")


def test_none_at_all_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SOCKET_BYTES", 10)
    with pytest.raises(UserError, match=r"needs a temporary folder .* set RAY_TMPDIR to one"):
        session_folder()


def test_the_limit_is_the_systems(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        longest = "/tmp/" + "s" * (module.LONGEST_SOCKET_BYTES - len("/tmp/"))
        one.bind(longest)
        Path(longest).unlink()
        with pytest.raises(OSError, match="too long"):
            other.bind(longest + "s")
