"""The hub's loop and its doors for other threads: a test does each turn of it."""

from __future__ import annotations

import atexit
import dataclasses
import gc
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.hub import fanout
from flask_sse_lite.hub import loop as module
from flask_sse_lite.hub.client import Client
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.looks import LONGEST_LOOK, LOOKS_PER_HEARTBEAT
from flask_sse_lite.hub.loop import (
    EXIT_GRACE,
    FAILURES_BORNE,
    FIRST_PAUSE,
    TICK,
    WRITES_PER_BREATH,
    Hub,
    current_hub,
)
from flask_sse_lite.hub.places import Place
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED, READABLE, WRITABLE

from .hub_parts import Faulty, Poller, Story, Stream, is_closed, received
from .patience import patient

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

SETTINGS = Settings.read({"SSE_HEARTBEAT": 8, "SSE_MAX_STALL": 600})
OTHERS = Settings.read({"SSE_HEARTBEAT": 8, "SSE_MAX_STALL": 600})

#: More than a socket's buffers hold.
LARGE = "x" * 4_000_000

ANN = Client("ann", None, 0.0)


class World:
    """A hub whose loop does nothing by itself, and the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.poller = Poller()
        self.log = Log(history=99, age=9999)
        self.hub: Any = None
        self.sockets: list[socket.socket] = []

    def turn(self, after: float = 0.0) -> bool:
        """Have the loop do what there is to do."""
        self.now += after
        goes_on: bool = self.hub._turn(None)
        return goes_on

    def settle(self) -> None:
        """Have the loop welcome all, and read once in each group that is new."""
        for _ in range(2):
            self.turn()
        assert not self.hub._is_awake

    def fill(self, connection: Connection) -> None:
        """Have the system have no room for more bytes of a connection."""
        with suppress(BlockingIOError):
            while True:
                self.poller.send(connection.descriptor, b": fill\n")

    def is_writable(self, connection: Connection) -> None:
        """The system has room for more bytes of a connection."""
        self.poller.events = [(connection.descriptor, WRITABLE)]
        self.turn()

    def place(self, settings: Settings = SETTINGS) -> Place:
        place: Place | None = self.hub.arrive(settings)
        assert place
        return place

    def connection(
        self,
        channel: str = "a",
        *,
        since: str = "",
        settings: Settings = SETTINGS,
        client: Client = ANN,
        chunked: bool = False,
    ) -> tuple[Connection, socket.socket]:
        """A connection that nobody has adopted, and its client."""
        served, peer = socket.socketpair()
        self.sockets.append(peer)
        for sock in (served, peer):
            sock.setblocking(False)
        cursor = self.log.cursor([channel], since)
        descriptor = self.poller.own(served)
        connection = Connection(
            descriptor, cursor, self.log, settings, chunked=chunked, client=client
        )
        return connection, peer

    def connect(
        self, channel: str = "a", *, settings: Settings = SETTINGS, **options: Any
    ) -> tuple[Connection, socket.socket]:
        """A connection that was adopted, and its client."""
        connection, peer = self.connection(channel, settings=settings, **options)
        self.hub.adopt(connection, self.place(settings))
        return connection, peer

    def stream(self, *channels: str, settings: Settings = SETTINGS) -> Stream:
        stream = Stream(self.log, *channels, settings=settings)
        self.hub.add(stream, self.place(settings))
        return stream


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    monkeypatch.setattr(module, "new_poller", lambda: world.poller)
    clock = SimpleNamespace(monotonic=lambda: world.now)
    for part in (module, fanout):
        monkeypatch.setattr(part, "time", clock)
    world.hub = Hub()
    yield world
    world.hub._fanout.send_all_off()
    for sock in world.sockets:
        sock.close()


def data_in(client: socket.socket) -> list[str]:
    return [event.data for event in Decoder().feed(received(client))]


def is_ended(sent: bytes) -> bool:
    """Whether a stream got its last event, and its proper end."""
    events = Decoder().feed(sent)
    return [event.type for event in events] == [None, "stream-end"]


def told(whom: Any) -> Story:
    """Have the story of a stream or a connection told."""
    story = Story()
    whom.story = story
    return story


def fail(*whom: object) -> None:
    raise ZeroDivisionError


class TestCounts:
    def test_all_streams_are_counted_whoever_sends_to_them(self, world: World) -> None:
        hub = world.hub
        assert hub.stats()["open"] == {"handed off": 0, "iterated": 0}
        world.connect("a")
        world.connect("b")
        world.stream("a")
        assert len(hub) == 3
        assert hub.stats()["open"] == {"handed off": 2, "iterated": 1}
        assert (hub.listeners(world.log, "a"), hub.listeners(world.log, "c")) == (2, 0)
        assert hub.counts(world.log) == {"a": 2, "b": 1}
        assert hub.identities(world.log) == {"a": {"ann": 1}, "b": {"ann": 1}}

    def test_who_is_behind_is_told_for_one_log(self, world: World) -> None:
        other = Log(history=9, age=99)
        world.connect("a")
        world.stream("b")
        stranger = Stream(other, "a")
        world.hub.add(stranger, world.place())
        world.settle()
        other.append("a", Event("1"))
        for channel in "abb":
            world.log.append(channel, Event("1"))
        assert world.hub.behind(world.log, 9) == [1, 2]
        assert world.hub.behind(other, 9) == [1]
        assert sorted(world.hub.behind(world.log, 2)) == [1, 2]
        assert len(world.hub.behind(world.log, 1)) == 1

    def test_an_operator_is_shown_them(self, world: World) -> None:
        world.connect("a")
        world.settle()
        assert len(world.hub.open_streams(world.log, 9)) == 1

    def test_a_hub_is_full_when_all_places_are_taken(self, world: World) -> None:
        settings = Settings.read({"SSE_MAX_CONNECTIONS": 1})
        assert world.hub.is_full(settings) is False
        place = world.hub.arrive(settings)
        assert world.hub.is_full(settings) is True
        assert world.hub.arrive(settings) is None
        world.hub.release(place)
        assert world.hub.is_full(settings) is False

    def test_a_hub_is_full_for_a_client_that_has_all_its_places(
        self, world: World
    ) -> None:
        settings = Settings.read({"SSE_MAX_PER_CLIENT": 1})
        world.hub.arrive(settings, ANN)
        assert world.hub.is_full(settings, ANN) is True
        assert world.hub.is_full(settings, ANN._replace(identity="bob")) is False


class TestComing:
    def test_the_loop_starts_with_the_first_and_ends_with_the_last(
        self, world: World
    ) -> None:
        hub = world.hub
        assert (hub.is_running, hub.is_stopping) == (False, False)
        streams = [world.stream("a"), world.stream("a")]
        assert (hub.is_running, world.poller.starts) == (True, 1)
        assert world.turn() is True
        hub.discard(streams[0])
        assert world.turn(LONGEST_LOOK) is True
        hub.discard(streams[1])
        assert world.turn(LONGEST_LOOK) is False
        assert hub.is_running is False
        world.stream("a")
        assert (hub.is_running, world.poller.starts) == (True, 2)

    def test_the_loop_looks_as_often_as_the_most_impatient_needs(
        self, world: World
    ) -> None:
        def look() -> float:
            world.turn()
            return world.poller.waits[-1]

        assert look() == 0  # It has not looked yet.
        assert look() == TICK  # Nobody is there.
        slow = Settings.read({"SSE_HEARTBEAT": 3, "SSE_MAX_STALL": 600})
        fast = Settings.read({"SSE_HEARTBEAT": 8, "SSE_MAX_STALL": 2})
        world.connect(settings=slow)
        assert look() == 3 / LOOKS_PER_HEARTBEAT
        world.connect(settings=fast)
        assert look() == 2 / LOOKS_PER_HEARTBEAT
        stream = Stream(world.log, "a")
        stream.heartbeat = 1.6
        world.hub.add(stream, world.place())
        assert look() == pytest.approx(0.1)
        timed = Stream(world.log, "a")
        timed.heartbeat = 0.8
        world.hub.keep_time(timed)
        assert look() == pytest.approx(0.05)

    def test_what_is_left_until_the_next_look_is_waited_for(self, world: World) -> None:
        settings = Settings.read({"SSE_HEARTBEAT": 3, "SSE_MAX_STALL": 600})
        world.connect(settings=settings)
        world.turn()
        look = 3 / LOOKS_PER_HEARTBEAT
        world.turn(after=look / 4)
        assert world.poller.waits[-1] == look * 3 / 4
        world.turn(after=look)  # Something else takes that long.
        assert world.poller.waits[-1] == 0

    def test_looks_that_take_long_leave_time_for_all_else(self, world: World) -> None:
        def tick(now: float) -> None:
            world.now += 5 * look

        look = 3 / LOOKS_PER_HEARTBEAT
        world.connect(settings=Settings.read({"SSE_HEARTBEAT": 3}))
        slow: Any = Stream(world.log, "a")
        slow.tick = tick
        world.hub.keep_time(slow)
        for _ in range(2):
            world.turn()
            world.turn()
            assert world.poller.waits[-1] == look
            world.now += look

    def test_the_loop_is_woken_for_whoever_needs_more_looks(self, world: World) -> None:
        world.stream("a")
        world.settle()
        wakes = world.poller.wakes
        world.connect(settings=Settings.read({"SSE_HEARTBEAT": 60}))
        assert world.poller.wakes == wakes
        world.connect(settings=Settings.read({"SSE_HEARTBEAT": 1}))
        assert world.poller.wakes == wakes + 1

    def test_when_all_have_left_the_loop_looks_seldom_again(self, world: World) -> None:
        timed = Stream(world.log, "a")
        timed.heartbeat = 0.8
        world.hub.keep_time(timed)
        world.hub.forget(timed)
        assert world.turn(1) is False
        world.hub.keep_time(Stream(world.log, "a"))
        world.settle()
        assert world.poller.waits[-1] == TICK

    def test_who_left_while_the_lock_was_held_is_let_go_at_the_next_look(
        self, world: World
    ) -> None:
        stream = world.stream("a")
        world.settle()
        with world.hub._lock:
            world.hub.discard(stream)
        assert world.turn(LONGEST_LOOK) is False

    def test_when_all_have_left_nothing_of_them_is_kept(self, world: World) -> None:
        connection, client = world.connect("a")
        for _ in range(3):
            world.turn(LONGEST_LOOK)
        client.close()
        world.poller.events = [(connection.descriptor, READABLE)]
        assert world.turn(LONGEST_LOOK) is False
        log, world.log = weakref.ref(world.log), Log(history=1, age=1)
        del connection
        gc.collect()
        assert log() is None

    def test_who_is_told_the_time_is_told_at_each_look_until_it_is_forgotten(
        self, world: World
    ) -> None:
        timed = Stream(world.log, "a")
        world.hub.keep_time(timed)
        assert world.hub.is_running
        for after in (1.0, LONGEST_LOOK / 2, LONGEST_LOOK / 2):
            assert world.turn(after) is True
        assert timed.ticks == [1001.0, 1002.0]
        world.hub.forget(timed)
        assert world.turn(LONGEST_LOOK) is False
        assert len(timed.ticks) == 2

    def test_an_iterated_stream_is_woken_for_news(self, world: World) -> None:
        stream, other = world.stream("a"), world.stream("b")
        world.settle()
        world.log.append("a", Event("1"))
        assert stream.wakes == 0  # The publisher has better things to do.
        assert world.poller.wakes == 1
        world.settle()
        assert (stream.wakes, other.wakes) == (1, 0)
        assert stream.stops == []

    def test_a_connection_that_has_missed_nothing_wakes_nobody(
        self, world: World
    ) -> None:
        world.connect("b")
        world.settle()
        wakes = world.poller.wakes
        _, client = world.connect("a")
        assert world.poller.wakes == wakes
        world.log.append("a", Event("1"))
        assert world.poller.wakes == wakes + 1
        world.settle()
        assert data_in(client) == ["1"]

    def test_one_that_has_missed_something_wakes_the_loop(self, world: World) -> None:
        world.connect("b")
        world.log.append("a", Event("1"))
        world.settle()
        wakes = world.poller.wakes
        _, client = world.connect("a", since=world.log.position(0))
        assert world.poller.wakes == wakes + 1
        world.settle()
        assert data_in(client) == ["1"]

    def test_the_loop_is_woken_once_before_each_turn(self, world: World) -> None:
        world.connect("a")
        for _ in range(2):
            world.log.append("a", Event("1"))
        assert world.poller.wakes == 1
        world.settle()
        wakes = world.poller.wakes
        for _ in range(2):
            world.log.append("a", Event("1"))
        assert world.poller.wakes == wakes + 1

    def test_where_the_loop_cannot_start_a_connection_is_closed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection, client = world.connection("a")
        world.poller._sockets.pop(connection.descriptor).detach()
        place = world.place()
        monkeypatch.setattr(world.poller, "start", fail)
        with pytest.raises(ZeroDivisionError):
            world.hub.adopt(connection, place)
        assert is_closed(client)
        world.log.append("a", Event("1"))
        assert (world.poller.wakes, world.hub.is_running) == (0, False)
        assert world.hub.counts(world.log) == {}

    @pytest.mark.parametrize("is_stopped", [False, True])
    def test_who_comes_from_a_server_that_was_stopped_is_stopped(
        self, world: World, is_stopped: bool
    ) -> None:
        stream: Any = Stream(world.log, "a")
        stream.program = SimpleNamespace(is_stopped=is_stopped)
        story = told(stream)
        world.hub.add(stream, world.place())
        assert stream.stops == ([None] if is_stopped else [])
        assert story.expected == (["shutdown"] if is_stopped else [])


class TestNews:
    def test_all_are_sent_the_same_and_others_get_a_turn(self, world: World) -> None:
        clients = [
            world.connect("a", chunked=n > WRITES_PER_BREATH)[1]
            for n in range(2 * WRITES_PER_BREATH + 2)
        ]
        world.settle()
        breaths = world.poller.breaths
        frame = world.log.append("a", Event("1")).encode()
        world.settle()
        chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
        alike = WRITES_PER_BREATH + 1
        expected = [frame] * alike + [chunk] * alike
        assert [received(client) for client in clients] == expected
        # One before each few sends that are alike, and one behind the group.
        assert world.poller.breaths == breaths + 2 * 2 + 1

    def test_the_loop_keeps_the_gil_only_while_more_is_published(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept: list[bool] = []

        def breathe(*, keeps_gil: bool = False) -> None:
            kept.append(keeps_gil)
            if len(kept) == 1:
                world.log.append("a", Event("2"))

        for _ in range(WRITES_PER_BREATH + 1):
            world.connect("a")
        world.settle()
        world.log.append("a", Event("1"))
        monkeypatch.setattr(world.poller, "breathe", breathe)
        assert world.turn()
        assert kept == [False, True, False]

    def test_news_that_come_meanwhile_wait_for_the_next_turn(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, client = world.connect("a")
        world.settle()
        send = world.poller.send
        count = 0

        def send_and_publish(descriptor: int, data: bytes) -> int:
            nonlocal count
            count += 1
            world.log.append("a", Event(str(count)))
            return send(descriptor, data)

        monkeypatch.setattr(world.poller, "send", send_and_publish)
        world.log.append("a", Event("0"))
        for expected in ("0", "1"):
            assert world.turn()
            assert data_in(client) == [expected]

    def test_who_has_left_is_forgotten_and_the_others_are_sent_to(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        (gone, peer), (_, other) = (world.connect("a", chunked=True) for _ in range(2))
        story = told(gone)
        world.settle()
        peer.close()
        world.log.append("a", Event("1"))
        world.settle()
        assert story.ends == ["left"]
        assert len(world.hub) == 1
        assert b"data: 1" in received(other)
        assert caplog.text == ""  # Nobody tried to end its body.

    def test_who_has_no_room_falls_behind_and_catches_up(self, world: World) -> None:
        (slow, client), (_, other) = world.connect("a"), world.connect("b")
        world.settle()
        world.log.append("a", Event(LARGE))
        world.settle()
        assert slow.group is None
        assert 0 < slow.sent < len(LARGE)
        world.log.append("a", Event("after"))
        sent = b""
        while slow.group is None:
            sent += received(client)
            world.is_writable(slow)
        assert [e.data for e in Decoder().feed(sent + received(client))] == [
            *(LARGE, "after"),
        ]
        assert received(other) == b""

    def test_who_has_no_room_for_the_end_has_it_later(self, world: World) -> None:
        (full, client), (_, other) = world.connect("a"), world.connect("a")
        world.settle()
        world.fill(full)
        world.log.append("a", Event("last"))
        world.log.end("a")
        world.settle()
        assert is_ended(received(other))
        assert is_closed(other)
        assert full.sent == 0
        sent = received(client)
        assert not is_closed(client)
        world.is_writable(full)
        assert is_ended(sent + received(client))
        assert is_closed(client)

    def test_a_sign_of_life_that_has_no_room_is_not_the_end(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        full, client = world.connect("a")
        world.settle()
        with monkeypatch.context() as context:

            def send(descriptor: int, data: bytes) -> int:
                raise BlockingIOError

            context.setattr(world.poller, "send", send)
            for _ in range(20):
                world.turn(0.5)
        assert full.frame == HEARTBEAT
        world.is_writable(full)
        assert received(client) == HEARTBEAT
        assert not is_closed(client)

    def test_what_a_client_sends_or_that_it_left_is_seen(self, world: World) -> None:
        connection, client = world.connect("a")
        world.settle()
        breaths = world.poller.breaths
        client.close()
        world.poller.events = [(connection.descriptor, READABLE), (9999, READABLE)]
        world.settle()
        assert len(world.hub) == 0
        assert world.poller.breaths == breaths + 1

    def test_who_waited_for_its_group_is_taken_in(self, world: World) -> None:
        _, first = world.connect("a")
        world.settle()
        world.log.append("a", Event("1"))
        _, second = world.connect("a")
        world.log.append("a", Event("2"))
        world.settle()
        world.settle()
        assert data_in(first) == ["1", "2"]
        assert data_in(second) == ["2"]

    def test_newcomers_get_their_turn_and_others_one_between_them(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs = [world.connect("a") for _ in range(3)]
        fanout = world.hub._fanout
        waiting: list[int] = []
        monkeypatch.setattr(
            world.poller,
            "breathe",
            lambda keeps_gil=False: waiting.append(len(fanout.newcomers)),
        )
        assert world.turn()
        assert waiting[:3] == [2, 1, 0]
        assert list(fanout.connections.values()) == [
            connection for connection, _ in pairs
        ]

    def test_revocations_end_whom_they_concern(self, world: World) -> None:
        _, client = world.connect("a")
        _, other = world.connect("a", client=Client("bob", None, 0.0))
        stream: Any = Stream(world.log, "b")
        stream.client = ANN
        world.hub.add(stream, world.place())
        world.settle()
        wakes = world.poller.wakes
        world.log.append(REVOCATIONS, Revocation("ann", None).to_event())
        assert world.poller.wakes == wakes + 1
        world.settle()
        assert is_closed(client)
        assert not is_closed(other)
        assert stream.ends == 1

    @pytest.mark.parametrize("is_iterated", [False, True])
    def test_revocations_wake_the_loop_for_a_stream_of_either_kind(
        self, world: World, is_iterated: bool
    ) -> None:
        (world.stream if is_iterated else world.connect)("a")
        world.settle()
        wakes = world.poller.wakes
        world.log.append(REVOCATIONS, Revocation("ann", None).to_event())
        assert world.poller.wakes == wakes + 1

    def test_of_a_log_without_streams_no_revocation_is_heard(
        self, world: World
    ) -> None:
        connection, _ = world.connect("a")
        world.settle()
        world.hub._fanout.end(connection)
        world.turn(LONGEST_LOOK)
        wakes = world.poller.wakes
        world.log.append(REVOCATIONS, Revocation("ann", None).to_event())
        assert world.poller.wakes == wakes


class TestEndings:
    def test_a_hub_that_stops_ends_all_and_says_so(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection, client = world.connect("a")
        story, stream = told(connection), world.stream("b")
        world.settle()
        waited: list[float] = []

        def wait(timeout: float) -> None:
            waited.append(timeout)
            assert world.poller.wakes == wakes + 1
            world.turn()

        wakes = world.poller.wakes
        monkeypatch.setattr(world.hub._endings.has_stopped, "wait", wait)
        world.hub.stop(5.0)
        assert waited == [5.0]
        assert world.hub.is_stopping
        assert is_closed(client)
        assert story.ends == ["shutdown"]
        assert stream.stops == [None]
        assert world.hub._endings.has_stopped.is_set()
        # One that comes late is waited for, too.
        world.connect("a")
        assert not world.hub._endings.has_stopped.is_set()

    @pytest.mark.parametrize("is_abandoned", [False, True])
    def test_where_no_loop_runs_nobody_is_waited_for(
        self, world: World, is_abandoned: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if is_abandoned:
            world.stream("a")
            world.hub.abandon()
            assert world.poller.is_closed
        monkeypatch.setattr(world.hub._endings.has_stopped, "wait", fail)
        world.hub.stop(5.0)
        assert world.hub.is_stopping
        assert world.poller.wakes == 0

    def test_a_worker_that_stops_has_the_hub_stop(self, world: World) -> None:
        _, client = world.connect("a")
        worker = SimpleNamespace(alive=True)
        world.hub._turn(worker)
        assert not is_closed(client)
        worker.alive = False
        world.hub._turn(worker)
        assert world.hub.is_stopping
        assert is_closed(client)

    def test_an_application_s_streams_end_also_those_that_are_about_to_begin(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (_, mine), (_, other) = world.connect("a"), world.connect("a", settings=OTHERS)
        begins, iterated = world.place(), world.place()
        world.settle()
        threads: list[threading.Thread] = []

        def wake() -> None:
            # The loop has another thread, which the caller waits for.
            threads.append(threading.Thread(target=world.turn))
            threads[-1].start()

        monkeypatch.setattr(world.poller, "wake", wake)
        world.hub.end_streams(SETTINGS, patient(30))
        assert is_closed(mine)
        for thread in threads:
            thread.join()
        assert not is_closed(other)
        monkeypatch.setattr(world.poller, "wake", lambda: None)
        world.settle()
        connection, client = world.connection("a")
        story = told(connection)
        world.hub.adopt(connection, begins)
        stream = Stream(world.log, "a")
        stream_story: Any = told(stream)
        world.hub.add(stream, iterated)
        _, later = world.connect("a")
        world.settle()
        assert story.ends == ["end-streams"]
        assert is_closed(client)
        assert (stream.stops, stream_story.expected) == ([0], ["end-streams"])
        assert not is_closed(later)
        assert not is_closed(other)

    def test_who_begins_doomed_wakes_the_loop(self, world: World) -> None:
        world.connect("b", settings=dataclasses.replace(SETTINGS))
        place = world.place()
        world.hub.end_streams(SETTINGS, 0)
        world.settle()
        wakes = world.poller.wakes
        connection, client = world.connection("a")
        world.hub.adopt(connection, place)
        assert world.poller.wakes == wakes + 1
        world.settle()
        assert is_closed(client)

    def test_one_stream_can_be_ended_by_its_name(self, world: World) -> None:
        world.hub.end_one(world.log, "nobody's")
        (_, one), (_, other) = world.connect("a"), world.connect("b")
        stories = [told(c) for c in world.hub._fanout.newcomers]
        world.settle()
        shown = world.hub.open_streams(world.log, 9)
        (name,) = [stream.name for stream in shown if stream.channels == ("a",)]
        wakes = world.poller.wakes
        world.hub.end_one(world.log, name)
        assert world.poller.wakes == wakes + 1
        world.settle()
        assert is_closed(one)
        assert not is_closed(other)
        assert [story.ends for story in stories] == [["disconnect"], []]

    def test_a_forked_child_closes_what_is_its_parent_s(self, world: World) -> None:
        connection, client = world.connect("a")
        world.poller._sockets.pop(connection.descriptor).detach()
        world.hub.abandon()
        assert is_closed(client)
        world.hub._fanout.newcomers.clear()
        assert world.hub._after_failure(ZeroDivisionError()) is None


class TestFailures:
    def test_a_loop_that_failed_is_to_run_again_after_a_pause(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.stream("a")
        pauses = [world.hub._after_failure(ZeroDivisionError()) for _ in range(2)]
        assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE]
        assert len(caplog.records) == 2
        assert all(record.exc_info for record in caplog.records)

    def test_a_hub_that_has_nobody_left_need_not_run_again(self, world: World) -> None:
        stream = world.stream("a")
        with world.hub._lock:
            world.hub.discard(stream)  # It is let go later.
        assert world.hub._after_failure(ZeroDivisionError()) is None
        assert world.hub.is_running is False

    def test_after_many_failures_all_are_sent_off(self, world: World) -> None:
        connection, client = world.connect("a", chunked=True)
        story = told(connection)
        stream: Any = world.stream("a")
        stream_story = told(stream)
        for _ in range(FAILURES_BORNE):
            assert world.hub._after_failure(ZeroDivisionError())
        assert not is_closed(client)
        assert stream.stops == []
        assert world.hub._after_failure(ZeroDivisionError())
        assert received(client) == b""
        assert is_closed(client)
        assert story.ends == ["failed"]
        assert (stream.stops, stream_story.expected) == ([None], ["failed"])

    def test_what_fails_after_a_failure_is_logged_and_the_loop_runs_again(
        self,
        world: World,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        world.stream("a")
        monkeypatch.setattr(world.hub._audiences, "let_go", fail)
        assert world.hub._after_failure(ZeroDivisionError()) == FIRST_PAUSE
        assert len(caplog.records) == 2
        assert caplog.records[1].exc_info

    def test_a_loop_that_runs_again_does_what_it_was_about_to_do(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (_, client), stream = world.connect("a"), world.stream("a")
        (stray, left) = world.connect("b")
        world.settle()
        for channel in "ab":
            world.log.append(channel, Event("1"))
        # The loop has taken the news, and fails before it has told of them.
        world.hub._news.clear()
        world.hub._fanout.leave_group(stray)
        assert world.hub._after_failure(ZeroDivisionError())
        turns: list[bool] = []

        def turn(worker: object) -> bool:
            turns.append(Hub._turn(world.hub, worker))
            return len(turns) < 2

        monkeypatch.setattr(world.hub, "_turn", turn)
        world.hub._run()
        assert turns == [True, True]
        assert data_in(client) == ["1"]
        assert stream.wakes == 1
        assert is_closed(left)

    def test_a_loop_that_has_never_failed_tells_nobody_anew(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = world.stream("a")
        monkeypatch.setattr(world.hub, "_turn", lambda worker: False)
        world.hub._run()
        assert not world.hub._news
        assert stream.wakes == 0

    def test_what_fails_for_one_costs_nobody_else(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (one, client), (_, other) = world.connect("a"), world.connect("b")
        world.hub.keep_time(Faulty(world.log, "a"))
        world.settle()
        group = one.group
        assert group
        monkeypatch.setattr(group, "tally", SimpleNamespace(begin=fail))
        for channel in "ab":
            world.log.append(channel, Event("1"))
        world.settle()
        assert is_closed(client)
        assert data_in(other) == ["1"]


class TestTheEndOfALoop:
    def test_a_hub_that_stops_has_stopped_when_its_loop_ends(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(world.hub, "_turn", lambda worker: False)
        world.hub._run()
        assert not world.hub._endings.has_stopped.is_set()
        world.hub.is_stopping = True
        world.hub._run()
        assert world.hub._endings.has_stopped.is_set()

    def test_a_loop_that_another_has_followed_says_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.hub.is_stopping = world.hub.is_running = True
        monkeypatch.setattr(world.hub, "_turn", lambda worker: False)
        world.hub._run()
        assert not world.hub._endings.has_stopped.is_set()


class TestTheHubOfAProcess:
    @pytest.fixture
    def pollers(self, monkeypatch: pytest.MonkeyPatch) -> list[Poller]:
        """The pollers of the hubs that are made. The process has none yet."""
        pollers: list[Poller] = []

        def new_poller() -> Poller:
            pollers.append(Poller())
            return pollers[-1]

        monkeypatch.setattr(module, "new_poller", new_poller)
        monkeypatch.setattr(module, "_hubs", {})
        return pollers

    @pytest.fixture
    def hooks(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """What is registered with the interpreter."""
        hooks: list[object] = []

        def register(
            call: Callable[[], None] | None = None, **options: Callable[[], None]
        ) -> object:
            hooks.append(call or options["after_in_child"])
            return call

        monkeypatch.setattr(atexit, "register", register)
        monkeypatch.setattr(os, "register_at_fork", register)
        monkeypatch.setattr(module, "_hooks", [])
        return hooks

    def test_there_is_one(self, pollers: list[Poller], hooks: list[object]) -> None:
        hub = current_hub()
        assert current_hub() is hub
        assert len(pollers) == 1
        assert hooks == [module._stop_at_exit, module._abandon_in_child]
        module._hubs.clear()  # As in a child, which inherits what was registered.
        assert current_hub() is not hub
        assert len(hooks) == 2

    def test_two_threads_agree_on_one(
        self,
        pollers: list[Poller],
        hooks: list[object],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class Raced(dict[int, Hub]):
            """Another thread is faster, between the question and the answer."""

            def setdefault(self, pid: int, hub: Hub | None = None) -> Hub:
                self[pid] = faster
                return faster

        faster = Hub()
        monkeypatch.setattr(module, "_hubs", Raced())
        assert current_hub() is faster
        assert [poller.is_closed for poller in pollers] == [False, True]
        assert hooks == []

    def test_at_exit_it_stops_and_signals_are_told(
        self, pollers: list[Poller], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[object] = []
        monkeypatch.setattr(module, "settle_all", lambda: calls.append("settled"))
        module._stop_at_exit()
        assert calls == []  # There was no hub.
        stopped = SimpleNamespace(stop=lambda timeout: calls.append(timeout))
        monkeypatch.setattr(module, "_hubs", {os.getpid(): stopped})
        module._stop_at_exit()
        assert calls == [EXIT_GRACE, "settled"]

    def test_a_child_abandons_its_parent_s(
        self, pollers: list[Poller], hooks: list[object]
    ) -> None:
        hub = current_hub()
        module._abandon_in_child()
        assert pollers[0].is_closed
        assert current_hub() is not hub
