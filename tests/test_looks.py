"""The hub's looks: who gets a sign of life, who is old, and who is cut. The tests say
what time it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import fanout, looks
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.frames import POSITION_INTERVAL
from flask_sse_lite.hub.looks import DUE_SHARE, LEAST_SPREAD, LOOKS_PER_ROUND, Looks
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED

from .hub_parts import Faulty, Parts, Stream, hub_parts, is_closed, received

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

BEAT = 16.0

#: Seconds after which a client that takes nothing is cut. No test of signs of life
#: lasts so long.
STALL = 600.0

SETTINGS = Settings.read({"SSE_HEARTBEAT": BEAT, "SSE_MAX_STALL": STALL})


class World:
    """Connections, the looks at them, and the time."""

    def __init__(self, parts: Parts) -> None:
        self.now = 1000.0
        self.log = Log(history=99, age=9999)
        self.parts = parts
        poller: Any = parts.poller
        self.looks = Looks(parts, parts.fanout, poller)

    def monotonic(self) -> float:
        return self.now

    def connect(
        self, settings: Settings = SETTINGS, channel: str = "a"
    ) -> tuple[Connection, socket.socket]:
        connection, client = self.parts.connect(self.log, settings, channel)
        self.parts._welcome_all()
        return connection, client

    def deliver(self) -> None:
        """Send what was published."""
        for group in self.parts.fanout.groups.values():
            self.parts.fanout.deliver_all(group)

    def look(self, after: float = 0.0, *timed: Stream) -> None:
        self.now += after
        self.looks.look_around(self.now, timed)

    def look_a_round(self, after: float = 0.0) -> None:
        """Look so often that each connection has been looked at."""
        self.now += after
        for _ in range(LOOKS_PER_ROUND):
            self.look()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with hub_parts() as parts:
        world = World(parts)
        clock = SimpleNamespace(monotonic=world.monotonic)
        monkeypatch.setattr(looks, "time", clock)
        monkeypatch.setattr(fanout, "time", clock)
        yield world


class TestSignsOfLife:
    def test_a_silent_client_gets_one_in_time(self, world: World) -> None:
        _, client = world.connect()
        world.look(after=BEAT * LEAST_SPREAD - 0.1)
        assert received(client) == b""
        world.look(after=0.1 + BEAT * (1 - LEAST_SPREAD))
        assert received(client) == HEARTBEAT
        world.look()
        assert received(client) == b""

    def test_events_are_signs_of_life(self, world: World) -> None:
        _, client = world.connect()
        world.now += BEAT * LEAST_SPREAD
        world.log.append("a", Event("1"))
        world.deliver()
        assert b"data: 1" in received(client)
        world.look(after=BEAT * LEAST_SPREAD - 0.1)
        assert received(client) == b""

    def test_those_that_came_together_do_not_beat_together(self, world: World) -> None:
        clients = [world.connect()[1] for _ in range(32)]
        beaten = []
        for _ in range(16):
            world.look(after=BEAT / 16)
            beaten.append(sum(HEARTBEAT in received(client) for client in clients))
        assert sum(beaten) == len(clients)
        assert max(beaten) < len(clients) / 2
        assert DUE_SHARE > LEAST_SPREAD

    def test_a_client_is_told_now_and_then_how_far_the_log_is(
        self, world: World
    ) -> None:
        _, client = world.connect()
        world.log.append("other", Event("1"))
        world.look(after=POSITION_INTERVAL - 0.1)
        assert received(client) == HEARTBEAT
        world.look(after=BEAT)
        assert b"id: " in received(client)
        world.look(after=POSITION_INTERVAL)
        assert received(client) == HEARTBEAT  # It knows that by now.


class TestTheTime:
    def test_who_cannot_be_told_keeps_nobody_else_from_it(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        stream = Stream(world.log)
        world.look(1.0, Faulty(world.log), stream)
        assert stream.ticks == [world.now]
        assert "could not tell" in caplog.text

    def test_a_stream_that_is_old_ends(self, world: World) -> None:
        old = Settings.read({"SSE_MAX_AGE": 60, "SSE_HEARTBEAT": BEAT})
        (_, old_client), (_, other) = world.connect(old), world.connect()
        world.look(after=59.9)
        received(old_client)
        assert not is_closed(old_client)
        world.look(after=0.1)
        assert is_closed(old_client)
        received(other)
        assert not is_closed(other)


class TestStalls:
    @pytest.fixture(autouse=True)
    def waiting(self, monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
        """How many bytes the system says that wait for the client of a descriptor."""
        waiting: dict[int, int] = {}
        module = "flask_sse_lite.hub"
        for name in ("looks", "stall"):
            monkeypatch.setattr(
                f"{module}.{name}.bytes_waiting",
                lambda sock: waiting.get(sock, 0),
            )
        monkeypatch.setattr(f"{module}.stall.bytes_acknowledged", lambda sock: 0)
        return waiting

    def test_a_client_that_takes_nothing_is_cut(
        self, world: World, waiting: dict[int, int]
    ) -> None:
        stuck, client = world.connect()
        _, other = world.connect()
        waiting[stuck.descriptor] = 7
        world.look_a_round()
        assert stuck.progress
        world.look(after=STALL - 0.1)
        received(client)
        assert not is_closed(client)
        world.look(after=0.1)
        assert is_closed(client)
        received(other)
        assert not is_closed(other)
        assert len(world.parts.places) == 1

    def test_a_client_that_has_taken_all_is_suspected_no_more(
        self, world: World, waiting: dict[int, int]
    ) -> None:
        connection, client = world.connect()
        waiting[connection.descriptor] = 7
        world.look_a_round()
        assert connection.progress
        del waiting[connection.descriptor]
        world.look(after=1)
        assert connection.progress is None
        waiting[connection.descriptor] = 7
        world.look_a_round(after=STALL)  # From here on it is looked at anew.
        received(client)
        assert not is_closed(client)

    def test_in_a_round_each_connection_is_looked_at_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []

        def bytes_waiting(descriptor: int) -> int:
            asked.append(descriptor)
            return 0

        monkeypatch.setattr(looks, "bytes_waiting", bytes_waiting)
        connections = [world.connect()[0] for _ in range(3 * LOOKS_PER_ROUND)]
        world.look()
        assert len(asked) == 3
        for _ in range(LOOKS_PER_ROUND - 1):
            world.look()
        assert sorted(asked) == sorted(one.descriptor for one in connections)

    def test_a_connection_that_has_left_is_looked_at_no_more(
        self, world: World, waiting: dict[int, int]
    ) -> None:
        connection, _ = world.connect()
        for _ in range(LOOKS_PER_ROUND):
            world.connect()  # So many that the next look is in the middle of a round.
        waiting[connection.descriptor] = 7
        world.look_a_round()
        assert world.looks._unseen
        world.parts.fanout.end(connection)
        # The system gives its descriptor to the next.
        other, client = world.connect()
        assert other.descriptor == connection.descriptor
        world.look(after=STALL)  # The look at the one that has left would cut it.
        received(client)
        assert not is_closed(client)

    def test_when_none_is_left_all_are_forgotten(
        self, world: World, waiting: dict[int, int]
    ) -> None:
        connection, _ = world.connect()
        waiting[connection.descriptor] = 7
        world.look_a_round()
        world.looks.forget()
        assert (world.looks._unseen, world.looks._suspects) == ([], {})
