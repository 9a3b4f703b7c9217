"""A subscription as a WSGI iterable: how a stream begins.

Here lives how the server gets the opening, and how the connection is then handed over
to the hub. Where that cannot be, the server iterates the stream (iterated.py). Flask is
unknown here.

Where a subscription is, ``Subscription.phase`` says. The thread that iterates it makes
every step but the last:

=========== =========== ============================================================
from        to          when
=========== =========== ============================================================
UNSTARTED   STARTED     a server has started the response
STARTED     OPENED      the server is given the opening, and can hand connections over
STARTED     ITERATED    the server is given the opening, and cannot
UNSTARTED   ITERATED    somebody is given the opening who never started the response,
                        and so has taken the body to himself
UNSTARTED,  REFUSED     there is no place: the client is told to come back later
STARTED
OPENED      HANDED_OFF  the server asks for more, and the hub takes the connection
OPENED      ITERATED    the server asks for more, and the connection stays with it
any         OVER        the stream was closed, by whatever thread; or all was said
=========== =========== ============================================================
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..history.cursor import Cursor
from ..history.log import Log
from ..servers import check_request, find_server, known_socket
from ..servers.programs import Program, program_of
from ..servers.server import Reason, Refusal, Server
from ..servers.surroundings import warn_of_reader
from ..settings import Settings
from ..signals.story import Story
from .access_log import log_request
from .client import NOBODY, Client
from .connection import Connection
from .frames import RETRY_WHEN_FULL, come_back, opening, spread_retry
from .handoff import take_connection
from .iterated import IteratedStream
from .loop import Hub, current_hub
from .places import Place
from .stall import bound

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Phase(Enum):
    """Where a subscription is."""

    #: Nothing was asked for.
    UNSTARTED = "unstarted"
    #: A server has started the response, and was given nothing of the body.
    STARTED = "started"
    #: The server was given the opening. When it asks for more, the opening is sent.
    OPENED = "opened"
    #: The server iterates the stream to its end.
    ITERATED = "iterated"
    #: The hub has the connection.
    HANDED_OFF = "handed off"
    #: There was no place.
    REFUSED = "refused"
    #: No other phase follows.
    OVER = "over"


class Subscription:
    """One client's stream of some channels: iterate it for its bytes, then close it.

    One thread iterates it. Any thread can call ``close``, which ends a wait of that
    thread. Until its first bytes are asked for, a subscription holds nothing but its
    cursor, and need not be closed: a response that is never sent leaves nothing behind.

    :param shareable: a newcomer begins at the present, so that all tabs of a browser
        can share the stream.
    :param story: what is told of the stream, if anything is.
    """

    __slots__ = (
        "_client",
        "_cursor",
        "_end",
        "_hub",
        "_iterated",
        "_opening",
        "_phase",
        "_place",
        "_program",
        "_server",
        "_settings",
        "_shareable",
        "_socket",
        "_story",
        "_why",
        "log",
        "on_close",
    )

    def __init__(
        self,
        log: Log,
        cursor: Cursor,
        settings: Settings,
        client: Client = NOBODY,
        *,
        shareable: bool = False,
        story: Story | None = None,
    ) -> None:
        self.log = log
        self._client = client
        self._cursor = cursor
        self._settings = settings
        self._shareable = shareable
        # Whoever takes this lock has ended the stream. The lock is never given back.
        self._end = threading.Lock()
        # Any phase but OVER. The thread that iterates the subscription writes it.
        self._phase = Phase.UNSTARTED
        # The server, until the handoff was tried; None where no handoff is wanted.
        self._server: Server | None = None
        # The server, if it can be stopped while its process goes on.
        self._program: Program | None = None
        # The connection's socket, as far as that is known.
        self._socket: Any = None
        # Whose place the stream has.
        self._hub: Hub | None = None
        self._place: Place | None = None
        # What is told of the stream; None where nothing is, or the hub tells it.
        self._story = story
        # Bytes of the opening, which is all that a server gets before a handoff.
        self._opening = 0
        self._iterated: IteratedStream | None = None
        # Why the server must iterate the stream, as far as that is known.
        self._why: Reason | None = None
        #: Called once, at the end.
        self.on_close: Callable[[], None] | None = None

    @property
    def phase(self) -> Phase:
        return Phase.OVER if self._end.locked() else self._phase

    def started(self, environ: WSGIEnvironment, write: Callable[..., Any]) -> None:
        """The response was started on a server: see whether the server is one that
        hands its connections over.

        :param write: what ``start_response`` returned.
        """
        self._phase = Phase.STARTED
        wants_handoff = self._settings.handoff is not False
        server = None
        try:
            server = find_server(environ, write)
            self._program = program_of(server)
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
        if self._iterated is None:
            phase = self.phase
            if phase in (Phase.UNSTARTED, Phase.STARTED):
                return self._begin()
            if phase is Phase.OPENED:
                self._go_on()
        if self._iterated is None:
            self._leave()
            raise StopIteration
        try:
            return next(self._iterated)
        except StopIteration:
            self._leave()
            raise

    def _begin(self) -> bytes:
        """The first step.

        :returns: all that a server is given before a handoff.
        """
        self._hub = hub = current_hub()
        self._place = hub.arrive(self._settings, self._client)
        if self._place is None:
            self._phase = Phase.REFUSED
            if self._story is not None:
                is_full = hub.is_full(self._settings)
                self._story.refuse("full" if is_full else "client-full")
            return come_back(spread_retry(RETRY_WHEN_FULL))
        data = opening(
            self.log, self._cursor, self._settings, shareable=self._shareable
        )
        self._opening = len(data)
        if self._story is not None:
            self._story.note(0, len(data))
        if self._phase is Phase.UNSTARTED:
            # WSGI never called the response, so nobody knows what iterates its body.
            self._note(Refusal("something has taken the body to itself", "body-taken"))
        if self._server is None:
            warn_of_reader()
            self._iterate()
        else:
            self._phase = Phase.OPENED
        return data

    def _go_on(self) -> None:
        """The second step: the server has sent the opening, and asks for more."""
        server, self._server = self._server, None
        assert server
        try:
            trusted = self._settings.handoff is True
            taken = take_connection(server, self._opening, trusted=trusted)
        except Refusal as refusal:
            self._note(refusal)
            self._iterate()
        else:
            self._hand_off(server, *taken)

    def _hand_off(self, server: Server, descriptor: int, chunked: bool) -> None:
        """Give the hub the connection that was taken from the server."""
        connection = Connection(
            descriptor,
            self._cursor,
            self.log,
            self._settings,
            chunked=chunked,
            client=self._client,
        )
        connection.program = self._program
        connection.story, self._story = self._story, None
        self._phase = Phase.HANDED_OFF
        # The hub releases the place from here on, except where adopt fails.
        hub, place, self._place = self._hub, self._place, None
        assert hub is not None  # An empty hub is falsy.
        assert place
        if connection.story is not None:
            connection.story.begin("handed off")
        try:
            hub.adopt(connection, place)
        except BaseException:
            hub.release(place)
            if connection.story is not None:
                connection.story.end("failed")
            raise
        if self._settings.access_log:
            log_request(server.environ, self._cursor.channels)
        hub.paths.note_handed_off(server.name)

    def _note(self, refusal: Refusal) -> None:
        paths = current_hub().paths
        paths.note_iterated(
            refusal.reason, refusal.code, is_remediable=refusal.is_remediable
        )
        self._why = refusal.code
        if self._story is not None:
            self._story.path_reason = refusal.code

    def _iterate(self) -> None:
        """The connection stays with the server, to the end."""
        self._phase = Phase.ITERATED
        assert self._hub is not None
        assert self._place
        self._iterated = IteratedStream(
            self.log,
            self._cursor,
            self._settings,
            client=self._client,
            end=self._end,
            program=self._program,
            sock=self._socket,
            story=self._story,
        )
        self._iterated.path_reason = self._why
        if self._story is not None:
            self._story.begin("iterated")
        self._hub.add(self._iterated, self._place)

    def _leave(self) -> None:
        """Give back what the stream holds of the hub's. A second call does nothing."""
        if self._hub is not None:
            if self._iterated:
                self._hub.discard(self._iterated)
            if self._place:
                self._hub.release(self._place)
            story = self._story  # Another thread can be handing it over.
            if story is not None:
                story.end()

    def close(self) -> None:
        """The server's last call, or any thread's. A second call does nothing."""
        self._end.acquire(blocking=False)
        if self._iterated:
            self._iterated.end()  # Its thread can be asleep.
        self._leave()
        on_close, self.on_close = self.on_close, None
        if on_close:
            on_close()
