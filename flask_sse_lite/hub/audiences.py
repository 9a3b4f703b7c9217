"""Audiences: the streams that their servers iterate, by what they listen to.

Here lives how these streams come and leave, and how they are woken when there are news.
The hub sends nothing to their clients: the server's own thread or greenlet does. Here
too is what the hub only tells the time: responses of ``EventStream``, runs, and the
inspector's part. Connections that were taken over are unknown here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..system.locks import Guard
from ..system.poller import Poller
from .listeners import Listeners
from .readers import Audience, Iterated, Key, Readers, Timed

#: Streams that are woken before the hub gives way to them. They are so few that what
#: waking them allocates is gone before Python's garbage collector counts it.
WAKES_PER_TURN = 64


class Audiences:
    """A hub's iterated streams, by what they listen to.

    :param lock: the hub's lock.
    :param tell_hub: what an audience calls when there are news.
    """

    def __init__(
        self,
        lock: Guard,
        poller: Poller,
        listeners: Listeners,
        tell_hub: Callable[[Readers], None],
    ) -> None:
        self._lock = lock
        self._poller = poller
        self._listeners = listeners
        self._tell_hub = tell_hub
        #: Those that are told the time, and nothing else.
        self.timed: set[Timed] = set()
        #: Those that are told of news, too.
        self.iterated: set[Iterated] = set()
        self._by_channels: dict[Key, Audience] = {}
        self._leavers: deque[Iterated] = deque()

    def __len__(self) -> int:
        return len(self.timed) + len(self.iterated)

    def everybody(self) -> list[Timed]:
        """All that are told the time. The caller holds the lock."""
        return [*self.timed, *self.iterated]

    def all(self) -> list[Audience]:
        """All audiences. The caller holds the lock."""
        return list(self._by_channels.values())

    def join(self, stream: Iterated) -> None:
        """Tell a stream the news and the time, until it leaves. The caller holds the
        lock."""
        key = (stream.log, stream.channels)
        self.iterated.add(stream)
        self._listeners.add(stream)
        audience = self._by_channels.get(key)
        if audience is None:
            audience = self._by_channels[key] = Audience(stream, self._tell_hub)
            stream.log.watch(stream.channels, audience.tell)
        audience.members.add(stream)

    def leave(self, stream: Iterated) -> None:
        """Undo ``join``. This never waits: a thread that holds the lock can call it,
        when a stream is collected as garbage."""
        self._leavers.append(stream)
        if self._lock.acquire(timeout=0):
            try:
                self.let_go()
            finally:
                self._lock.release()

    def let_go(self) -> None:
        """Forget the streams that have left. The caller holds the lock."""
        while self._leavers:
            stream = self._leavers.popleft()
            if stream not in self.iterated:
                continue
            self.iterated.discard(stream)
            self._listeners.discard(stream)
            audience = self._by_channels[stream.log, stream.channels]
            audience.members.discard(stream)
            if not audience.members:
                del self._by_channels[stream.log, stream.channels]
                stream.log.unwatch(stream.channels, audience.tell)

    def call(self, audience: Audience) -> None:
        """Wake all streams of an audience. Only the loop calls this."""
        audience.has_news = False
        with self._lock:
            members = list(audience.members)
        for count, stream in enumerate(members, 1):
            stream.wake()
            if count % WAKES_PER_TURN == 0:
                self._poller.give_way()
