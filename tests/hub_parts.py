"""Stand-ins for the hub's loop, its poller and the streams that its servers iterate, so
that a test can have one part of the hub alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from flask_sse_lite.history.cursor import Batch
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.audiences import Audiences
from flask_sse_lite.hub.client import NOBODY, Client
from flask_sse_lite.hub.connection import Connection, Group, framed
from flask_sse_lite.hub.fanout import Fanout
from flask_sse_lite.hub.listeners import Listeners
from flask_sse_lite.hub.places import Places
from flask_sse_lite.hub.readers import Readers
from flask_sse_lite.settings import Settings
from flask_sse_lite.signals.story import events_in
from flask_sse_lite.system.locks import Guard


class Poller:
    """What a hub and its parts ask of a poller. It waits for nobody."""

    def __init__(self) -> None:
        #: How often the hub gave way to what it woke, and how often it took a breath.
        self.ways_given = 0
        self.breaths = 0
        #: The descriptors that are waited for, each with whether it is also waited
        #: until it is writable.
        self.watched: dict[int, bool] = {}
        #: What the next wait finds, as descriptors and what they are ready for.
        self.events: list[tuple[int, int]] = []
        #: How long the hub was to wait each time.
        self.waits: list[float] = []
        #: How often the loop was woken, and how often it was started.
        self.wakes = 0
        self.starts = 0
        self.is_closed = False
        self._sockets: dict[int, socket.socket] = {}

    def own(self, sock: socket.socket) -> int:
        """Send to a socket from here on.

        :returns: its descriptor.
        """
        self._sockets[sock.fileno()] = sock
        return sock.fileno()

    def send(self, descriptor: int, data: bytes) -> int:
        return self._sockets[descriptor].send(data)

    def finish(self, descriptor: int, last: bytes = b"") -> None:
        self.watched.pop(descriptor, None)
        with self._sockets.pop(descriptor) as sock:
            if last:
                sock.send(last)

    def start(self, loop: object, after_failure: object) -> None:
        """A test does each turn of the loop."""
        self.starts += 1

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        self.waits.append(timeout)
        events, self.events = self.events, []
        return events

    def wake(self) -> None:
        self.wakes += 1

    def close(self) -> None:
        self.is_closed = True

    def give_way(self) -> None:
        self.ways_given += 1

    def breathe(self, *, keeps_gil: bool = False) -> None:
        self.breaths += 1

    def add(self, descriptor: int) -> None:
        self.watched[descriptor] = False

    def watch_writable(self, descriptor: int, wanted: bool) -> None:
        if descriptor not in self.watched:
            raise FileNotFoundError
        self.watched[descriptor] = wanted


class Stream:
    """A stream that its server iterates. It notes what the hub tells it."""

    program = None
    story = None
    client: Client = NOBODY
    heartbeat = 20.0
    last_words: tuple[Log, str] | None = None

    def __init__(
        self, log: Log, *channels: str, settings: Settings | None = None
    ) -> None:
        self.log = log
        self.channels = channels or ("a",)
        self.cursor = log.cursor(self.channels)
        self.settings = settings
        self.wakes = 0
        self.ticks: list[float] = []
        #: The patience of each call of ``stop``.
        self.stops: list[float | None] = []
        #: How often it was ended.
        self.ends = 0

    def end(self) -> None:
        self.ends += 1

    def wake(self) -> None:
        self.wakes += 1

    def tick(self, now: float) -> None:
        self.ticks.append(now)

    def stop(self, patience: float | None = None) -> None:
        self.stops.append(patience)


class Tally:
    """What a group is sent, as a list."""

    def __init__(self) -> None:
        self.in_flight = (0, 0)
        #: What the group was sent: how many events and bytes, and to how many streams.
        self.rounds: list[tuple[int, int, int]] = []

    def begin(self, batch: Batch, data: bytes, streams: int) -> None:
        assert self.in_flight == (0, 0)
        self.in_flight = (events_in(batch), len(data))
        self.rounds.append((*self.in_flight, streams))

    def finish(self) -> None:
        self.in_flight = (0, 0)


class Story:
    """What is told of a connection's stream, as lists."""

    def __init__(self) -> None:
        #: The events and bytes that were sent to the stream alone.
        self.sent: list[tuple[int, int]] = []
        self.ends: list[str] = []
        #: How many bytes of what was sent did not go, at each end.
        self.unsent: list[int] = []
        self.expected: list[str] = []
        #: The tally of the stream's group, while it is in one.
        self.tally: Tally | None = None

    def note(self, events: int, size: int) -> None:
        self.sent.append((events, size))

    def note_batch(self, batch: Batch, data: bytes) -> None:
        self.note(events_in(batch), len(data))

    def join(self, tally: Tally | None) -> Tally:
        self.tally = tally or Tally()
        return self.tally

    def leave(self, tally: Tally) -> None:
        assert self.tally is tally
        self.tally = None

    def expect(self, why: str) -> None:
        self.expected.append(why)

    def end(self, why: str, unsent: int = 0) -> None:
        self.ends.append(why)
        self.unsent.append(unsent)


