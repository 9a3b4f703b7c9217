"""A hub of its own for a test, and the clients of its connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.loop import Hub
from flask_sse_lite.settings import Settings
from flask_sse_lite.signals.story import Story

from .servers import until

#: Seconds that anything may take that does not fail.
PATIENCE = 10.0


#: With short heartbeats the hub ends sooner after the last stream. The long stall is
#: for clients that do not read because the machine keeps their test waiting.
SETTINGS = Settings.read({"SSE_HEARTBEAT": 0.8, "SSE_MAX_STALL": PATIENCE})


#: More than a socket's buffers hold.
LARGE = "x" * 8_000_000


class Client:
    """The other end of a connection that a hub serves."""

    def __init__(
        self,
        hub: Hub,
        log: Log,
        *channels: str,
        since: str = "",
        chunked: bool = False,
        settings: Settings = SETTINGS,
        story: Story | None = None,
    ) -> None:
        self.socket, served = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        served.setblocking(False)
        self._decoder = Decoder()
        self.events: list[Event] = []
        cursor = log.cursor(channels or ["a"], since)
        connection = Connection(served.detach(), cursor, log, settings, chunked=chunked)
        connection.story = story
        self.chunked = chunked
        place = hub.arrive(settings)
        assert place
        if story:
            story.begin("handed off")
        hub.adopt(connection, place)

    def read_until(self, data: str) -> list[str]:
        """Read up to the event with this data.

        :returns: the data of all events so far.
        """
        while not any(event.data == data for event in self.events):
            chunk = self.socket.recv(1 << 20)
            assert chunk, "the stream has ended"
            self.events += self._decoder.feed(chunk)
        return [event.data for event in self.events]

    def read_to_end(self) -> list[str | None]:
        """The types of all events up to the end of the stream."""
        while chunk := self.socket.recv(1 << 20):
            self.events += self._decoder.feed(chunk)
        return [event.type for event in self.events]


@pytest.fixture
def log() -> Log:
    return Log(history=256, age=300)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.stop(PATIENCE)
    until(lambda: not hub.is_running, PATIENCE)
    hub.abandon()


@pytest.fixture
def connect(hub: Hub, log: Log) -> Iterator[Callable[..., Client]]:
    """Make clients, and close them at the end."""
    clients: list[Client] = []

    def connect(*channels: str, since: str = "") -> Client:
        clients.append(Client(hub, log, *channels, since=since))
        return clients[-1]

    yield connect
    for client in clients:
        client.socket.close()
