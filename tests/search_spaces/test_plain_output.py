"""Commands on terminals that know only ASCII, or cp1252."""

import os
import subprocess
import sys

import pytest

from search_spaces.plain_output import in_ascii
from tests.support.paths import ROOT

COMMANDS = [
    ("orchestrator.mdatm", "--help"),
    ("orchestrator.sweep", "--help"),
    ("orchestrator.status", "--help"),
    ("orchestrator.sweep", "--space", "digits", "--plan"),
    ("orchestrator.sweep", "--space", "digits", "--name", "α–θ/é"),
    ("orchestrator.mdatm", "spaces", "digits"),
    ("search_spaces",),
]


def test_known_characters_have_forms_in_ascii_and_others_escapes() -> None:
    assert in_ascii("θ ± .5 – α × 3 … ≤ é 🎈") == "theta +/- .5 - alpha x 3 ... <= \\xe9 \\U0001f388"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_command_writes_what_the_terminal_has(encoding: str) -> None:
    """All at once: each takes a second to start."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=environment
        )
        for command in COMMANDS
    ]
    said = []
    for process, command in zip(started, COMMANDS, strict=True):
        output, errors = (stream.decode(encoding) for stream in process.communicate(timeout=120))
        assert process.returncode == (2 if "--name" in command else 0), errors
        assert "Traceback" not in errors
        said.append(output + errors)
    spaces = said[COMMANDS.index(("orchestrator.mdatm", "spaces", "digits"))]
    assert ("T_minus < T <= T_plus" if encoding == "ascii" else "learning rate of alpha") in spaces
