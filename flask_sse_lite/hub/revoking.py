"""Revoking: the streams of clients that must be let in anew, and how they end.

Here lives how the hub hears of revocations, and which streams they end. A stream ends
without another byte of events. Its client comes back, and the view decides again. What
a log notes of revocations lives in ``history.revocations``.
"""

from __future__ import annotations

from collections.abc import Callable

from ..history.log import Log
from ..history.revocations import REVOCATIONS
from ..system.locks import Guard
from .audiences import Audiences
from .connection import Connection
from .fanout import Fanout


class Revoking:
    """The streams that revocations end. Only the loop uses this, where nothing else is
    said.

    :param lock: the hub's.
    :param wake: wakes the loop. The log calls it when there is a revocation.
    """

    def __init__(
        self,
        lock: Guard,
        audiences: Audiences,
        fanout: Fanout,
        wake: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._audiences = audiences
        self._fanout = fanout
        self._wake = wake
        #: The logs of the streams, each with the number of the newest revocation that
        #: its streams were asked about.
        self._seen: dict[Log, int] = {}
        #: Streams that were ended, since the process began.
        self.count = 0

    def watch(self, log: Log) -> None:
        """Hear of a log's revocations. Any thread that holds the lock can call this."""
        if log not in self._seen:
            self._seen[log] = log.revocations.newest
            log.watch((REVOCATIONS,), self._wake)

    def forget(self) -> None:
        """There are no streams any more. The caller holds the lock."""
        for log in self._seen:
            log.unwatch((REVOCATIONS,), self._wake)
        self._seen.clear()

    def end_revoked(self) -> None:
        """End the streams that a revocation concerns which is newer than the last
        call."""
        for log in list(self._seen):
            self.end_revoked_of(log)

    def end_revoked_of(self, log: Log) -> None:
        """``end_revoked`` for one log. Whoever has read entries of a log calls this
        before it sends them: none of them is newer than the revocations that are known
        here."""
        newest, seen = log.revocations.newest, self._seen.get(log, 0)
        if newest == seen:
            return
        self._seen[log] = newest
        with self._lock:
            iterated = [s for s in self._audiences.iterated if s.log is log]
        for stream in iterated:
            if stream.client.is_revoked(log.revocations, stream.channels, seen):
                stream.end()
                self.count += 1
        for connection in list(self._fanout.connections.values()):
            if connection.log is log and self._is_revoked(connection, seen):
                self._end(connection)

    def admits(self, connection: Connection) -> bool:
        """Whether a connection that is new is served: its client can have been revoked
        while its request went on."""
        if not self._is_revoked(connection, None):
            return True
        self._end(connection)
        return False

    def _is_revoked(self, connection: Connection, seen: int | None) -> bool:
        return connection.client.is_revoked(
            connection.log.revocations, connection.cursor.channels, seen
        )

    def _end(self, connection: Connection) -> None:
        self._fanout.end(connection)
        self.count += 1
