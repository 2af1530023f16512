"""The thread that sends a sweep's journal to a service, which may be slow or unreachable for hours.

An entry is deleted after the service has received it. A process that dies in between sends the entry again, so sending
an entry twice must change nothing. This module does not depend on the kind of service.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence

from orchestrator.errors import ClusterError
from orchestrator.tracking.journal import Backlog, Entry, Journal

__all__ = ["Refused", "Sender", "Unavailable"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Pause after the first failed attempt; it doubles with every further failure, up to the longest."""

_log = logging.getLogger(__name__)


class Unavailable(Exception):
    """The service accepts nothing now; entries wait."""


class Refused(Exception):
    """The service will never accept this entry."""


class Sender:
    """The thread that sends a journal's entries to the service in order, and retries until they are accepted."""

    def __init__(self, journal: Journal, service: str, deliver: Callable[[Sequence[Entry]], int]) -> None:
        """Start to send.

        Args:
            journal: The source of the entries.
            service: The service's name in messages.
            deliver: Sends one or more of its entries, from the first on, and returns how many. Raises Unavailable if
                they are to wait, and Refused if the service will never accept one of those that it sent together.
        """
        self._journal = journal
        self._service = service
        self._deliver = deliver
        self._stopping = self._hurry = self._warned_refused = False
        self._failures = 0  # in succession
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def flush(self, deadline_s: float) -> Backlog:
        """Wait until all entries are sent, `deadline_s` seconds at most, and return the backlog."""
        changed = self._journal.changed
        with changed:
            self._hurry = True
            changed.notify_all()
            if self._failures >= 2:
                _log.warning("waiting %g s for %s to take %d entries", deadline_s, self._service, self._journal.waiting)
            changed.wait_for(lambda: self._journal.waiting == 0, deadline_s)
        return self._journal.backlog()

    def stop(self) -> None:
        """End the thread after its current request, and close the journal."""
        with self._journal.changed:
            self._stopping = True
            self._journal.changed.notify_all()
        self._thread.join(timeout=1)
        if not self._thread.is_alive():  # else it waits for an answer, and ends with the process (a daemon)
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
        """Send the next entries and return whether the service received them."""
        try:
            entries = self._journal.head()
            try:
                sent = entries[: self._deliver(entries)]
            except Refused:  # a refused request does not name its entry; sent alone, the first is known
                sent = self._send_or_set_aside(entries[0])
            self._report_back()
            self._journal.remove(sent)
        except (Unavailable, ClusterError, sqlite3.Error) as error:
            self._report_down(error)
            return False
        return True

    def _send_or_set_aside(self, entry: Entry) -> list[Entry]:
        try:
            self._deliver([entry])
        except Refused as error:
            self._journal.set_aside(entry, str(error))
            if not self._warned_refused:
                self._warned_refused = True
                _log.warning(
                    "%s refuses an entry of %s (%s: %s); refused entries are set aside in %s, table refused",
                    self._service, entry.run, entry.kind, error, self._journal.database,
                )  # fmt: skip
            return []
        return [entry]

    def _report_down(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 2:  # a single failure is not reported
            _log.warning(
                "%s accepts nothing (%s); the sweep continues, entries wait in %s",
                self._service, error, self._journal.folder,
            )  # fmt: skip

    def _report_back(self) -> None:
        if self._failures >= 2:
            _log.warning("%s is back; %d entries waited", self._service, self._journal.waiting)
        self._failures = 0
