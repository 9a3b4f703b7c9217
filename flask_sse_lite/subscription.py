"""A subscription as a WSGI iterable.

Here lives how a stream is delivered through the WSGI server: it sends the opening, and
then tries to hand the connection over to the hub. Where that cannot be, the server's
thread or greenlet sleeps until its cursor is behind, and then takes all that came in
one piece. Flask is unknown here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .connection import Connection
from .event import HEARTBEAT
from .handoff import Refusal, Server, find_server, take_connection
from .hub import LOOKS_PER_HEARTBEAT, current_hub
from .log import Cursor, Log
from .settings import Settings
from .stream import BATCH_BYTES, POSITION_INTERVAL, frames, opening, position_event

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The share of a heartbeat's time after which it is due: the hub's next look would be
#: too late.
DUE_SHARE = 1 - 1 / LOOKS_PER_HEARTBEAT


class Subscription:
    """One client's stream of some channels: iterate it for its bytes, then close it.

    Iterating is for one thread; ``stop``, ``tick`` and ``close`` may be called by any,
    and end a wait. Until the first item is asked for it holds nothing but its cursor,
    and need not be closed: a response that is never sent leaves nothing behind.
    """

    __slots__ = (
        "_asleep",
        "_cursor",
        "_expires",
        "_is_due",
        "_is_open",
        "_is_over",
        "_log",
        "_named",
        "_named_at",
        "_opening",
        "_sent_at",
        "_server",
        "_settings",
    )

    def __init__(self, log: Log, cursor: Cursor, settings: Settings) -> None:
        self._log = log
        self._cursor = cursor
        self._settings = settings
        self._server: Server | None = None
        #: Bytes of the opening, which is all that a server gets before a handoff.
        self._opening = 0
        self._is_open = False
        self._is_over = False
        #: Something is to be sent, though no event came.
        self._is_due = False
        self._sent_at = self._named_at = self._expires = 0.0
        #: The sequence number that the client was last told, in any id.
        self._named = cursor.position
        # A lock that is held is a sleep; to release it is to wake the sleeper.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def heartbeat(self) -> float:
        return self._settings.heartbeat

    def started(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        """The response was started on a server: see whether it is one that hands its
        connections over.

        :param write: what ``start_response`` returned.
        """
        try:
            if self._settings.handoff is False:
                raise Refusal("SSE_HANDOFF is False")
            trusted = self._settings.handoff is True
            self._server = find_server(environ, write, trusted=trusted)
            self._server.close_after()
        except Refusal as refusal:
            self._note(refusal)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._is_open:
            return self._open()
        if self._server and self._hand_off(self._server):
            raise StopIteration
        while not self._is_over:
            now = time.monotonic()
            if self._expires and now >= self._expires:
                break
            batch = self._log.read(self._cursor, BATCH_BYTES)
            data = frames(self._log, self._cursor, batch)
            if data:
                self._is_over = self._is_over or batch.ended
                self._sent_at = self._named_at = now
                self._named = self._cursor.position
                self._is_due = False
                return data
            if self._is_due:
                return self._keep_alive(now)
            self._asleep.acquire()
        raise StopIteration

    def _open(self) -> bytes:
        if self._is_over:
            raise StopIteration
        self._is_open = True
        data = opening(self._log, self._cursor, self._settings)
        self._opening = len(data)
        if self._server is None:
            self._go_on_iterating()
        return data

    def _hand_off(self, server: Server) -> bool:
        """Give the connection to the hub.

        :returns: False when it stays with the server, whose iterating goes on.
        """
        self._server = None
        try:
            descriptor, chunked = take_connection(server, self._opening)
        except Refusal as refusal:
            self._note(refusal)
            self._go_on_iterating()
            return False
        connection = Connection(
            descriptor, self._cursor, self._log, self._settings, chunked=chunked
        )
        hub = current_hub()
        hub.note_path("handed off", server.name)
        hub.adopt(connection)
        return True

    def _note(self, refusal: Refusal) -> None:
        hub = current_hub()
        hub.note_path("iterated", refusal.reason, warn=refusal.is_remediable)

    def _go_on_iterating(self) -> None:
        now = time.monotonic()
        self._sent_at = self._named_at = now
        if self._settings.max_age is not None:
            self._expires = now + self._settings.max_age
        self._log.watch(self._cursor.channels, self._wake)
        current_hub().add(self)

    def _keep_alive(self, now: float) -> bytes:
        self._is_due = False
        self._sent_at = now
        position = self._cursor.position
        if position == self._named or now - self._named_at < POSITION_INTERVAL:
            return HEARTBEAT
        self._named, self._named_at = position, now
        return position_event(self._log, position)

    def _wake(self) -> None:
        """End the wait, or the one that comes next."""
        if self._asleep.locked():
            try:
                self._asleep.release()
            except RuntimeError:
                pass  # Another thread was faster. That is as good.

    def tick(self, now: float) -> None:
        """The hub's look at the clock."""
        if now - self._sent_at >= self.heartbeat * DUE_SHARE:
            self._is_due = True
            self._wake()
        elif self._expires and now >= self._expires:
            self._wake()

    def stop(self) -> None:
        """End the stream at its next step, and wake it for that."""
        self._is_over = True
        self._wake()

    def close(self) -> None:
        """The server's last call, or any thread's. Harmless when repeated."""
        self.stop()
        if self._is_open:
            current_hub().discard(self)
            self._log.unwatch(self._cursor.channels, self._wake)