class Faulty(Stream):
    """A stream that fails whenever it is told something."""

    def tick(self, now: float) -> None:
        raise ZeroDivisionError

    def stop(self, patience: float | None = None) -> None:
        raise ZeroDivisionError


class Parts:
    """The parts of a hub that has no loop: a test does each step."""

    def __init__(self) -> None:
        self.lock = Guard()
        self.poller = Poller()
        # The parts ask nothing else of a poller.
        poller: Any = self.poller
        self.listeners = Listeners()
        self.places = Places()
        #: The readers that have told of news, in their order.
        self.news: list[Readers] = []
        self.audiences = Audiences(self.lock, poller, self.listeners, self.news.append)
        self.fanout = Fanout(
            self, self.lock, poller, self.listeners, self.places, self.news.append
        )
        self._clients = ExitStack()

    def close(self) -> None:
        self._clients.close()
        for connection in list(self.fanout.connections.values()):
            self.fanout.remove(connection, properly=False)

    def connect(
        self,
        log: Log,
        settings: Settings,
        channel: str = "a",
        *,
        chunked: bool = False,
        since: str = "",
        client: Client = NOBODY,
    ) -> tuple[Connection, socket.socket]:
        """A connection that waits to be welcomed, and its client."""
        served, peer = socket.socketpair()
        self._clients.enter_context(peer)
        peer.setblocking(False)
        served.setblocking(False)
        connection = Connection(
            self.poller.own(served),
            log.cursor([channel], since),
            log,
            settings,
            chunked=chunked,
            client=client,
        )
        connection.place = self.places.take(settings)
        self.listeners.add(connection)
        self.fanout.newcomers.append(connection)
        return connection, peer

    # The steps that the loop has for its parts

    def _admits(self, connection: Connection) -> bool:
        return True

    def _end_revoked_of(self, log: Log) -> None:
        """Nobody was revoked."""

    def _welcome_all(self) -> None:
        while self.fanout.newcomers:
            self.fanout.welcome(self.fanout.newcomers[0])

    def _write(
        self,
        group: Group,
        chunked: bool,
        descriptors: list[int],
        data: bytes,
        *,
        is_end: bool = False,
    ) -> None:
        for descriptor in descriptors:
            self.poller.send(descriptor, framed(data, chunked=chunked))


@contextmanager
def hub_parts() -> Iterator[Parts]:
    parts = Parts()
    try:
        yield parts
    finally:
        parts.close()


def received(client: socket.socket) -> bytes:
    """What a client was sent until now."""
    pieces = []
    try:
        while piece := client.recv(1 << 16):
            pieces.append(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces)


def is_closed(client: socket.socket) -> bool:
    """Whether the hub has closed a client's connection."""
    try:
        return not client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
