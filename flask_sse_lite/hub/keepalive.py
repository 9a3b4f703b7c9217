"""The pulse of a response whose server waits for the application's iterable.

Here lives how signs of life are sent while the iterable is silent, though the thread
that sends its items is busy with it: the hub does so in its place, through the server.
Who is found to have left there has the iterable ended. Items take the shortcut past the
server where there is one. What is iterated, and Flask, are unknown here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..event import HEARTBEAT
from ..servers import check_request, find_server, gunicorn, known_socket
from ..servers.below import reader
from ..servers.programs import Program, program_of
from ..servers.server import NothingSent, Refusal, Server
from ..servers.surroundings import warn_of_reader, warn_once
from ..settings import Settings
from ..system.poller import Interrupt, is_gone, is_writable
from .looks import DUE_SHARE
from .loop import current_hub
from .shortcut import shortcut
from .stall import Progress, bound, release

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_sse_lite")

Write = Callable[..., Any]

#: Seconds before a server that stops cuts its requests, in which a response that is not
#: at its end by then ends properly.
MARGIN = 1.0


class Pulse:
    """An iterable of bytes, for a WSGI server.

    To be iterated by the thread that serves the request; ``tick`` is the hub's.

    :param pieces: the body.
    :param environ: the request's.
    :param start: calls ``start_response``, and returns its ``write``.
    :param settings: the application's: after how many seconds of silence there is to
        be a sign of life, and whether items may go past the server.
    :param is_over: whether the iterable has had its last step, and only cleans up.
    :param last_words: makes the body's last piece, where the server stops before its
        end. Without them it is left to the server to cut it: nobody is to take it for
        whole.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        environ: WSGIEnvironment,
        start: Callable[[], Write],
        settings: Settings,
        is_over: Callable[[], bool],
        last_words: Callable[[], bytes] | None,
    ) -> None:
        self.settings = settings
        self.heartbeat = settings.heartbeat
        #: The server that can be stopped while its process goes on.
        self.program: Program | None = None
        self._is_to_go_through = settings.handoff is False
        self._is_over = is_over
        self._say_last = last_words
        #: When it is to be at its end, as the server stops.
        self._stops_at = 0.0
        self._is_cut = False
        self._pieces = pieces
        self._environ = environ
        self._start = start
        #: The response was started, and an error can no longer change its status.
        self.is_started = False
        #: The hub has tried to start it. (uWSGI answers only the request's thread.)
        self._was_tried = False
        self._first: bytes | None = None
        self._server: Server | None = None
        self._was_looked_at = False
        #: The server, also where nothing can be sent past it.
        self._keeper: Server | None = None
        #: The connection's, as far as that is known, and how its client gets on.
        self._socket: Any = None
        self._stall = settings.stall
        self._progress: Progress | None = None
        #: Bytes of the body that the server was given, until that was looked at once.
        self._given = 0
        self._is_approved = False
        self._send: Callable[[bytes], None] | None = None
        # While this holds, the thread that serves the request sends nothing.
        self._is_silent = False
        # Whoever sends from another thread holds the lock. It has said so before.
        self._is_beating = False
        self._lock = threading.Lock()
        self._interrupt = Interrupt()
        self._has_left = False
        self._count = self._counted = 0
        self._spoke_at = time.monotonic()

    def begin(self) -> None:
        """Wait for the first item. Nothing was sent when it comes, unless it took so
        long that a sign of life was due.

        :raises Exception: what the iterable raises.
        """
        current_hub().keep_time(self)
        self._first = self._step()
        if not self.is_started:
            self._begin_response()

    def go_on_with(self, pieces: Iterator[bytes]) -> None:
        """Send these instead of what is left of the others."""
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece, self._first = self._first, None
        if piece is None:
            if not self._is_approved:
                self._approve()
            if self._server is None and not self._was_looked_at:
                self._look_at_reader()
            piece = self._step_on()
        if piece is None or self._has_left:
            self.close()
            raise StopIteration
        self._given += len(piece)
        return piece

    def _look_at_reader(self) -> None:
        """Something was given to the server, which sends it by itself: see whether it
        does, or somebody keeps all of the body."""
        self._was_looked_at = True
        warn_of_reader()
        try:
            if self._keeper:
                self._keeper.check_sent(self._given)
        except NothingSent:
            told = NothingSent(reader()).reason
            warn_once(f"An EventStream does not reach its client as it is: {told}")
        except Refusal as refusal:
            logger.debug("Items go through the server: %s", refusal)

    def _step_on(self) -> bytes | None:
        """The next piece for the server, behind those that go past it; None at the
        end."""
        if self._server and not self._is_to_go_through:
            self._is_to_go_through = True  # There is one answer.
            try:
                self._send = shortcut(self._server)
            except Refusal as refusal:
                logger.debug("Items go through the server: %s", refusal)
        piece = self._step()
        if send := self._send:
            try:
                while piece is not None and not self._has_left:
                    send(piece)
                    piece = self._step()
            except OSError as error:
                # The server finds that out too, as it ends the response.
                logger.debug("An item could not be sent: %r", error)
                return None
        return piece

    def _step(self) -> bytes | None:
        """The next piece, or None at the end."""
        if self._is_cut:
            return self._conclude()
        self._is_silent = True
        try:
            return next(self._pieces, None)
        except GeneratorExit:
            if self._is_cut:
                return self._conclude()
            if not self._has_left:
                raise
            return None
        finally:
            self._is_silent = False
            if self._is_beating:
                with self._lock:
                    pass  # A sign of life that is on its way goes first.
            self._count += 1

    def _conclude(self) -> bytes | None:
        """The last piece, once."""
        say_last, self._say_last = self._say_last, None
        try:
            return (say_last() or None) if say_last else None
        except Exception:
            logger.exception("What a client is told of its server's stop failed")
            return None

    def close(self) -> None:
        """End it. For the thread that serves the request."""
        current_hub().forget(self)
        self._progress = None
        sock, self._socket = self._socket, None
        if sock is not None:
            release(sock)

    # The hub's

    def tick(self, now: float) -> None:
        """Send a sign of life, if one is due."""
        if self._stops_at and now >= self._stops_at:
            self._cut()
        if (progress := self._progress) and progress.is_stuck(now):
            # Its thread may wait for the client, or for the iterable.
            self._progress = None
            self._let_go()
            progress.cut()
        if self._count != self._counted:
            self._counted = self._count
            self._spoke_at = now
        elif self._is_silent:
            with self._lock:
                self._is_beating = True
                try:
                    if self._is_silent:
                        self._look(now)
                except Exception as error:
                    # The server says the same in its own way, when it is given an item.
                    logger.debug("A stream gets no signs of life: %r", error)
                    self._server = None
                finally:
                    self._is_beating = False

    @property
    def last_words(self) -> None:
        """What it says last goes to its own client."""

    def stop(self, patience: float | None = None) -> None:
        """The server stops. It lets requests end that it has begun to serve, and so do
        we: an answer may be nearly complete. But one that is not is told so, and ends
        before it would be cut."""
        if patience is None:
            patience = gunicorn.graceful_timeout()
        stops_at = time.monotonic() + max(patience - MARGIN, patience / 2)
        if not self._stops_at or stops_at < self._stops_at:
            self._stops_at = stops_at

    def _cut(self) -> None:
        if self._is_cut or self._has_left or self._is_over() or not self._say_last:
            return
        self._is_cut = True
        # Where it cannot be interrupted, it ends behind its next item.
        self._interrupt(lambda: self._is_silent and not self._is_over())

    def _look(self, now: float) -> None:
        """The thread that serves the request waits for the iterable."""
        if self._has_left:
            return  # A second interrupt would end the cleaning up after the first.
        server = self._server
        if server and is_gone(server.socket()):
            self._let_go()
        elif now - self._spoke_at >= self.heartbeat * DUE_SHARE:
            self._spoke_at = now
            self._beat()

    def _let_go(self) -> None:
        """The client has left: have the iterable ended."""
        if not self._has_left:
            self._has_left = True
            self._interrupt(lambda: self._is_silent and not self._is_over())

    def _beat(self) -> None:
        try:
            if not self.is_started and not self._was_tried:
                self._was_tried = True
                self._begin_response()
            self._approve()
            if self._server and is_writable(self._server.socket()):
                self._server.send(HEARTBEAT)
                if not self._is_approved:
                    self._given += len(HEARTBEAT)
        except ConnectionError as error:
            # The next look finds the client gone.
            logger.debug("No sign of life could be sent: %r", error)

    # Either's

    def _begin_response(self) -> None:
        write = self._start()
        self.is_started = True
        server = None
        try:
            server = find_server(self._environ, write)
            self.program = program_of(server)
            self._keeper = server
            check_request(self._environ)
            if server.hidden_by or not server.lends_sockets:
                keeper = server.hidden_by or server.name
                raise Refusal(
                    f"nothing can be sent past {keeper}", "unsupported-server"
                )
            server.check_headers()
            self._server = server
        except Refusal as refusal:
            logger.debug("A stream gets no signs of life: %s", refusal)
        self._socket = known_socket(self._environ, server)
        if self._socket is not None:
            bound(self._socket)
            self._progress = Progress(self._socket, self._stall, time.monotonic())

    def _approve(self) -> None:
        """Once something was sent, see whether it arrives as it was given."""
        if self._is_approved or not self._given:
            return
        self._is_approved = True
        if self._server:
            try:
                self._server.check(self._given)
            except Refusal as refusal:
                logger.debug("A stream gets no signs of life: %s", refusal)
                self._server = None
