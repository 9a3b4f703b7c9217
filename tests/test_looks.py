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
from flask_sse_lite.hub.connection import Connection, framed
from flask_sse_lite.hub.frames import POSITION_INTERVAL
from flask_sse_lite.hub.looks import (
    DUE_SHARE,
    GOLDEN_RATIO,
    LEAST_SPREAD,
    LOOKS_PER_BREATH,
    LOOKS_PER_HEARTBEAT,
    Looks,
    Rounds,
)
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED, WRITABLE

from .hub_parts import Faulty, Parts, Story, Stream, hub_parts, is_closed, received
from .stand_ins import fill

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

BEAT = 8.0

#: Seconds from one look to the next.
LOOK = BEAT / LOOKS_PER_HEARTBEAT

#: Seconds after which a client that takes nothing is cut. No test of signs of life
#: lasts so long.
STALL = 600.0

KEYS = {"SSE_HEARTBEAT": BEAT, "SSE_MAX_STALL": STALL}

SETTINGS = Settings.read(KEYS)


class World:
    """Connections, the looks at them, and the time."""

    def __init__(self, parts: Parts) -> None:
        self.now = 1000.0
        self.log = Log(history=99, age=9999)
        self.parts = parts
        poller: Any = parts.poller
        self.looks = Looks(parts.fanout, poller)

    def monotonic(self) -> float:
        return self.now

    def connect(
        self,
        settings: Settings = SETTINGS,
        channel: str = "a",
        *,
        chunked: bool = False,
        story: Any = None,
    ) -> tuple[Connection, socket.socket]:
        connection, client = self.parts.connect(
            self.log, settings, channel, chunked=chunked
        )
        self.parts._welcome_all()
        connection.story = story
        return connection, client

    def deliver(self) -> None:
        """Send what was published."""
        for group in self.parts.fanout.groups.values():
            self.parts.fanout.deliver_all(group)

    def look(self, after: float = LOOK, *timed: Stream) -> None:
        self.now += after
        self.looks.look_around(self.now, LOOK, timed)

    def look_for(self, seconds: float) -> None:
        for _ in range(round(seconds / LOOK)):
            self.look()

    def look_a_round(self) -> None:
        """Look so often that each connection has been looked at."""
        self.look_for(BEAT)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with hub_parts() as parts:
        world = World(parts)
        clock = SimpleNamespace(monotonic=world.monotonic)
        monkeypatch.setattr(fanout, "time", clock)
        yield world


