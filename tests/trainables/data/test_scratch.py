"""The scratch of a preparation: it goes on after a kill, and never with what is not its own."""

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT
from trainables.data.decoding import Block, Damaged
from trainables.data.scratch import open_scratch, stored_bytes

SHAPE = (1, 2, 2)
IMAGES = np.arange(80, dtype=np.uint8).reshape(20, *SHAPE)


def interrupted(target: Path, blocks: int, *, shape: tuple[int, int, int] = SHAPE, header: str = "a") -> None:
    """Store blocks of five images each, as a process that is then interrupted; one image in each is damaged."""
    with pytest.raises(KeyboardInterrupt), open_scratch(target, shape, [header]) as scratch:
        for _ in range(blocks):
            first = scratch.rows
            damaged = [Damaged(first + 2, f"image {first + 2}", "torn")]
            scratch.add(Block(IMAGES[first : first + 5].reshape(5, *shape), damaged))
        raise KeyboardInterrupt


def test_it_goes_on_from_the_last_whole_block(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "data.arrow"
    assert stored_bytes(target) == 0
    interrupted(target, 1)
    interrupted(target, 2)
    assert stored_bytes(target) == 15 * 4
    with open_scratch(target, SHAPE, ["a"]) as scratch:
        assert scratch.rows == 15
        assert scratch.damaged == [Damaged(row, f"image {row}", "torn") for row in (2, 7, 12)]
        scratch.add(Block(IMAGES[15:], []))
        assert np.array_equal(scratch.read(0, 20), IMAGES)
        assert np.array_equal(scratch.read(7, 4), IMAGES[7:11])
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("other", [{"header": "b"}, {"shape": (1, 1, 4)}], ids=["another source", "another size"])
def test_of_another_source_or_size_nothing_is_taken(tmp_path: Path, other: dict[str, Any]) -> None:
    target = tmp_path / "data.arrow"
    interrupted(target, 2)
    interrupted(target, 0, **other)
    with open_scratch(target, other.get("shape", SHAPE), [other.get("header", "a")]) as scratch:
        assert (scratch.rows, scratch.damaged) == (0, [])


def test_a_torn_block_and_a_torn_line_are_discarded(tmp_path: Path) -> None:
    target = tmp_path / "data.arrow"
    interrupted(target, 3)
    journal, pixels = sorted(tmp_path.iterdir())
    journal.write_bytes(journal.read_bytes()[:-3])
    with pixels.open("ab") as file:
        file.write(b"half a block")
    with open_scratch(target, SHAPE, ["a"]) as scratch:
        assert scratch.rows == 10
        scratch.add(Block(IMAGES[10:15], []))
        assert np.array_equal(scratch.read(0, 15), IMAGES[:15])
        assert pixels.stat().st_size == 15 * 4


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), open_scratch(tmp_path / "a" / "b" / "data.arrow", SHAPE, []):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_there_before_stay(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    with pytest.raises(ValueError, match="wrong"), open_scratch(tmp_path / "cache" / "data.arrow", SHAPE, []):
        raise ValueError("wrong")
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"]


HOLDER = """
import sys
from pathlib import Path
import numpy as np
from trainables.data.decoding import Block
from trainables.data.scratch import open_scratch
with open_scratch(Path(sys.argv[1]), (1, 2, 2), ["a"]) as scratch:
    scratch.add(Block(np.zeros((5, 1, 2, 2), np.uint8), []))
    print("holds it", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_and_takes_up_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "data.arrow"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout is not None and holder.stdout.readline() == "holds it\n"
    with (tmp_path / ".data.arrow.decoded").open("rb") as journal, pytest.raises(BlockingIOError):
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with open_scratch(target, SHAPE, ["a"]) as scratch:
        assert scratch.rows == 5


def test_on_a_disk_without_locks_each_process_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    target = tmp_path / "data.arrow"
    with open_scratch(target, SHAPE, ["a"]) as one, open_scratch(target, SHAPE, ["a"]) as other:
        one.add(Block(IMAGES[:5], []))
        other.add(Block(IMAGES[5:10], []))
        assert np.array_equal(one.read(0, 5), IMAGES[:5]) and np.array_equal(other.read(0, 5), IMAGES[5:10])
    assert list(tmp_path.iterdir()) == []
