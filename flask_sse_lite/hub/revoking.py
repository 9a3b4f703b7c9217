"""Revoking: the streams of clients that must be let in anew, and how they end.

Here lives how the hub hears of revocations, and which streams they end. A stream ends
without another byte of events. Its client comes back, and the view decides again. What
a log notes of revocations lives in ``history.revocations``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..history.log import Log
from ..history.revocations import REVOCATIONS, Revocation
from ..signals.story import expect
from ..system.locks import Guard
from .audiences import Audiences
from .client import Client
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

    def watch(self, log: Log) -> None:
        """Hear of a log's revocations. Any thread that holds the lock can call this."""
        if log not in self._seen:
            newest = log.revocations.newest
            log.watch((REVOCATIONS,), self._wake)
            self._seen[log] = newest

    def forget_others(self, logs: Collection[Log]) -> None:
        """Only these logs have streams. The caller holds the lock."""
        for log in self._seen.keys() - logs:
            log.unwatch((REVOCATIONS,), self._wake)
            del self._seen[log]

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
        can_be_meant = _looked_for(log.revoked_since(seen))
        with self._lock:
            iterated = [s for s in self._audiences.iterated if s.log is log]
        for stream in iterated:
            if can_be_meant(stream.client, stream.channels) and (
                stream.client.is_revoked(log.revocations, stream.channels, seen)
            ):
                expect(stream.story, "disconnect")
                stream.end()
        for connection in list(self._fanout.connections.values()):
            if (
                connection.log is log
                and can_be_meant(connection.client, connection.cursor.channels)
                and self._is_revoked(connection, seen)
            ):
                self._fanout.end(connection, "disconnect")
        # Last, so that a failure of the loop has it ask again.
        self._seen[log] = newest

    def admits(self, connection: Connection) -> bool:
        """Whether a connection that is new is served: its client can have been revoked
        while its request went on."""
        if not self._is_revoked(connection, None):
            return True
        self._fanout.end(connection, "disconnect")
        return False

    def _is_revoked(self, connection: Connection, seen: int | None) -> bool:
        return connection.client.is_revoked(
            connection.log.revocations, connection.cursor.channels, seen
        )


def _looked_for(
    revocations: list[Revocation] | None,
) -> Callable[[Client, tuple[str, ...]], bool]:
    """Which clients some revocations can mean: a quick look, as there can be ten
    thousand streams.

    :param revocations: None for all that there can be.
    """
    if revocations is None:
        return lambda client, channels: True
    identities = {r.identity for r in revocations if r.identity is not None}
    channels_left = {r.channel for r in revocations if r.identity is None}
    if not channels_left:
        return lambda client, channels: client.identity in identities
    return lambda client, channels: (
        client.identity in identities or not channels_left.isdisjoint(channels)
    )
