"""A subscription as a WSGI iterable: the server's thread or greenlet sleeps until its
cursor is behind, and then takes all that came in one piece.

Here lives how a cursor becomes the bytes of an event stream, with its opening, its
heartbeats and its end. Flask and sockets are unknown here.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

from .event import HEARTBEAT, Event, channel_line, is_sendable_id, own_event
from .hub import current_hub
from .log import Batch, Cursor, Log
from .settings import Settings

#: Bytes of events given to the server in one piece, unless one event alone is larger.
#: It bounds what a client that does not read can hold.
BATCH_BYTES = 64 * 1024

#: Seconds after which an idle stream is told how far the log has moved on. Clients that
#: come back with an id much older than what is retained would be told of a gap.
POSITION_INTERVAL = 60.0

#: How far ``retry:`` is spread around its setting, so that the clients of a server
#: that restarts come back one after the other.
RETRY_SPREAD = 0.2

#: Stands for an id that no line can carry, and is as unknown as that when it returns.
UNKNOWN_ID = "unknown"


def spread_retry(milliseconds: int) -> int:
    return round(milliseconds * random.uniform(1 - RETRY_SPREAD, 1 + RETRY_SPREAD))


class Subscription:
    """One client's stream of some channels: iterate it for its bytes, then close it.

    Iterating is for one thread; ``wake``, ``tick`` and ``close`` may be called by any,
    and end a wait. Until the first item is asked for it holds nothing but its cursor,
    and need not be closed: a response that is never sent leaves nothing behind.
    """

    __slots__ = (
        "_asleep",
        "_closed",
        "_cursor",
        "_due",
        "_expires",
        "_finished",
        "_is_open",
        "_log",
        "_named",
        "_named_at",
        "_sent_at",
        "_settings",
    )

    def __init__(self, log: Log, cursor: Cursor, settings: Settings) -> None:
        self._log = log
        self._cursor = cursor
        self._settings = settings
        self._is_open = False
        self._finished = False
        self._closed = False
        #: Something is to be sent, though no event came.
        self._due = False
        self._sent_at = self._named_at = self._expires = 0.0
        #: The sequence number that the client was last told, in any id.
        self._named = cursor.position
        # A lock that is held is a sleep; to release it is to wake the sleeper.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def heartbeat(self) -> float:
        return self._settings.heartbeat

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._is_open:
            return self._open()
        while not self._finished and not self._closed:
            now = time.monotonic()
            if self._expires and now >= self._expires:
                break
            batch = self._log.read(self._cursor, BATCH_BYTES)
            frames = self._encode(batch)
            if frames:
                self._sent_at = self._named_at = now
                self._named = self._cursor.position
                self._due = False
                return frames
            if self._due:
                return self._keep_alive(now)
            self._asleep.acquire()
        raise StopIteration

    def _open(self) -> bytes:
        if self._closed:
            raise StopIteration
        now = time.monotonic()
        self._is_open = True
        self._sent_at = self._named_at = now
        if self._settings.max_age is not None:
            self._expires = now + self._settings.max_age
        self._log.watch(self._cursor.channels, self.wake)
        current_hub().add(self)
        return opening(self._log, self._cursor, self._settings).encode()

    def _encode(self, batch: Batch) -> bytes:
        """A batch as frames. A single one is not copied: all readers share it."""
        events = [entry.event for entry in batch.entries if entry.event]
        frames = [event.encode() for event in events]
        if len(self._cursor.channels) > 1:
            frames = [
                channel_line(event.channel or "") + frame
                for event, frame in zip(events, frames, strict=True)
            ]
        if batch.gap:
            frames.insert(0, batch.gap.encode())
        if batch.ended:
            self._finished = True
            end = own_event("end", id=self._log.position(self._cursor.position))
            frames.append(end.encode())
        return b"".join(frames)

    def _keep_alive(self, now: float) -> bytes:
        self._due = False
        self._sent_at = now
        sequence = self._cursor.position
        if sequence == self._named or now - self._named_at < POSITION_INTERVAL:
            return HEARTBEAT
        self._named, self._named_at = sequence, now
        return own_event("position", id=self._log.position(sequence)).encode()

    def wake(self) -> None:
        """End the wait, or the one that comes next."""
        if self._asleep.locked():
            try:
                self._asleep.release()
            except RuntimeError:
                pass  # Another thread was faster. That is as good.

    def tick(self, now: float) -> None:
        """The hub's look at the clock."""
        if now - self._sent_at >= self.heartbeat * 7 / 8:
            self._due = True
            self.wake()
        elif self._expires and now >= self._expires:
            self.wake()

    def close(self) -> None:
        """The end, from whichever side. Harmless when repeated."""
        self._closed = True
        if self._is_open:
            current_hub().discard(self)
            self._log.unwatch(self._cursor.channels, self.wake)
        self.wake()


def opening(log: Log, cursor: Cursor, settings: Settings) -> Event:
    """The event that every subscription begins with. Its id is where the client
    stands: should it lose the connection before its first event, it comes back with
    that, and what came in between is not lost."""
    id = cursor.since or log.position(cursor.position)
    if not is_sendable_id(id):
        id = UNKNOWN_ID
    return own_event("open", id=id, retry=spread_retry(settings.retry))
