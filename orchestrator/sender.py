"""The thread that empties a sweep's journal into a service that may be away, slow, or back after hours.

An entry is deleted after it was taken, so that a death in between sends it again: entries must be such that a second
time changes nothing. Nothing here knows which service it is.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence

from orchestrator.errors import ClusterError
from orchestrator.journal import Backlog, Entry, Journal

__all__ = ["Refused", "Sender", "Unavailable"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Pause after the first failed attempt, doubled after each one more, up to the longest."""

_log = logging.getLogger(__name__)


class Unavailable(Exception):
    """The service takes nothing now; what waits, waits on."""


class Refused(Exception):
    """The service will never take this entry."""


class Sender:
    """The thread that gives a journal's entries to the service, in order, for as long as it takes."""

    def __init__(self, journal: Journal, service: str, deliver: Callable[[Sequence[Entry]], int]) -> None:
        """Start to send.

        Args:
            journal: Where the entries are.
            service: What to call the service.
            deliver: Sends some of the entries that it is given, from the first on, and returns how many. Raises
                Unavailable if they are to wait, and Refused if the first can never be taken, or one of several.
        """
        self._journal = journal
        self._service = service
        self._deliver = deliver
        self._stopping = self._hurry = self._said_refused = False
        self._failures = 0  # in succession
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def flush(self, deadline_s: float) -> Backlog:
        """Wait until everything is sent, at most so long, and say what is not."""
        changed = self._journal.changed
        with changed:
            self._hurry = True
            changed.notify_all()
            if self._failures >= 2:
                _log.warning("waiting %g s for %s to take %d entries", deadline_s, self._service, self._journal.waiting)
            changed.wait_for(lambda: self._journal.waiting == 0, deadline_s)
        return self._journal.backlog()

    def stop(self) -> None:
        """End the thread after the request that it is in, and close the journal."""
        with self._journal.changed:
            self._stopping = True
            self._journal.changed.notify_all()
        self._thread.join(timeout=1)
        if not self._thread.is_alive():  # else it waits for an answer, and ends with the process
            self._journal.close()

    def _work(self) -> None:
        pause, changed = FIRST_PAUSE_S, self._journal.changed
        while True:
            with changed:
                changed.wait_for(lambda: self._stopping or self._journal.waiting > 0)
                if self._stopping:
                    return
            if self._send():
                pause = FIRST_PAUSE_S
                continue
            with changed:
                if changed.wait_for(lambda: self._stopping or self._hurry, pause):
                    pause, self._hurry = FIRST_PAUSE_S, False
                else:
                    pause = min(2 * pause, LONGEST_PAUSE_S)

    def _send(self) -> bool:
        """Send the next entries and return whether that worked."""
        try:
            entries = self._journal.head()
            try:
                sent = entries[: self._deliver(entries)]
            except Refused:  # which one? Only alone can an entry be said to be refused.
                sent = self._send_or_set_aside(entries[0])
            self._say_back()
            self._journal.remove(sent)
        except (Unavailable, ClusterError, sqlite3.Error) as error:
            self._say_down(error)
            return False
        return True

    def _send_or_set_aside(self, entry: Entry) -> list[Entry]:
        try:
            self._deliver([entry])
        except Refused as error:
            self._journal.set_aside(entry, str(error))
            if not self._said_refused:
                self._said_refused = True
                _log.warning(
                    "%s refuses an entry of %s (%s: %s); refused entries are set aside in %s, table refused",
                    self._service, entry.run, entry.kind, error, self._journal.database,
                )  # fmt: skip
            return []
        return [entry]

    def _say_down(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 2:  # one is a slip
            _log.warning(
                "%s takes nothing (%s); the sweep goes on, entries wait in %s",
                self._service, error, self._journal.folder,
            )  # fmt: skip

    def _say_back(self) -> None:
        if self._failures >= 2:
            _log.warning("%s is back; %d entries waited", self._service, self._journal.waiting)
        self._failures = 0
