"""The journal on disk and the thread that empties it, with services that are functions of this page."""

import json
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from orchestrator.errors import ClusterError
from orchestrator.tracking import sender as sender_module
from orchestrator.tracking.journal import METRICS, Backlog, Entry, Journal
from orchestrator.tracking.sender import Refused, Sender, Unavailable
from tests.support.paths import ROOT

Deliver = Callable[[Sequence[Entry]], int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep" / "journal"


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal(folder)


def rows(step: int, size: int = 1) -> list[list[object]]:
    return [[f"metric_{number}", 0.5, 1_700_000_000_000, step] for number in range(size)]


def picture(journal: Journal, number: int, content: bytes = bytes(1000)) -> None:
    journal.add("a", *journal.keep_picture("a", "images", f"{number}.png", content))


def drained(journal: Journal) -> list[tuple[str, str, Any]]:
    """Take everything, as a sender would that is given one entry at a time."""
    taken = []
    while entries := journal.head():
        taken.append((entries[0].run, entries[0].kind, entries[0].payload))
        journal.remove(entries[:1])
    return taken


class TestJournal:
    def test_keeps_entries_of_each_run_in_order_across_a_reopening(self, journal: Journal, folder: Path) -> None:
        journal.add("a", ("run", {}), ("params", {"x": "1"}))
        journal.add("b", ("run", {}))
        journal.add("a", (METRICS, rows(1)))
        journal.close()
        again = Journal(folder)
        assert again.waiting == 4
        assert [(entry.run, entry.kind) for entry in again.head()] == [("a", "run"), ("a", "params"), ("a", METRICS)]
        assert [(run, kind) for run, kind, _ in drained(again)] == [
            ("a", "run"), ("a", "params"), ("b", "run"), ("a", METRICS),
        ]  # fmt: skip
        assert again.waiting == 0

    def test_remembers_runs_and_facts(self, journal: Journal, folder: Path) -> None:
        assert journal.run("a") is None and journal.recall("uri") is None
        journal.add("a", status="RUNNING")
        journal.name_run("a", "id-of-a")
        journal.add("a", (METRICS, rows(10)), iteration=10)
        journal.name_run("b", "id-of-b")
        journal.remember("uri", "http://there")
        identity = journal.recall("id")
        journal.close()
        again = Journal(folder)
        assert again.recall("uri") == "http://there" and again.recall("id") == identity
        known = {name: (run.run_id, run.status, run.iteration) for name, run in again.runs().items()}
        assert known == {"a": ("id-of-a", "RUNNING", 10), "b": ("id-of-b", None, -1)}
        assert again.run("a") == again.runs()["a"]

    def test_does_once_what_is_to_be_done_once(self, journal: Journal, folder: Path) -> None:
        journal.add("a", (METRICS, rows(1)), once="losses")
        journal.add("a", (METRICS, rows(1)), once="losses")
        journal.close()
        again = Journal(folder)
        again.add("a", (METRICS, rows(1)), once="losses")
        again.add("a", (METRICS, rows(1)), once="result")
        assert again.waiting == 2

    def test_does_again_what_it_is_to_forget(self, journal: Journal) -> None:
        for once in ("result", "finals trial-000", "finals soft_trial-001", "finals k_center"):
            journal.add("a", (METRICS, rows(1)), once=once)
        journal.forget("finals *trial-*")
        for once in ("result", "finals trial-000", "finals soft_trial-001", "finals k_center"):
            journal.add("a", (METRICS, rows(2)), once=once)
        assert journal.waiting == 6

    def test_takes_in_all_parts_or_none(self, journal: Journal) -> None:
        with pytest.raises(ValueError, match="Out of range float"):
            journal.add("a", ("run", {}), (METRICS, [["loss", float("nan"), 1, 1]]), iteration=1)
        assert journal.waiting == 0 and journal.head() == [] and journal.run("a") is None

    def test_a_full_disk_is_said_and_leaves_it_usable(self, journal: Journal) -> None:
        journal.add("a", ("run", {}))
        journal._database.execute("PRAGMA max_page_count = 12")
        with pytest.raises(ClusterError, match=r"journal\.db cannot be written .*free space there"):
            journal.add("a", (METRICS, rows(1, 1000)), iteration=1)
        state = journal.run("a")
        assert state is not None and journal.waiting == 1 and state.iteration == -1
        journal._database.execute("PRAGMA max_page_count = 100000")
        journal.add("a", (METRICS, rows(1, 1000)), iteration=1)
        assert journal.waiting == 2

    @pytest.mark.parametrize("moment", range(9))
    def test_an_interrupt_at_any_moment_leaves_it_usable(self, journal: Journal, moment: int) -> None:
        """Ctrl-C comes between two lines of the transaction: of none of them may it lose count, or leave one open."""
        lines = 0

        def interrupt(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal lines
            if frame.f_code.co_name != "_transaction":
                return None
            if event == "line":
                lines += 1
                if lines == moment + 1:
                    raise KeyboardInterrupt
            return interrupt

        sys.settrace(interrupt)
        try:
            with suppress(KeyboardInterrupt):
                journal.add("a", (METRICS, rows(1)))
        finally:
            sys.settrace(None)
        journal.add("a", (METRICS, rows(2)))
        waiting = journal.waiting
        assert waiting == len(drained(journal)) in (1, 2)

    def test_refuses_what_is_no_journal(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "journal.db").write_bytes(b"no database" * 1000)
        with pytest.raises(ClusterError, match=r"journal\.db cannot be opened as a journal"):
            Journal(folder)

    def test_refuses_a_journal_of_another_format(self, journal: Journal, folder: Path) -> None:
        journal._database.execute("PRAGMA user_version = 7")
        journal.close()
        with pytest.raises(ClusterError, match="format version 7"):
            Journal(folder)

    def test_is_used_from_several_threads(self, journal: Journal) -> None:
        def write(run: str) -> None:
            for step in range(50):
                journal.add(run, (METRICS, rows(step)), iteration=step)

        threads = [threading.Thread(target=write, args=(f"run-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        taken: list[tuple[str, int]] = []
        while len(taken) < 200:
            entries = journal.head()
            taken += [(entry.run, entry.payload[0][3]) for entry in entries]
            journal.remove(entries)
        for thread in threads:
            thread.join()
        assert journal.waiting == 0
        for number in range(4):
            assert [step for run, step in taken if run == f"run-{number}"] == list(range(50))


class TestBounds:
    def test_metrics_over_the_limit_are_dropped_and_all_else_is_kept(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        journal = Journal(folder, limit_bytes=80_000)
        for step in range(300):
            journal.add("a", (METRICS, rows(step, 11)), iteration=step)
        kept = journal.waiting
        assert 30 < kept < 300
        journal.add("a", ("status", {"status": "FINISHED"}), status="FINISHED")
        assert journal.backlog() == Backlog(waiting=kept + 1, refused=0, dropped=300 - kept)
        assert journal.database.stat().st_size < 100_000
        said = [record.message for record in caplog.records]
        assert len(said) == 1 and "Optuna study and trials.parquet" in said[0]
        steps = [payload[0][3] for _, kind, payload in drained(journal) if kind == METRICS]
        assert steps == list(range(kept)), "the oldest are kept, none of them twice"
        journal.add("a", (METRICS, rows(300)), iteration=300)
        assert journal.waiting == 1, "there is room again"

    def test_pictures_over_the_limit_are_not_kept(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        journal = Journal(folder, pictures_limit_bytes=2500)
        for number in range(6):
            picture(journal, number)
        journal.add("a", (METRICS, rows(1)))
        assert sorted(path.name for path in folder.rglob("*.png")) == ["0.png", "1.png", "2.png"]
        assert journal.backlog() == Backlog(waiting=4, refused=0, dropped=3)
        assert len(caplog.records) == 1 and "the trials' checkpoints" in caplog.records[0].message
        journal.remove(journal.head())
        assert not list(folder.rglob("*.png")), "what is sent needs no picture here"
        picture(journal, 6)
        assert [path.name for path in folder.rglob("*.png")] == ["6.png"]

    def test_a_picture_that_cannot_be_written_leaves_nothing(self, journal: Journal, folder: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # as a full disk, in the middle of the file
        try:
            with pytest.raises(OSError, match="too large"):
                journal.keep_picture("a", "images", "0.png", bytes(1000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert journal.waiting == 0 and not list(folder.rglob("*.png"))

    def test_what_waits_counts_after_a_reopening(self, folder: Path) -> None:
        journal = Journal(folder)
        picture(journal, 0)
        journal.close()
        again = Journal(folder, pictures_limit_bytes=500)
        picture(again, 1)
        assert again.backlog() == Backlog(waiting=1, refused=0, dropped=1)

    def test_a_picture_that_no_entry_is_about_is_deleted(self, folder: Path) -> None:
        journal = Journal(folder)
        picture(journal, 0, b"picture")
        half_drawn = folder / "pictures" / "a" / "1.png"
        half_drawn.write_bytes(b"pict")
        journal.close()
        again = Journal(folder)
        assert not half_drawn.exists()
        assert again.path_of(again.head()[0]).read_bytes() == b"picture"

    def test_an_emptied_journal_leaves_no_folders(self, journal: Journal, folder: Path) -> None:
        picture(journal, 0, b"picture")
        journal.remove(journal.head())
        journal.close()
        assert list((folder / "pictures").iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from orchestrator.tracking.journal import METRICS, Journal

journal = Journal(Path(sys.argv[1]))
known = journal.run("a")
for step in range(known.iteration + 1 if known else 0, 1_000_000):
    journal.add("a", (METRICS, [["loss", 0.5, step, step]]), iteration=step)
    print(step, flush=True)
"""


def test_what_was_taken_in_is_there_after_a_sigkill(folder: Path) -> None:
    last = -1
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert writer.stdout is not None
        try:
            for line in writer.stdout:
                if int(line) >= last + 100:
                    break
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().splitlines()
            writer.wait()
        last = int(rest[-1] if rest else line)
    journal = Journal(folder)
    steps = [payload[0][3] for _, _, payload in drained(journal)]
    assert steps == list(range(len(steps))) and len(steps) > last
    state = journal.run("a")
    assert state is not None and state.iteration == steps[-1]


@pytest.fixture
def start(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Deliver], Sender]]:
    """Start senders that pause shortly, and stop them after the test."""
    monkeypatch.setattr(sender_module, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sender_module, "LONGEST_PAUSE_S", 0.05)
    started = []

    def start(deliver: Deliver) -> Sender:
        started.append(Sender(journal, "the service", deliver))
        return started[-1]

    yield start
    for sender in started:
        sender.stop()


class TestSender:
    def test_sends_in_order_and_is_done(self, journal: Journal, start: Callable[[Deliver], Sender]) -> None:
        taken: list[Entry] = []

        def deliver(entries: Sequence[Entry]) -> int:
            taken.extend(entries[:3])
            return min(3, len(entries))

        journal.add("a", *((METRICS, rows(step)) for step in range(10)))
        sender = start(deliver)
        assert sender.flush(60) == Backlog(waiting=0, refused=0, dropped=0)
        journal.add("a", (METRICS, rows(10)))
        assert sender.flush(60).waiting == 0
        assert [entry.payload[0][3] for entry in taken] == list(range(11))

    def test_waits_for_a_service_that_is_away_and_says_so_once(
        self, journal: Journal, start: Callable[[Deliver], Sender], caplog: pytest.LogCaptureFixture
    ) -> None:
        attempts, back = threading.Semaphore(0), threading.Event()
        taken: list[Entry] = []

        def deliver(entries: Sequence[Entry]) -> int:
            attempts.release()
            if not back.is_set():
                raise Unavailable("connection refused")
            taken.extend(entries[:1])
            return 1

        sender = start(deliver)
        journal.add("a", (METRICS, rows(0)))
        for _ in range(5):
            attempts.acquire()
        journal.add("a", (METRICS, rows(1)), (METRICS, rows(2)))
        back.set()
        assert sender.flush(60).waiting == 0
        assert [entry.payload[0][3] for entry in taken] == [0, 1, 2]
        said = [record.message for record in caplog.records if not record.message.startswith("waiting")]
        assert said[0].startswith("the service accepts nothing (connection refused); the sweep continues")
        assert said[1:] == ["the service is back; 3 entries waited"]

    def test_flush_says_what_waits(self, journal: Journal, start: Callable[[Deliver], Sender]) -> None:
        def deliver(entries: Sequence[Entry]) -> int:
            raise Unavailable("connection refused")

        journal.add("a", *((METRICS, rows(step)) for step in range(7)))
        assert start(deliver).flush(0.1) == Backlog(waiting=7, refused=0, dropped=0)

    def test_a_refused_entry_is_set_aside_and_holds_up_nothing(
        self, journal: Journal, start: Callable[[Deliver], Sender], caplog: pytest.LogCaptureFixture
    ) -> None:
        taken: list[Entry] = []

        def deliver(entries: Sequence[Entry]) -> int:
            if any(entry.payload[0][3] in (3, 6) for entry in entries):
                raise Refused("INVALID_PARAMETER_VALUE")
            taken.extend(entries)
            return len(entries)

        journal.add("a", *((METRICS, rows(step)) for step in range(9)))
        assert start(deliver).flush(60) == Backlog(waiting=0, refused=2, dropped=0)
        assert [entry.payload[0][3] for entry in taken] == [0, 1, 2, 4, 5, 7, 8]
        said = [record.message for record in caplog.records]
        assert len(said) == 1 and "refuses an entry of a (metrics: INVALID_PARAMETER_VALUE)" in said[0]
        with sqlite3.connect(journal.database) as database:
            kept = database.execute("SELECT run, kind, payload, reason FROM refused ORDER BY id").fetchall()
        assert [(run, kind, json.loads(payload)[0][3], reason) for run, kind, payload, reason in kept] == [
            ("a", METRICS, 3, "INVALID_PARAMETER_VALUE"), ("a", METRICS, 6, "INVALID_PARAMETER_VALUE"),
        ]  # fmt: skip

    def test_a_refused_picture_is_deleted(
        self, journal: Journal, start: Callable[[Deliver], Sender], folder: Path
    ) -> None:
        def deliver(entries: Sequence[Entry]) -> int:
            raise Refused("no such run")

        picture(journal, 0, b"picture")
        assert start(deliver).flush(60) == Backlog(waiting=0, refused=1, dropped=0)
        assert not list((folder / "pictures").rglob("*.png")), "or refused pictures would have no bound"

    def test_goes_on_after_the_disk_was_full(
        self, journal: Journal, start: Callable[[Deliver], Sender], caplog: pytest.LogCaptureFixture
    ) -> None:
        taken: list[Entry] = []
        failures = iter([sqlite3.OperationalError("database or disk is full")] * 2)

        def deliver(entries: Sequence[Entry]) -> int:
            if (failure := next(failures, None)) is not None:
                raise failure
            taken.extend(entries)
            return len(entries)

        journal.add("a", (METRICS, rows(0)))
        assert start(deliver).flush(60).waiting == 0
        assert len(taken) == 1 and any("disk is full" in record.message for record in caplog.records)

    def test_can_be_stopped_while_the_service_is_away(
        self, journal: Journal, start: Callable[[Deliver], Sender], folder: Path
    ) -> None:
        def deliver(entries: Sequence[Entry]) -> int:
            raise Unavailable("connection refused")

        sender = start(deliver)
        journal.add("a", (METRICS, rows(0)))
        sender.stop()
        assert Journal(folder).waiting == 1


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="orchestrator")