class TestSignsOfLife:
    def test_a_silent_client_gets_one_in_time(self, world: World) -> None:
        _, client = world.connect()
        world.look_for(BEAT * LEAST_SPREAD - LOOK)
        assert received(client) == b""
        while not (heard := received(client)):
            world.look()
        assert heard == HEARTBEAT
        assert world.now - 1000 <= BEAT * DUE_SHARE
        world.look_for(BEAT * DUE_SHARE - LOOK)
        assert received(client) == b""
        world.look()
        assert received(client) == HEARTBEAT

    def test_a_look_that_is_late_finds_all_that_are_due(self, world: World) -> None:
        clients = [world.connect()[1] for _ in range(32)]
        for late in (BEAT, 2.5 * BEAT, BEAT):
            world.look(after=late)
            assert {received(client) for client in clients} == {HEARTBEAT}

    def test_silence_never_lasts_longer_than_a_heartbeat(self, world: World) -> None:
        clients = [world.connect()[1] for _ in range(32)]
        heard_at = [world.now] * len(clients)
        silences = []
        # Events come now and then, and looks at any time.
        for turn in range(1, 200):
            world.look(after=LOOK * (1 + turn * GOLDEN_RATIO % 0.3))
            if turn % 31 == 0:
                world.log.append("a", Event("1"))
                world.deliver()
            for place, client in enumerate(clients):
                if received(client):
                    silences.append(world.now - heard_at[place])
                    heard_at[place] = world.now
        assert max(silences) < BEAT + LOOK
        # Nor is there a sign of life where none is due.
        assert len(silences) < len(clients) * 200 / LOOKS_PER_HEARTBEAT * 1.6

    def test_applications_have_heartbeats_of_their_own(self, world: World) -> None:
        slow = Settings.read({"SSE_HEARTBEAT": 4 * BEAT, "SSE_MAX_STALL": STALL})
        (_, client), (_, other) = world.connect(), world.connect(slow, "slow")
        world.look_for(2 * BEAT - LOOK)
        assert received(client) == HEARTBEAT * 2
        assert received(other) == b""
        world.look_for(2 * BEAT)
        assert received(other) == HEARTBEAT

    def test_events_are_signs_of_life(self, world: World) -> None:
        _, client = world.connect()
        world.now += BEAT * LEAST_SPREAD
        world.log.append("a", Event("1"))
        world.deliver()
        assert b"data: 1" in received(client)
        world.look_for(BEAT * LEAST_SPREAD - LOOK)
        assert received(client) == b""
        world.look_for(BEAT * (1 - LEAST_SPREAD))
        assert received(client) == HEARTBEAT

    # At the 13th look, most have had a sign of life: it sets when they are looked at.
    @pytest.mark.parametrize(
        ("looks", "most"),
        [(0, 1 / 3), (3, 1 / 3), (13, 1 / 2), (3 * LOOKS_PER_HEARTBEAT, 1 / 3)],
    )
    def test_those_that_got_an_event_together_do_not_beat_together(
        self, world: World, looks: int, most: float
    ) -> None:
        clients = [world.connect()[1] for _ in range(32)]
        world.look_for(LOOK * looks)
        world.log.append("a", Event("1"))
        world.deliver()
        for client in clients:
            received(client)
        self.beat_apart(world, clients, most)

    def test_those_that_fell_behind_together_do_not_beat_together(
        self, world: World
    ) -> None:
        pairs = [world.connect() for _ in range(32)]
        world.look_for(LOOK * 3)
        (group,) = world.parts.fanout.groups.values()
        world.log.append("a", Event("1"))
        world.deliver()
        for connection, _ in pairs:
            world.parts.fanout.fall_behind(connection, group)
        for connection, client in pairs:
            world.parts.fanout.catch_up(connection)
            received(client)
        self.beat_apart(world, [client for _, client in pairs])

    def test_those_that_came_together_do_not_beat_together(self, world: World) -> None:
        self.beat_apart(world, [world.connect()[1] for _ in range(32)])

    def test_those_that_a_pause_made_beat_together_do_so_until_the_next_event(
        self, world: World
    ) -> None:
        clients = [world.connect()[1] for _ in range(32)]
        world.look(after=3 * BEAT)
        assert {received(client) for client in clients} == {HEARTBEAT}
        world.look()
        world.log.append("a", Event("1"))
        world.deliver()
        world.look_for(BEAT)
        for client in clients:
            received(client)
        self.beat_apart(world, clients)

    @staticmethod
    def beat_apart(
        world: World, clients: list[socket.socket], most: float = 1 / 3
    ) -> None:
        """Look for two heartbeats, in each of which few beat at once.

        :param most: the share of the clients below which those at one look must stay.
        """
        for _ in range(2):
            beaten = []
            for _ in range(LOOKS_PER_HEARTBEAT):
                world.look()
                beaten.append(sum(HEARTBEAT in received(one) for one in clients))
            assert sum(beaten) >= len(clients)
            assert max(beaten) < len(clients) * most
            assert sum(map(bool, beaten)) >= 5

    @pytest.mark.parametrize("looks", range(2 * LOOKS_PER_HEARTBEAT))
    def test_whose_client_has_caught_up_is_silent_for_no_longer_than_a_heartbeat(
        self, world: World, looks: int
    ) -> None:
        connection, client = world.connect()
        world.connect()
        (group,) = world.parts.fanout.groups.values()
        world.look()
        world.parts.fanout.fall_behind(connection, group)
        world.look_for(LOOK * looks)
        world.parts.fanout.catch_up(connection)
        assert connection.group is group
        received(client)
        heard_at = world.now
        while not received(client):
            world.look()
        assert world.now - heard_at < BEAT  # Looks can be a little late.

    def test_a_client_is_told_now_and_then_how_far_the_log_is(
        self, world: World
    ) -> None:
        _, client = world.connect()
        world.log.append("other", Event("1"))
        world.look(after=POSITION_INTERVAL - LOOK)
        assert received(client) == HEARTBEAT
        world.look(after=BEAT)
        assert b"id: " in received(client)
        world.look(after=POSITION_INTERVAL)
        assert received(client) == HEARTBEAT  # It knows that by now.

    def test_a_client_is_told_so_after_that_time_and_not_later(
        self, world: World
    ) -> None:
        _, client = world.connect()
        world.log.append("other", Event("1"))
        world.look(after=POSITION_INTERVAL)
        assert b"id: " in received(client)

    @pytest.mark.parametrize("was_told", [True, False])
    def test_the_hub_looks_only_once_in_that_time_whether_it_must_tell_a_client_so(
        self, world: World, was_told: bool
    ) -> None:
        _, client = world.connect()
        if was_told:
            world.log.append("other", Event("1"))
        world.look(after=POSITION_INTERVAL)
        assert (b"id: " in received(client)) is was_told
        world.log.append("other", Event("2"))
        world.look(after=POSITION_INTERVAL - LOOK)
        assert received(client) == HEARTBEAT
        world.look(after=BEAT)
        assert b"id: " in received(client)

    def test_whose_stream_ends_at_its_sign_of_life_is_looked_at_no_more(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        story = Story()
        _, client = world.connect(story=story)
        world.log.end("a")  # Nobody has sent it before the look does.
        world.look_for(2 * BEAT)
        assert b"stream-end" in received(client)
        assert is_closed(client)
        assert story.ends == ["ended"]
        assert caplog.messages == []

    def test_whose_client_has_left_is_let_go_and_keeps_nobody_else_from_theirs(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        story = Story()
        gone, client = world.connect(chunked=True, story=story)
        _, other = world.connect()
        client.close()
        world.look_for(BEAT)
        assert gone.descriptor not in world.parts.fanout.connections
        assert story.ends == ["left"]
        assert story.sent == []
        assert caplog.messages == []
        assert received(other) == HEARTBEAT

    def test_for_which_there_is_no_room_is_sent_when_there_is(
        self, world: World
    ) -> None:
        connection, client = world.connect()
        send = world.parts.poller.send
        with pytest.raises(BlockingIOError):
            fill(lambda data: send(connection.descriptor, data))
        world.look_for(BEAT)
        assert connection.group is None
        assert connection.frame == HEARTBEAT
        assert world.parts.poller.watched[connection.descriptor]
        received(client)
        connection.ready = WRITABLE
        world.parts.fanout.serve(connection)
        assert received(client) == HEARTBEAT
        assert connection.group

    @pytest.mark.parametrize("chunked", [False, True])
    def test_each_is_sent_as_the_body_is_framed(
        self, world: World, chunked: bool
    ) -> None:
        story = Story()
        _, client = world.connect(chunked=chunked, story=story)
        world.look_for(BEAT)
        assert received(client) == framed(HEARTBEAT, chunked=chunked)
        world.log.append("other", Event("1"))
        world.look(after=POSITION_INTERVAL)
        told = received(client)
        assert b"id: " in told
        data = told.partition(b"\r\n")[2][:-2] if chunked else told
        assert told == framed(data, chunked=chunked)
        # They are told as bytes of the body, and as no events.
        assert story.sent == [(0, len(HEARTBEAT)), (0, len(data))]

    def test_of_two_with_one_descriptor_only_the_one_that_is_there_is_looked_at(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        monkeypatch.setattr(looks, "bytes_waiting", asked.append)
        first, _ = world.connect()
        world.look()
        world.parts.fanout.end(first)
        second, _ = world.connect()
        assert second.descriptor == first.descriptor
        world.look()
        asked.clear()
        world.look_for(BEAT)
        assert asked == [second.descriptor]

    def test_others_get_their_turn_among_many_looks(self, world: World) -> None:
        for _ in range(2 * LOOKS_PER_BREATH):
            world.connect()
        world.look()
        assert world.parts.poller.breaths == 2


class TestTheTime:
    def test_who_cannot_be_told_keeps_nobody_else_from_it(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        stream = Stream(world.log)
        world.look(1.0, Faulty(world.log), stream)
        assert stream.ticks == [world.now]
        assert "regular look at" in caplog.text
        assert "ZeroDivisionError" in caplog.text

    def test_a_stream_that_is_old_ends(self, world: World) -> None:
        old = Settings.read({**KEYS, "SSE_MAX_AGE": 60})
        story = Story()
        (_, old_client), (_, other) = world.connect(old, story=story), world.connect()
        world.look_for(60 - LOOK)
        received(old_client)
        assert not is_closed(old_client)
        world.look()
        assert is_closed(old_client)
        assert story.ends == ["max-age"]
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

    @pytest.fixture(autouse=True)
    def silence(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """For how many seconds, as the system says, clients have acknowledged
        nothing."""
        silence = [0.0]
        name = "flask_sse_lite.hub.stall.seconds_since_acknowledged"
        monkeypatch.setattr(name, lambda sock: silence[0])
        return silence

    def test_a_client_that_takes_nothing_is_cut(
        self,
        world: World,
        waiting: dict[int, int],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cuts: list[int] = []
        monkeypatch.setattr(looks, "cut", cuts.append)
        caplog.set_level("DEBUG")
        story = Story()
        stuck, client = world.connect(chunked=True, story=story)
        _, other = world.connect()
        waiting[stuck.descriptor] = 7
        world.look_a_round()
        assert stuck.progress
        began = world.now
        world.look(after=STALL - BEAT)
        received(client)
        assert not is_closed(client)
        world.look_a_round()
        assert b"0\r\n" not in received(client)  # Its stream must not seem whole.
        assert is_closed(client)
        assert cuts == [stuck.descriptor]
        assert world.now - began <= STALL
        assert story.ends == ["stalled"]
        assert "A client that takes nothing is cut" in caplog.messages
        world.look()
        assert world.looks._suspects == {}
        received(other)
        assert not is_closed(other)
        assert len(world.parts.places) == 1

    def test_it_counts_from_when_what_waits_was_sent(
        self, world: World, waiting: dict[int, int], silence: list[float]
    ) -> None:
        silence[:] = [STALL]
        connection, client = world.connect()
        world.look_for(LOOK)
        world.log.append("a", Event("1"))
        world.deliver()
        received(client)
        while not received(client):
            world.look()
        began, waiting[connection.descriptor] = world.now, 7
        while not connection.progress:
            world.look()
        assert world.now - began >= BEAT / 2
        world.look(after=began + STALL - LOOK - world.now)
        received(client)
        assert not is_closed(client)
        world.look()
        assert is_closed(client)

    def test_who_falls_behind_counts_from_what_it_was_sent_then(
        self, world: World, waiting: dict[int, int], silence: list[float]
    ) -> None:
        silence[:] = [STALL]
        connection, client = world.connect()
        (group,) = world.parts.fanout.groups.values()
        world.look_for(4 * LOOK)
        world.log.append("a", Event("1"))
        world.deliver()
        world.parts.fanout.fall_behind(connection, group)
        waiting[connection.descriptor], sent_at = 7, world.now
        world.look_a_round()
        assert connection.progress
        world.look(after=sent_at + STALL - LOOK - world.now)
        received(client)
        assert not is_closed(client)
        world.look()
        assert is_closed(client)

    @pytest.mark.parametrize("looks", range(0, 2 * LOOKS_PER_HEARTBEAT, 3))
    @pytest.mark.parametrize("falls_behind", [False, True])
    def test_who_has_vanished_is_cut_within_four_heartbeats(
        self,
        world: World,
        waiting: dict[int, int],
        silence: list[float],
        looks: int,
        falls_behind: bool,
    ) -> None:
        settings = Settings.read({"SSE_HEARTBEAT": BEAT})
        connection, client = world.connect(settings)
        world.connect(settings)
        (group,) = world.parts.fanout.groups.values()
        world.look_for(LOOK * looks)
        received(client)
        vanished_at, sent_at = world.now, 0.0
        while not is_closed(client):
            world.look()
            silence[:] = [world.now - vanished_at]
            if received(client):
                waiting[connection.descriptor] = 7
                sent_at = sent_at or world.now
                if falls_behind and connection.group:
                    world.parts.fanout.fall_behind(connection, group)
        assert world.now - sent_at >= settings.stall
        assert world.now - vanished_at < 4 * BEAT

    def test_an_acknowledgement_since_then_shows_that_the_client_is_there(
        self, world: World, waiting: dict[int, int], silence: list[float]
    ) -> None:
        silence[:] = [0.5 * LOOK]
        connection, client = world.connect()
        waiting[connection.descriptor] = 7
        world.look()
        began = world.now
        world.look(after=STALL - LOOK)
        received(client)
        assert not is_closed(client)
        world.look()
        assert is_closed(client)
        assert world.now == began + STALL

    @pytest.mark.parametrize("stall", [0.5 * BEAT, BEAT, 1.5 * BEAT, 2.25 * BEAT])
    def test_after_a_long_pause_of_the_process_the_client_has_time_to_answer(
        self,
        world: World,
        waiting: dict[int, int],
        silence: list[float],
        stall: float,
    ) -> None:
        silence[:] = [99 * BEAT]
        settings = Settings.read({"SSE_HEARTBEAT": BEAT, "SSE_MAX_STALL": stall})
        connection, client = world.connect(settings)
        waiting[connection.descriptor] = 7
        world.look(after=99 * BEAT)
        world.look(after=max(stall / 2, stall - BEAT) - LOOK / 2)
        received(client)
        assert not is_closed(client)
        world.look()
        assert is_closed(client)

    def test_a_client_that_has_taken_all_is_suspected_no_more(
        self, world: World, waiting: dict[int, int]
    ) -> None:
        connection, client = world.connect()
        waiting[connection.descriptor] = 7
        world.look_a_round()
        assert connection.progress
        del waiting[connection.descriptor]
        world.look()
        assert connection.progress is None
        assert world.looks._suspects == {}
        waiting[connection.descriptor] = 7
        world.look(after=STALL)  # From here on it is looked at anew.
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
        connections = [world.connect()[0] for _ in range(3)]
        behind = world.connect()[0]
        world.parts.fanout.leave_group(behind)
        world.look()  # This one looks at those that have just come.
        asked.clear()
        world.look_a_round()
        assert sorted(asked) == sorted(one.descriptor for one in (*connections, behind))
        # A look at a connection also gives it a sign of life.
        asked.clear()
        world.look_for(2 * BEAT * DUE_SHARE)
        assert asked.count(connections[0].descriptor) == 2
        assert asked.count(behind.descriptor) == 2

    def test_a_connection_that_has_left_is_looked_at_no_more(
        self, world: World, waiting: dict[int, int]
    ) -> None:
        connection, _ = world.connect()
        world.connect()
        waiting[connection.descriptor] = 7
        world.look_a_round()
        assert connection.progress
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
        world.connect()
        world.looks.forget()
        assert not world.parts.fanout.arrivals
        assert world.looks._suspects == {}
        assert looked_at_by(world.looks._rounds, world.now + 2 * BEAT) == []


def looked_at_by(rounds: Rounds, now: float) -> list[Any]:
    """Those that are due."""
    rounds.begin_look(now, LOOK)
    due = list(rounds.due)
    rounds.due.clear()
    return due


class TestRounds:
    """In the tests, numbers stand for connections."""

    def test_each_is_due_at_the_first_look_from_its_time_on(self) -> None:
        rounds: Any = Rounds()
        assert looked_at_by(rounds, 100 * LOOK) == []
        for look in (99.0, 100.0, 100.4, 102.0, 102.4):
            rounds.put(look, look * LOOK)
        assert looked_at_by(rounds, 100.9 * LOOK) == []
        assert looked_at_by(rounds, 101.3 * LOOK) == [99.0, 100.0, 100.4]
        assert looked_at_by(rounds, 102 * LOOK) == [102.0]
        assert looked_at_by(rounds, 103.9 * LOOK) == [102.4]
        assert looked_at_by(rounds, 999 * LOOK) == []

    def test_the_same_time_is_another_look_later_on(self) -> None:
        rounds: Any = Rounds()
        looked_at_by(rounds, 100 * LOOK)
        rounds.put("first", 200 * LOOK)
        assert looked_at_by(rounds, 110 * LOOK) == []
        rounds.put("second", 200 * LOOK)
        assert looked_at_by(rounds, (100 + LOOKS_PER_HEARTBEAT) * LOOK) == ["first"]
        assert looked_at_by(rounds, (110 + LOOKS_PER_HEARTBEAT) * LOOK) == ["second"]

    def test_none_waits_longer_than_a_round(self) -> None:
        rounds: Any = Rounds()
        looked_at_by(rounds, 100 * LOOK)
        rounds.put("late", 100 * LOOK + 3 * BEAT)
        assert looked_at_by(rounds, (100 + LOOKS_PER_HEARTBEAT - 0.1) * LOOK) == []
        assert looked_at_by(rounds, (100 + LOOKS_PER_HEARTBEAT) * LOOK) == ["late"]

    @pytest.mark.parametrize(
        "later", [LOOKS_PER_HEARTBEAT, LOOKS_PER_HEARTBEAT + 1, 100]
    )
    def test_a_look_that_is_late_finds_all(self, later: int) -> None:
        rounds: Any = Rounds()
        looked_at_by(rounds, 100 * LOOK)
        for look in range(2 * LOOKS_PER_HEARTBEAT):
            rounds.put(look, (100 + look) * LOOK)
        found = looked_at_by(rounds, (100 + later) * LOOK)
        assert sorted(found) == [*range(2 * LOOKS_PER_HEARTBEAT)]

    def test_looks_that_follow_each_other_otherwise_find_all(self) -> None:
        rounds: Any = Rounds()
        looked_at_by(rounds, 100 * LOOK)
        for look in range(LOOKS_PER_HEARTBEAT):
            rounds.put(look, (100 + look) * LOOK)
        # Another application's streams have a third of the heartbeat: this is the look
        # in whose list none was put.
        rounds.begin_look(100.34 * LOOK, LOOK / 3)
        assert sorted(rounds.due) == [*range(LOOKS_PER_HEARTBEAT)]

    def test_what_a_look_has_left_is_found_by_the_next(self) -> None:
        rounds: Any = Rounds()
        looked_at_by(rounds, 100 * LOOK)
        rounds.put("first", 101 * LOOK)
        rounds.put("second", 101 * LOOK)
        rounds.put("third", 102 * LOOK)
        rounds.begin_look(101 * LOOK, LOOK)
        rounds.due.pop()  # And here the look fails.
        assert looked_at_by(rounds, 102 * LOOK) == ["first", "third"]
