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

from ..event import HEARTBEAT
from ..history.cursor import Cursor
from ..history.log import Log
from ..servers import check_request, find_server, known_socket
from ..servers.programs import Program, program_of
from ..servers.server import Refusal, Server
from ..servers.surroundings import warn_of_reader
from ..settings import Settings
from .access import log_request
from .connection import Connection
from .frames import (
    BATCH_BYTES,
    POSITION_INTERVAL,
    RETRY_WHEN_FULL,
    come_back,
    frames,
    opening,
    position_event,
    spread_retry,
)
from .handoff import take_connection
from .looks import DUE_SHARE
from .loop import Hub, current_hub
from .places import Place
from .stall import Progress, bound

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


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
        "_hub",
        "_is_active",
        "_is_caught_up",
        "_is_due",
        "_is_in_main_thread",
        "_is_iterated",
        "_is_open",
        "_is_over",
        "_is_started",
        "_is_stopping",
        "_named",
        "_named_at",
        "_opening",
        "_place",
        "_progress",
        "_sent_at",
        "_server",
        "_settings",
        "_socket",
        "log",
        "on_close",
        "program",
    )

    def __init__(self, log: Log, cursor: Cursor, settings: Settings) -> None:
        self.log = log
        self._cursor = cursor
        self._settings = settings
        self._server: Server | None = None
        #: The server, if it can be stopped while its process goes on.
        self.program: Program | None = None
        #: The connection's, as far as that is known, and how its client gets on.
        self._socket: Any = None
        self._progress: Progress | None = None
        #: Who is to be told when it leaves.
        self._hub: Hub | None = None
        self._place: Place | None = None
        #: Bytes of the opening, which is all that a server gets before a handoff.
        self._opening = 0
        self._is_open = self._is_started = False
        #: The server iterates this to the end.
        self._is_iterated = False
        #: Events were sent since the hub last looked.
        self._is_active = False
        #: Everything was read: there is something new when somebody wakes us.
        self._is_caught_up = False
        self._is_over = self._is_stopping = False
        #: Something is to be sent, though no event came.
        self._is_due = False
        self._sent_at = self._named_at = self._expires = 0.0
        #: The id that the client was last told, as far as it is iterated.
        self._named: str | None = None
        #: Called once, at the end.
        self.on_close: Callable[[], None] | None = None
        # A lock that is held is a sleep; to release it is to wake the sleeper.
        self._asleep = threading.Lock()
        self._asleep.acquire()

    @property
    def channels(self) -> tuple[str, ...]:
        return self._cursor.channels

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def heartbeat(self) -> float:
        return self._settings.heartbeat

    def started(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        """The response was started on a server: see whether it is one that hands its
        connections over.

        :param write: what ``start_response`` returned.
        """
        self._is_started = True
        wants_handoff = self._settings.handoff is not False
        server = None
        try:
            server = find_server(environ, write)
            self.program = program_of(server)
            check_request(environ)
            server.close_after()
            if wants_handoff:
                self._server = server
        except Refusal as refusal:
            if wants_handoff:
                self._note(refusal)
        if not wants_handoff:
            self._note(Refusal("SSE_HANDOFF is False", "switched-off"))
        self._socket = known_socket(environ, server)
        if self._socket is not None:
            bound(self._socket)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._is_iterated:
            data = self._begin()
            if data:
                return data
        while True:
            if self._is_caught_up and not self._is_stopping:
                # One wake can stand for news and for the stop, which is told once.
                self._asleep.acquire()
            if self._is_over:
                self._leave()
                raise StopIteration
            batch = self.log.read(self._cursor, BATCH_BYTES)
            self._is_caught_up = not batch.more
            data = batch.frames or frames(self.log, self._cursor, batch)
            if data:
                if batch.ended:
                    self._finish()
                self._is_active = True
                self._named = batch.last_id
                return data
            if self._is_stopping:
                self._finish()
            elif self._is_due:
                return self._keep_alive()

    def _begin(self) -> bytes:
        """The first step, and with a server that hands connections over the second.

        :returns: bytes to send, or nothing when iterating goes on.
        """
        if self._is_over:
            raise StopIteration
        if not self._is_open:
            self._is_open = True
            self._hub = current_hub()
            self._place = self._hub.arrive(self._settings)
            if self._place is None:
                self._is_over = self._is_iterated = True
                return come_back(spread_retry(RETRY_WHEN_FULL))
            data = opening(self.log, self._cursor, self._settings)
            self._opening = len(data)
            if not self._is_started:
                # Nor was it asked, then, whether that is wanted.
                self._note(
                    Refusal("something has taken the body to itself", "body-taken")
                )
            if self._server is None:
                warn_of_reader()
                self._iterate()
            return data
        if self._server and self._hand_off(self._server):
            raise StopIteration
        return b""

    def _hand_off(self, server: Server) -> bool:
        """Give the connection to the hub.

        :returns: False when it stays with the server, whose iterating goes on.
        """
        self._server, hub = None, self._hub
        assert hub
        try:
            trusted = self._settings.handoff is True
            descriptor, chunked = take_connection(
                server, self._opening, trusted=trusted
            )
        except Refusal as refusal:
            self._note(refusal)
            self._iterate()
            return False
        connection = Connection(
            descriptor, self._cursor, self.log, self._settings, chunked=chunked
        )
        connection.program = self.program
        self._is_over = True
        # From here on the hub releases the place, unless it cannot adopt.
        place, self._place = self._place, None
        assert place
        try:
            hub.adopt(connection, place)
        except BaseException:
            hub.release(place)
            raise
        self._hub = None
        if self._settings.access_log:
            log_request(server.environ, self.channels)
        hub.paths.note_handed_off(server.name)
        return True

    def _note(self, refusal: Refusal) -> None:
        paths = current_hub().paths
        paths.note_iterated(
            refusal.reason, refusal.code, is_remediable=refusal.is_remediable
        )

    def _iterate(self) -> None:
        """The connection stays with the server, to the end."""
        now = time.monotonic()
        self._is_iterated = True
        self._is_in_main_thread = threading.current_thread() is threading.main_thread()
        self._sent_at = self._named_at = now
        self._named = self._cursor.id
        if self._settings.max_age is not None:
            self._expires = now + self._settings.max_age
        if self._socket is not None:
            self._progress = Progress(self._socket, self._settings.stall, now)
        assert self._hub
        assert self._place
        self._hub.add(self, self._place)

    def _keep_alive(self) -> bytes:
        self._is_due = False
        position = self._cursor.id
        if position == self._named:
            self._named_at = self._sent_at
        if self._sent_at - self._named_at < POSITION_INTERVAL:
            return HEARTBEAT
        self._named, self._named_at = position, self._sent_at
        return position_event(self._cursor)

    def wake(self) -> None:
        """There is something to read: end the wait, or the one that comes next."""
        if self._asleep.locked():
            try:
                self._asleep.release()
            except RuntimeError:
                pass  # Another thread was faster. That is as good.

    def tick(self, now: float) -> None:
        """The hub's look at the clock. (To look at it for each event would cost more
        than all else here; so what was sent counts as sent when the hub sees it.)"""
        if self._progress and self._progress.is_stuck(now) and not self._is_over:
            # Whether the server's thread waits for the client or for us, it is woken.
            self._progress.cut()
            self.stop()
        elif self._expires and now >= self._expires:
            self.stop()
        elif self._is_active:
            self._is_active = self._is_due = False
            self._sent_at = self._named_at = now
        elif now - self._sent_at >= self.heartbeat * DUE_SHARE:
            self._sent_at = now
            self._is_due = True
            self.wake()
        elif self._is_in_main_thread:
            # Signals are handled by the main thread alone, which does not do so in its
            # sleep: gunicorn has SIGTERM restart it.
            self.wake()

    @property
    def last_words(self) -> None:
        """It has none: its end says all."""

    def stop(self, patience: float | None = None) -> None:
        """End the stream when it has sent what there is, and wake it for that."""
        self._is_stopping = True
        self.wake()

    def _finish(self) -> None:
        """Have the next step be the end."""
        self._is_over = True
        self.wake()

    def _leave(self) -> None:
        if self._hub and self._is_iterated:
            self._hub.discard(self)
        if self._hub and self._place:
            self._hub.release(self._place)

    def close(self) -> None:
        """The server's last call, or any thread's. Harmless when repeated."""
        self._finish()
        self._leave()
        on_close, self.on_close = self.on_close, None
        if on_close:
            on_close()
