"""Revoking: the streams of clients that must be let in anew, and how they end.

Here lives how the hub hears of revocations, and which streams they end. A stream ends
without another byte of events. Its client comes back, and the view decides again. What
a log notes of revocations lives in ``history.revocations``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..history.log import Log
from ..history.revocations import REVOCATIONS
from ..signals.story import expect
from ..system.locks import Guard
from .connection import Connection
from .fanout import Fanout
from .listeners import Listener, Listeners


class Revoking:
    """The streams that revocations end. Only the loop uses this, where nothing else is
    said.

    :param lock: the hub's.
    :param wake: wakes the loop. The log calls it when there is a revocation.
    """

    def __init__(
        self,
        lock: Guard,
        listeners: Listeners,
        fanout: Fanout,
        wake: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._listeners = listeners
        self._fanout = fanout
        self._wake = wake
        #: The logs of the streams, each with the number of the newest revocation that
        #: its streams were asked about.
        self._seen: dict[Log, int] = {}

    def watch(self, log: Log) -> None:
        """Hear of a log's revocations. Any thread that holds the lock can call this."""
        if log not in self._seen:
            newest = log.revocations.newest
            log.watch((REVOCATIONS,), self._wake)
            self._seen[log] = newest

    def forget_others(self, logs: Collection[Log]) -> None:
        """Forget all logs but these, which alone have streams. The caller holds the
        lock."""
        for log in self._seen.keys() - logs:
            log.unwatch((REVOCATIONS,), self._wake)
            del self._seen[log]

    def end_revoked(self) -> None:
        """End the streams that revocations newer than the last call concern."""
        for log in list(self._seen):
            self.end_revoked_of(log)

    def end_revoked_of(self, log: Log) -> None:
        """``end_revoked`` for one log. Whoever has read entries of a log calls this
        before it sends them: none of them is newer than the revocations that are known
        here."""
        newest, seen = log.revocations.newest, self._seen.get(log)
        if seen is None or newest == seen:
            return  # The last stream of a log has left, or there is nothing new.
        for listener in self._who_can_be_meant(log, seen):
            channels = listener.cursor.channels
            if not listener.client.is_revoked(log.revocations, channels, seen):
                continue
            if isinstance(listener, Connection):
                # One that is new is passed over: ``admits`` is still to be asked.
                self._fanout.end(listener, "disconnect")
            else:
                expect(listener.story, "disconnect")
                listener.end()
        # Last, so that a failure of the loop has it ask again.
        self._seen[log] = newest

    def _who_can_be_meant(self, log: Log, seen: int) -> list[Listener]:
        """The streams that revocations name which are newer than a number; all streams
        of the log, where it has forgotten some of these revocations."""
        revocations = log.revoked_since(seen)
        with self._lock:
            if revocations is None:
                return self._listeners.of_log(log)
            identities = {r.identity for r in revocations if r.identity is not None}
            channels = {r.channel for r in revocations if r.identity is None}
            return self._listeners.of(log, identities, filter(None, channels))

    def admits(self, connection: Connection) -> bool:
        """Whether a connection that is new is served: its client can have been revoked
        while its request went on."""
        channels = connection.cursor.channels
        if not connection.client.is_revoked(connection.log.revocations, channels):
            return True
        self._fanout.end(connection, "disconnect")
        return False
