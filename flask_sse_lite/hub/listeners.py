"""Listeners: the open streams of a process, by channel and by identity.

Here lives how many streams listen to each channel and whose they are, and how a
channel's or an identity's streams are found without a look at all others. What is done
to them then is never known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..history.log import Log
from .connection import Connection
from .readers import Iterated

#: A stream of channels, however it is delivered.
Listener = Connection | Iterated

#: Streams of a log by the name of their channel, or by their identity. The inner
#: dictionaries have no values; they are in the order in which the streams came.
_Index = dict[tuple[Log, str], dict[Listener, None]]


class Listeners:
    """The open streams of a process. Whoever changes or finds them holds the hub's
    lock. Any thread can count them: it takes no lock, because it can have interrupted
    the lock's holder, and copying a dictionary is one step."""

    def __init__(self) -> None:
        self._by_channel: _Index = {}
        self._by_identity: _Index = {}

    def __len__(self) -> int:
        """How many channels have listeners."""
        return len(self._by_channel)

    def add(self, listener: Listener) -> None:
        """A stream has come."""
        log, identity = listener.log, listener.client.identity
        for channel in listener.cursor.channels:
            self._by_channel.setdefault((log, channel), {})[listener] = None
        if identity is not None:
            self._by_identity.setdefault((log, identity), {})[listener] = None

    def discard(self, listener: Listener) -> None:
        """A stream has left. A second call does nothing."""
        log, identity = listener.log, listener.client.identity
        for channel in listener.cursor.channels:
            _discard(self._by_channel, (log, channel), listener)
        if identity is not None:
            _discard(self._by_identity, (log, identity), listener)

    # Finding them

    def of(
        self, log: Log, identities: Iterable[str], channels: Iterable[str]
    ) -> list[Listener]:
        """The streams of some identities, and those that listen to some channels."""
        found: dict[Listener, None] = {}
        for identity in identities:
            found.update(self._by_identity.get((log, identity), {}))
        for channel in channels:
            found.update(self._by_channel.get((log, channel), {}))
        return list(found)

    def of_log(self, log: Log) -> list[Listener]:
        """All streams of a log."""
        return list(dict.fromkeys(_flat(self._by_channel, log)))

    # Counting them

    def count(self, log: Log, channel: str) -> int:
        """How many streams a channel has."""
        return len(self._by_channel.get((log, channel), ()))

    def logs(self) -> set[Log]:
        """The logs that have streams."""
        return {log for log, _ in dict(self._by_channel)}

    def by_channel(self, log: Log) -> dict[str, int]:
        """How many streams each channel of a log has; channels without any are left
        out."""
        return {
            channel: len(listeners)
            for (its_log, channel), listeners in dict(self._by_channel).items()
            if its_log is log and listeners
        }

    def by_identity(self, log: Log) -> dict[str, dict[str, int]]:
        """How many streams each identity has on each channel of a log. Identities and
        channels without any are left out, and so are onlookers. This looks at each
        stream that has an identity."""
        found: dict[str, dict[str, int]] = {}
        for listener in _flat(self._by_identity, log):
            client = listener.client
            if client.identity is None or client.is_onlooker:
                continue
            for channel in listener.cursor.channels:
                counts = found.setdefault(channel, {})
                counts[client.identity] = counts.get(client.identity, 0) + 1
        return found


def _discard(index: _Index, key: tuple[Log, str], listener: Listener) -> None:
    listeners = index.get(key, {})
    listeners.pop(listener, None)
    if not listeners:
        index.pop(key, None)


def _flat(index: _Index, log: Log) -> Iterator[Listener]:
    """The streams of a log, as they were when each name's turn came."""
    for (its_log, _), listeners in dict(index).items():
        if its_log is log:
            yield from list(listeners)
