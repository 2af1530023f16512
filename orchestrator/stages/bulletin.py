"""The bulletin of a sweep: result.json and trials.parquet of a sweep that has not finished, kept up to date.

They are written at the start, at the end of every stage and when the sweep ends, and in between by a thread: at most
every `INTERVAL_S`, and less often where that would take more than a twentieth of the time. So they are there before
anything happens to the driver, and say at every moment what the study and progress.jsonl hold.
"""

import logging
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from orchestrator.results.result_json import stored_result, write_result
from orchestrator.results.under_way import StageAtWork, UnderWay
from orchestrator.state.settings import SweepSettings
from orchestrator.terminal.steps import Steps
from trainables.storage.writing_pace import WritingPace

__all__ = ["Bulletin", "mark_ended"]

INTERVAL_S = 2.0
"""Least seconds between two times that the thread writes."""
LEAST_STEPS = 3
"""Steps before their speed tells when the sweep ends: the first waits for its worker, and ends beside others."""
REASON_CHARACTERS = 300
_log = logging.getLogger(__name__)


class Bulletin:
    """Says what a sweep does: as a context it does so until the context ends. Safe to use from several threads."""

    def __init__(
        self,
        write: Callable[[str, UnderWay], None],
        settings: SweepSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin; nothing is written yet.

        Args:
            write: Writes the files for a status: running, stopped or failed.
            settings: The sweep's.
            clock: A monotonic clock, in seconds.
        """
        self._settings = settings
        self._write = write
        self._lock = threading.RLock()
        """Held while the stage changes and while the files are written."""
        self._ended = threading.Event()
        self._pace = WritingPace()
        self._thread = threading.Thread(target=self._work, name="bulletin", daemon=True)
        self._warned = False
        self._begun = datetime.now(UTC)
        self._stage = StageAtWork(name="start", since=self._begun)
        self._look: Callable[[], StageAtWork] | None = None
        self._clock = clock
        self._ends_s: float | None = None
        """When the sweep ends by the last estimate, on the clock; None: there was none."""

    def __enter__(self) -> Self:
        """Write the files for the first time, and start the thread."""
        self.write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the thread; then the files are the caller's."""
        self._ended.set()
        self._thread.join()

    def begin(self, name: str, *, unit: str = "", total: int = 0) -> None:
        """Begin a stage, and write the files.

        Args:
            name: See `StageAtWork`.
            unit: What `total` counts.
            total: All units of the stage; 0 where nothing is counted.
        """
        with self._lock:
            self._look = None
            self._stage = StageAtWork(name=name, since=datetime.now(UTC), unit=unit, total=total)
        self.write()

    def follow(self, look: Callable[[StageAtWork], StageAtWork] | None) -> None:
        """Let `look` complete the stage whenever the files are written; None: as it was completed last.

        Args:
            look: Takes the stage and returns it with `done` and all that follows from it; the thread calls it too.
        """
        with self._lock:
            self._stage = self._now()
            self._look = None if look is None else lambda: look(self._stage)

    def count(self, steps: Steps, later: float | None = None, overhead_s: float = 0.0) -> None:
        """Let the stage's steps complete it, from now on.

        Args:
            steps: The stage's.
            later: All work after the stage, in units of all its steps; None: not known.
            overhead_s: Time that the later stages take beside their work, s.
        """

        def look(stage: StageAtWork) -> StageAtWork:
            left, whole_s = steps.seconds_left, steps.whole_s
            in_all = None
            if left is not None and whole_s is not None and later is not None and steps.done >= LEAST_STEPS:
                in_all = left + later * whole_s + overhead_s
            return replace(
                stage, done=steps.done, total=steps.total, rate=steps.rate, seconds_left=left,
                seconds_left_in_all=in_all,
            )  # fmt: skip

        self.follow(look)

    def write(self, status: str = "running", reason: str = "") -> None:
        """Write the files now, by the caller.

        Args:
            status: running, stopped or failed.
            reason: Why it stopped or failed.
        """
        with self._lock, self._pace.measured():
            self._stage = self._now()
            stage = self._stage if status == "running" else replace(self._stage, running={}, rate=None)
            self._write(status, UnderWay(stage=stage, begun=self._begun, written=datetime.now(UTC), reason=reason))

    def end(self, status: str, error: BaseException) -> None:
        """Write the files of a sweep that an error ended, unless it has finished; the error is the caller's to raise.

        Where the results cannot be read, result.json keeps those that it has, with the new status.

        Args:
            status: stopped or failed.
            error: What ended it.
        """
        stored = stored_result(self._settings)
        if stored is not None and stored["status"] == "finished":
            return
        reason = " ".join(str(error).split()) or type(error).__name__
        try:
            self.write(status, textwrap.shorten(reason, REASON_CHARACTERS, placeholder=" …"))
        except Exception as fault:  # noqa: BLE001 - it may have ended the sweep, and must not hide that
            known = mark_ended(self._settings, status, reason)
            written = "nothing" if known is None else f"what was known at {known}"
            _log.warning("result.json has %s: %s: %s", written, type(fault).__name__, fault)

    def _now(self) -> StageAtWork:
        """Return the stage as it is; while its own estimate of the sweep's end is not known, the last one goes on."""
        stage, now_s = self._look() if self._look is not None else self._stage, self._clock()
        if self._look is not None and stage.seconds_left_in_all is not None:
            self._ends_s = now_s + stage.seconds_left_in_all
            return stage
        expected = None if self._ends_s is None or self._ends_s <= now_s else self._ends_s - now_s
        return replace(stage, seconds_left_in_all=expected)

    def _work(self) -> None:
        """Write the files at intervals until the end; what fails is said once and tried again."""
        while not self._ended.wait(INTERVAL_S):
            if not self._pace.due():
                continue
            try:
                self.write()
            except Exception as error:  # noqa: BLE001 - the thread must outlive a full disk and a locked database
                if not self._warned:
                    self._warned = True
                    _log.warning("result.json is not up to date (%s: %s)", type(error).__name__, error)


def mark_ended(settings: SweepSettings, status: str, reason: str) -> str | None:
    """Write the status of a sweep that has ended into the result.json of a running sweep; its results stay as they are.

    Args:
        settings: The sweep's.
        status: stopped or failed.
        reason: Why it ended.

    Returns:
        When its results were written, ISO 8601; None if there is no result.json of a running sweep, so that none is
        written.
    """
    stored = stored_result(settings)
    if stored is None or stored["status"] != "running":
        return None
    stored["under_way"]["reason"] = reason
    write_result(settings, {**stored, "status": status})
    return str(stored["under_way"]["written"])
