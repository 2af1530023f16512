"""A process that outlives its child, each in a small program of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.processes import end, start, wait_until

PROGRAM = """
import atexit, os, signal, sys, time
from orchestrator.cluster.guard import continue_in_child

def lost(reason):
    print("lost:", reason, flush=True)
    return SystemExit(3)

continue_in_child(lost)
print("child", os.getpid(), flush=True)
"""
WAIT = "time.sleep(60)\n"
COUNT = """
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append("TERM"))
signal.signal(signal.SIGINT, lambda *_: received.append("INT"))
print("ready", flush=True)
time.sleep(1.5)
print(received, flush=True)
"""


def program(then: str) -> subprocess.Popen[str]:
    return start(sys.executable, "-c", PROGRAM + then)


def said(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=60)[0]
    finally:
        end(process)


@pytest.mark.parametrize(("then", "code"), [("", 0), ("sys.exit(7)\n", 7), ("1 / 0\n", 1)])
def test_ends_as_a_child_that_ends_by_itself(then: str, code: int) -> None:
    process = program(then)
    assert ("ZeroDivisionError" in said(process)) == (code == 1)
    assert process.returncode == code


@pytest.mark.parametrize(
    ("words", "reason"),
    [("", "when its raylet is gone"), ("Failed to connect to GCS within 60 seconds", "when its GCS is gone")],
)
def test_says_what_is_lost_when_the_child_ends_without_pythons_end(words: str, reason: str) -> None:
    process = program(f"os.write(2, {words.encode()!r})\nos._exit(1)\n")
    told = said(process)
    assert process.returncode == 3
    assert told.splitlines()[-1].startswith("lost: Ray ended the driver (exit status 1)") and reason in told
    assert "60 seconds" not in told  # Ray's own pages are left out


def test_says_that_the_child_was_killed() -> None:
    process = program("os.kill(os.getpid(), signal.SIGKILL)\n")
    assert "lost: the driver was killed (signal 9)" in said(process)
    assert process.returncode == 3


def test_prints_at_the_end_what_other_code_wrote_to_stderr() -> None:
    process = program("os.write(2, b'a warning of C++')\nprint('of Python', file=sys.stderr)\n")
    assert said(process).splitlines()[1:] == ["of Python", "a warning of C++"]
    assert process.returncode == 0


@pytest.mark.parametrize("to_both", [False, True], ids=["first process", "both"])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_arrives_once(by: signal.Signals, *, to_both: bool) -> None:
    process = program(COUNT)
    assert process.stdout is not None
    assert any(line == "ready\n" for line in process.stdout)
    (os.killpg if to_both else os.kill)(process.pid, by)
    assert said(process).splitlines() == [str([by.name.removeprefix("SIG")])]
    assert process.returncode == 0


def test_ends_by_the_signal_that_ended_the_child() -> None:
    process = program("print('ready', flush=True)\n" + WAIT)
    assert process.stdout is not None
    assert any(line == "ready\n" for line in process.stdout)
    process.terminate()
    said(process)
    assert process.returncode == -signal.SIGTERM


def test_the_child_is_killed_with_the_first_process(tmp_path: Path) -> None:
    process = program(f"open({str(tmp_path / 'ready')!r}, 'w').close()\n" + WAIT)
    try:
        wait_until(process, (tmp_path / "ready").exists)
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:  # the test's own timeout bounds it
            time.sleep(0.02)
    finally:
        end(process)
