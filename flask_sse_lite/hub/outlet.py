"""The outlet of a response whose server waits for the application's iterable: how its
bytes leave.

Here lives how the response is begun, what the server is found to do with the first
bytes, and whether the rest goes through the server or past it. Whose turn it is to
send, and what, is never known here (keepalive.py).

How far a response is, ``Outlet.phase`` says:

======== ======== ==================================================================
from     to       when
======== ======== ==================================================================
UNBEGUN  TRIED    a sign of life is due, and the hub begins the response
UNBEGUN  BEGUN    there is an item or an error, and the request's thread begins it
TRIED    BEGUN    the hub succeeded; or it failed, and the request's thread begins it
BEGUN    CHECKED  the server has sent something, and was asked whether that arrived
CHECKED  DECIDED  the server asks for more behind the first item
======== ======== ==================================================================

Two threads make these steps, the request's and the hub's, and never both at once: the
caller sees to that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..event import HEARTBEAT
from ..log_messages import NOT_AS_IT_IS
from ..servers import check_request, find_server, known_socket
from ..servers.below import reader
from ..servers.programs import Program, program_of
from ..servers.server import NothingSent, Refusal, Server
from ..servers.surroundings import warn_of_reader, warn_once
from ..settings import Settings
from ..system.poller import is_gone, is_writable
from .shortcut import shortcut
from .stall import Progress, bound, release

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_sse_lite")

Write = Callable[..., Any]


class Phase(Enum):
    """How far a response is."""

    #: Nothing was sent. An error can still change the status.
    UNBEGUN = "unbegun"
    #: The hub has tried to begin the response. (uWSGI answers only the request's
    #: thread.)
    TRIED = "tried"
    #: The response was started, and an error can no longer change its status.
    BEGUN = "begun"
    #: It is known whether bytes that the server is given reach the client as they are.
    CHECKED = "checked"
    #: It is settled whether items go through the server or past it.
    DECIDED = "decided"


class Outlet:
    """The way of a response's bytes.

    :param environ: the request's.
    :param start: calls ``start_response``, and returns its ``write``.
    :param settings: the application's: whether items can go past the server, and how
        long a client can take nothing.
    """

    def __init__(
        self, environ: WSGIEnvironment, start: Callable[[], Write], settings: Settings
    ) -> None:
        self.phase = Phase.UNBEGUN
        #: The server that can be stopped while its process goes on.
        self.program: Program | None = None
        #: While the connection is known: how its client gets on.
        self.progress: Progress | None = None
        #: What sends an item past the server; None where items go through it.
        self.send: Callable[[bytes], None] | None = None
        self._environ = environ
        self._start = start
        self._settings = settings
        # The server that signs of life can be sent past; None where none can.
        self._server: Server | None = None
        # The server, also where nothing can be sent past it.
        self._keeper: Server | None = None
        self._socket: Any = None
        # Bytes of the body that the server was given, as long as somebody asks.
        self._given = 0

    @property
    def is_begun(self) -> bool:
        return self.phase not in (Phase.UNBEGUN, Phase.TRIED)

    def begin(self) -> None:
        """Start the response, and see what is known of its server."""
        write = self._start()
        self.phase = Phase.BEGUN
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
            self.progress = Progress(
                self._socket, self._settings.stall, time.monotonic()
            )

    def note_given(self, size: int) -> None:
        """The server is given so many bytes of the body. Once the way is decided, this
        need not be called."""
        self._given += size

    def decide(self) -> None:
        """The server asks for more, and so has sent what it was given: settle how the
        rest goes. The request's thread calls this from within the iterable's
        ``__next__``. Once the way is decided, this does nothing."""
        self._check()
        if self.phase is not Phase.CHECKED:
            return
        self.phase = Phase.DECIDED
        if self._server is None:
            self._look_at_reader()
        elif self._settings.handoff is not False:
            try:
                self.send = shortcut(self._server)
            except Refusal as refusal:
                logger.debug("Items go through the server: %s", refusal)

    def _check(self) -> None:
        """Once something was sent, see whether it arrives as it was given."""
        if self.phase is not Phase.BEGUN or not self._given:
            return
        self.phase = Phase.CHECKED
        if self._server:
            try:
                self._server.check(self._given)
            except Refusal as refusal:
                logger.debug("A stream gets no signs of life: %s", refusal)
                self._server = None

    def _look_at_reader(self) -> None:
        """Nothing goes past the server, which sends by itself what it was given: see
        whether it does, or somebody keeps all of the body."""
        warn_of_reader()
        try:
            if self._keeper:
                self._keeper.check_sent(self._given)
        except NothingSent:
            told = NothingSent(reader()).reason
            warn_once(NOT_AS_IT_IS, told)
        except Refusal as refusal:
            logger.debug("Items go through the server: %s", refusal)

    def close(self) -> None:
        """The response has ended: leave the connection as the server lent it."""
        self.progress = None
        sock, self._socket = self._socket, None
        if sock is not None:
            release(sock)

    # The hub's, while the request's thread waits for the iterable

    def is_client_gone(self) -> bool:
        """Whether the client is known to have left."""
        return self._server is not None and is_gone(self._server.socket())

    def beat(self) -> None:
        """Send a sign of life, where one can be sent."""
        try:
            if self.phase is Phase.UNBEGUN:
                self.phase = Phase.TRIED
                self.begin()
            self._check()
            if self._server and is_writable(self._server.socket()):
                self._server.send(HEARTBEAT)
                if self.phase is Phase.BEGUN:
                    self._given += len(HEARTBEAT)
        except ConnectionError as error:
            # The next look finds the client gone.
            logger.debug("No sign of life could be sent: %r", error)

    def send_no_more_beats(self) -> None:
        """A sign of life has failed."""
        self._server = None
