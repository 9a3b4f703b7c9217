"""The fan-out: how connections come, join groups, fall behind and are closed. A test
does each step of the loop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite import Event, Reentered
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import fanout as module
from flask_sse_lite.hub.client import Client
from flask_sse_lite.hub.connection import MAX_JUNK, Connection, Group
from flask_sse_lite.hub.fanout import Fanout
from flask_sse_lite.hub.frames import BATCH_BYTES
from flask_sse_lite.hub.readers import Audience
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED, READABLE, WRITABLE

from .hub_parts import Parts, Story, Stream, hub_parts, is_closed, received

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

SETTINGS = Settings.read({})

#: More than a socket's buffers hold.
LARGE = "x" * 4_000_000

#: An event that is sent in a piece of its own.
A_PIECE = "x" * BATCH_BYTES

#: When a test begins.
NOW = 1000.0

#: How the body of a chunked response ends.
LAST_CHUNK = b"0\r\n\r\n"

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def log() -> Log:
    return Log(history=99, age=9999)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    clock = SimpleNamespace(monotonic=lambda: NOW)
    monkeypatch.setattr(module, "time", clock)
    with hub_parts() as parts:
        yield parts


@pytest.fixture
def fanout(parts: Parts) -> Fanout:
    return parts.fanout


def told(connection: Connection) -> Story:
    """Have a connection's story told."""
    story = Story()
    whom: Any = connection
    whom.story = story
    return story


def served(parts: Parts, log: Log, channel: str = "a", **options: Any) -> Pair:
    """A connection that is served, and its client."""
    pair = parts.connect(log, SETTINGS, channel, **options)
    parts._welcome_all()
    return pair


def deliver(parts: Parts) -> None:
    """Do what the loop does with the news that it has."""
    while parts.news:
        group = parts.news.pop(0)
        assert isinstance(group, Group)
        parts.fanout.deliver(group)
        parts.fanout.take_in(group)


def data_in(sent: bytes) -> list[str]:
    return [event.data for event in Decoder().feed(sent)]


def fail(whom: object) -> None:
    raise ZeroDivisionError


def is_ready(connection: Connection, what: int, fanout: Fanout) -> None:
    connection.ready = what
    fanout.serve(connection)


class TestComing:
    def test_a_connection_counts_once_from_the_beginning(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, _ = parts.connect(log, SETTINGS)
        assert len(fanout) == 1
        parts._welcome_all()
        assert len(fanout) == 1
        assert not fanout.newcomers
        assert fanout.connections == {connection.descriptor: connection}
        assert list(fanout.arrivals) == [connection]
        assert parts.poller.watched == {connection.descriptor: False}
        assert connection.beat_at == connection.named_at == NOW
        assert connection.expires == 0

    def test_before_it_is_served_the_log_tells_of_news_and_then_its_group_does(
        self, log: Log, parts: Parts
    ) -> None:
        connection, client = parts.connect(log, SETTINGS)
        tells: list[None] = []
        connection.tell = lambda: tells.append(None)
        log.watch(["a"], connection.tell)
        log.append("a", Event("1"))
        assert len(tells) == 1
        parts._welcome_all()
        assert connection.tell is None
        log.append("a", Event("2"))
        assert len(tells) == 1
        deliver(parts)
        assert data_in(received(client)) == ["1", "2"]

    def test_what_was_missed_is_sent_in_pieces(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        for n in range(3):
            log.append("a", Event(f"{n} {A_PIECE}"))
        connection, client = parts.connect(log, SETTINGS, since=log.position(0))
        story = told(connection)
        parts._welcome_all()
        assert [data[:1] for data in data_in(received(client))] == ["0", "1", "2"]
        assert [events for events, _ in story.sent] == [1, 1, 1]
        assert connection.group is fanout.groups[log, ("a",)]
        assert parts.news == [connection.group]

    def test_what_is_chunked_is_sent_so(self, log: Log, parts: Parts) -> None:
        frame = log.append("a", Event("1")).encode()
        _, client = served(parts, log, since=log.position(0), chunked=True)
        assert received(client) == b"%x\r\n%b\r\n" % (len(frame), frame)

    def test_a_stream_that_can_be_so_old_has_its_time(
        self, log: Log, parts: Parts
    ) -> None:
        settings = Settings.read({"SSE_MAX_AGE": 60})
        connection, _ = parts.connect(log, settings)
        parts._welcome_all()
        assert connection.expires == NOW + 60

    @pytest.mark.parametrize("is_stopped", [False, True])
    def test_who_comes_from_a_server_that_was_stopped_ends_at_the_next_look(
        self, log: Log, parts: Parts, is_stopped: bool
    ) -> None:
        connection, _ = parts.connect(log, SETTINGS)
        program: Any = SimpleNamespace(is_stopped=is_stopped)
        connection.program, story = program, told(connection)
        parts._welcome_all()
        assert connection.expires == (NOW if is_stopped else 0)
        assert story.expected == (["shutdown"] if is_stopped else [])

    def test_who_is_not_admitted_is_sent_nothing(
        self, log: Log, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parts, "_admits", lambda connection: False)
        log.append("a", Event("secret"))
        connection, client = served(parts, log, since=log.position(0))
        assert received(client) == b""
        assert connection.group is None

    def test_who_is_revoked_while_it_catches_up_is_sent_nothing(
        self, log: Log, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection, client = parts.connect(log, SETTINGS, since=log.position(0))
        log.append("a", Event("secret"))
        monkeypatch.setattr(
            parts, "_end_revoked_of", lambda log: parts.fanout.end(connection)
        )
        parts._welcome_all()
        assert received(client) == b""
        assert parts.fanout.groups == {}

    def test_who_has_read_more_than_its_group_waits_for_it(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        _, first = served(parts, log)
        deliver(parts)
        log.append("a", Event("1"))
        parts.news.clear()
        (group,) = fanout.groups.values()
        group.has_news = False
        second, client = served(parts, log)
        assert group.waiting == [second]
        assert parts.news == [group]
        deliver(parts)
        log.append("a", Event("2"))
        deliver(parts)
        assert data_in(received(first)) == ["1", "2"]
        assert data_in(received(client)) == ["2"]
        assert (group.waiting, group.size) == ([], 2)

    def test_who_waited_and_has_left_is_not_taken_in(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        served(parts, log)
        log.append("a", Event("1"))
        second, _ = served(parts, log)
        (group,) = fanout.groups.values()
        fanout.remove(second, properly=False)
        deliver(parts)
        assert group.size == 1

    def test_who_comes_late_reads_no_further_than_its_group(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        _, first = served(parts, log)
        log.append("a", Event("1"))
        deliver(parts)
        log.append("a", Event("2"))
        _, second = served(parts, log, since=log.position(0))
        assert data_in(received(second)) == ["1"]
        deliver(parts)
        assert data_in(received(first)) == ["1", "2"]
        assert data_in(received(second)) == ["2"]

    def test_a_stray_whose_descriptor_was_given_to_another_is_gone(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        stray, _ = served(parts, log)
        story = told(stray)
        later, _ = parts.connect(log, SETTINGS)
        parts.poller._sockets[stray.descriptor].close()
        sock = parts.poller._sockets.pop(later.descriptor)
        parts.poller._sockets[stray.descriptor] = sock
        later.descriptor = stray.descriptor
        parts._welcome_all()
        assert fanout.connections == {later.descriptor: later}
        assert (len(parts.places), story.ends) == (1, ["failed"])
        assert parts.listeners.by_channel(log) == {"a": 1}

    def test_a_stray_without_place_or_story_is_gone_too(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        stray, _ = served(parts, log)
        stray.place = None
        fanout._put(later := stray_of(stray))
        assert fanout.connections == {later.descriptor: later}


def stray_of(connection: Connection) -> Connection:
    """Another connection with the same descriptor."""
    return Connection(
        connection.descriptor,
        connection.log.cursor(["a"]),
        connection.log,
        SETTINGS,
        chunked=False,
    )


class TestACatchUpThatIsSlow:
    def test_what_does_not_fit_is_sent_when_there_is_room(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        log.append("a", Event(LARGE))
        connection, client = served(parts, log, since=log.position(0))
        assert connection.group is None
        assert parts.poller.watched == {connection.descriptor: True}
        log.append("a", Event("after"))
        sent = received(client)
        assert 0 < len(sent) < len(LARGE)
        while connection.frame:
            is_ready(connection, WRITABLE, fanout)
            sent += received(client)
        assert parts.poller.watched == {connection.descriptor: False}
        sent += received(client)
        assert data_in(sent) == [LARGE, "after"]
        assert connection.group is not None

    def test_who_is_ready_and_is_owed_nothing_is_sent_nothing(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, client = served(parts, log)
        parts.poller.watch_writable(connection.descriptor, True)
        is_ready(connection, WRITABLE, fanout)
        # It was in its group all the time, and was asked nothing.
        assert parts.poller.watched == {connection.descriptor: True}
        assert received(client) == b""

    def test_who_leaves_meanwhile_is_forgotten(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        log.append("a", Event(LARGE))
        connection, client = parts.connect(log, SETTINGS, since=log.position(0))
        story = told(connection)
        parts._welcome_all()
        ((_, size),) = story.sent
        went = connection.sent
        client.close()
        is_ready(connection, WRITABLE, fanout)
        assert len(fanout) == 0
        assert (story.ends, story.unsent) == (["left"], [size - went])

    def test_who_has_left_before_is_forgotten(
        self, log: Log, parts: Parts, fanout: Fanout, caplog: pytest.LogCaptureFixture
    ) -> None:
        log.append("a", Event("1"))
        connection, client = parts.connect(
            log, SETTINGS, since=log.position(0), chunked=True
        )
        story = told(connection)
        client.close()
        parts._welcome_all()
        assert (len(fanout), fanout.groups) == (0, {})
        assert story.ends == ["left"]
        assert caplog.text == ""  # Nobody tried to end its body.

    def test_a_step_says_whether_more_can_be_sent(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        pairs = [served(parts, log) for _ in range(4)]
        free, full, ended, gone = (connection for connection, _ in pairs)
        assert fanout.send_own(free, b"x") is True
        assert fanout.send_own(full, LARGE.encode()) is False
        ended.is_ended = True
        assert fanout.send_own(ended, b"x") is False
        pairs[-1][1].close()
        assert fanout.send_own(gone, b"x") is False
        assert list(fanout.connections.values()) == [free, full]

    @pytest.mark.parametrize("data", ["1", LARGE])
    def test_it_ends_with_the_end_of_its_channel(
        self, log: Log, parts: Parts, fanout: Fanout, data: str
    ) -> None:
        log.append("a", Event(data))
        log.end("a")
        connection, client = parts.connect(
            log, SETTINGS, since=log.position(0), chunked=True
        )
        story = told(connection)
        parts._welcome_all()
        sent = received(client)
        while connection.frame:
            assert not story.ends
            is_ready(connection, WRITABLE, fanout)
            sent += received(client)
        assert sent.endswith(LAST_CHUNK)
        assert story.ends == ["ended"]
        assert is_closed(client)
        assert fanout.groups == {}


class TestWhatClientsSend:
    def test_a_little_is_thrown_away(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, client = served(parts, log)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        is_ready(connection, READABLE, fanout)
        assert not is_closed(client)
        assert len(fanout) == 1

    def test_who_leaves_is_forgotten(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, client = served(parts, log)
        story = told(connection)
        client.shutdown(socket.SHUT_WR)
        is_ready(connection, READABLE, fanout)
        assert (story.ends, len(fanout)) == (["left"], 0)

    def test_who_talks_without_end_is_sent_off(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, client = served(parts, log)
        story = told(connection)
        connection.junk = MAX_JUNK
        client.send(b"x")
        is_ready(connection, READABLE, fanout)
        assert (story.ends, len(fanout)) == (["talkative"], 0)


class TestGroups:
    def test_all_of_a_group_get_the_same(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        clients = [served(parts, log, chunked=chunked)[1] for chunked in (False, True)]
        (group,) = fanout.groups.values()
        deliver(parts)
        assert group.sent_at == 0  # There was nothing.
        event = log.append("a", Event("1"))
        assert parts.news == [group]
        deliver(parts)
        frame = event.encode()
        assert [received(client) for client in clients] == [
            *(frame, b"%x\r\n%b\r\n" % (len(frame), frame)),
        ]
        assert (group.sent_at, group.named) == (NOW, event.id)

    def test_a_step_says_whether_there_is_more(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        _, client = served(parts, log)
        (group,) = fanout.groups.values()
        deliver(parts)
        assert fanout.deliver(group) is False
        for n in range(2):
            log.append("a", Event(f"{n} {A_PIECE}"))
        parts.news.clear()
        assert fanout.deliver(group) is True
        assert parts.news == [group]
        assert fanout.deliver(group) is False
        assert parts.news == [group]
        assert len(data_in(received(client))) == 2

    def test_all_pieces_can_be_sent_at_once(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        _, client = served(parts, log)
        for n in range(3):
            log.append("a", Event(f"{n} {A_PIECE}"))
        (group,) = fanout.groups.values()
        fanout.deliver_all(group)
        assert len(data_in(received(client))) == 3

    def test_nothing_is_sent_before_those_who_are_revoked_have_ended(
        self, log: Log, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (revoked, client), (_, other) = served(parts, log), served(parts, log)
        deliver(parts)
        monkeypatch.setattr(
            parts, "_end_revoked_of", lambda log: parts.fanout.end(revoked)
        )
        log.append("a", Event("secret"))
        deliver(parts)
        assert received(client) == b""
        assert data_in(received(other)) == ["secret"]

    def test_all_end_with_their_channel(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        pairs = [served(parts, log) for _ in range(2)]
        stories = [told(connection) for connection, _ in pairs]
        log.append("a", Event("last"))
        log.end("a")
        deliver(parts)
        for (_, client), story in zip(pairs, stories, strict=True):
            events = Decoder().feed(received(client))
            assert [event.type for event in events] == [None, "stream-end"]
            assert is_closed(client)
            assert story.ends == ["ended"]
        assert (len(fanout), fanout.groups, len(parts.places)) == (0, {}, 0)

    def test_when_the_last_has_left_the_log_tells_nobody(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        pairs = [served(parts, log, chunked=chunked) for chunked in (False, True)]
        deliver(parts)
        for connection, client in pairs:
            log.append("a", Event("1"))
            deliver(parts)
            assert received(client)
            fanout.remove(connection, properly=False)
        assert fanout.groups == {}
        log.append("a", Event("2"))
        assert parts.news == []

    def test_who_falls_behind_leaves_its_group_and_comes_back(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        (slow, client), (_, other) = served(parts, log), served(parts, log)
        deliver(parts)
        (group,) = fanout.groups.values()
        frame = log.append("a", Event("1")).encode()
        parts.news.clear()
        group.has_news = False
        log.read(group.cursor, BATCH_BYTES)
        slow.keep(frame, 4)
        fanout.fall_behind(slow, group)
        assert (slow.group, group.size) == (None, 1)
        assert slow.cursor is not group.cursor
        assert slow.cursor.id == group.cursor.id
        assert parts.poller.watched[slow.descriptor] is True
        log.append("a", Event("2"))
        deliver(parts)
        assert received(client) == b""
        is_ready(slow, WRITABLE, fanout)
        assert received(client).startswith(frame[4:])
        assert slow.group is group
        assert data_in(received(other)) == ["2"]


class TestStories:
    def test_a_group_is_counted_at_once_as_long_as_anything_is_told(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        served(parts, log)
        (connection, _), _ = parts.connect(log, SETTINGS), parts.connect(log, SETTINGS)
        story = told(connection)
        parts._welcome_all()
        deliver(parts)
        size = len(log.append("a", Event("1")).encode())
        deliver(parts)
        tally = story.tally
        assert tally
        assert tally.rounds == [(1, size, 3)]
        assert tally.in_flight == (0, 0)
        fanout.end(connection)
        assert story.tally is None

    def test_of_whom_nothing_is_told_nothing_is_counted(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        (told_of, _), (other, _) = (parts.connect(log, SETTINGS) for _ in range(2))
        told(told_of)
        parts._welcome_all()
        (group,) = fanout.groups.values()
        fanout.fall_behind(other, group)
        assert group.size == 1
        fanout.remove(other, properly=False)
        assert told_of.story.tally is group.tally  # type: ignore[union-attr]

    def test_who_falls_behind_was_sent_what_is_on_its_way(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, _ = parts.connect(log, SETTINGS)
        story = told(connection)
        parts._welcome_all()
        (group,) = fanout.groups.values()
        assert story.tally
        story.tally.in_flight = (3, 100)
        fanout.fall_behind(connection, group)
        assert story.sent == [(3, 100)]
        assert connection.group is None

    def test_a_story_that_begins_within_a_group_is_counted_by_nobody_else(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, _ = served(parts, log)
        story = told(connection)
        (group,) = fanout.groups.values()
        fanout.fall_behind(connection, group)
        assert story.sent == []


class TestLeaving:
    @pytest.mark.parametrize("is_proper", [False, True])
    def test_a_body_is_whole_only_where_it_ends_properly(
        self, log: Log, parts: Parts, fanout: Fanout, is_proper: bool
    ) -> None:
        connection, client = served(parts, log, chunked=True)
        story = told(connection)
        fanout.remove(connection, properly=is_proper)
        assert received(client) == (LAST_CHUNK if is_proper else b"")
        assert is_closed(client)
        assert (story.ends, story.unsent) == (["left"], [0])
        assert parts.poller.watched == {}
        assert (len(fanout), len(parts.places)) == (0, 0)
        assert parts.listeners.by_channel(log) == {}
        fanout.remove(connection, properly=is_proper)
        assert story.ends == ["left"]

    def test_an_end_is_proper(self, log: Log, parts: Parts, fanout: Fanout) -> None:
        connection, client = served(parts, log, chunked=True)
        story = told(connection)
        fanout.end(connection)
        assert received(client) == LAST_CHUNK
        assert story.ends == ["ended"]

    def test_whose_descriptor_is_another_s_by_now_leaves_that_alone(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, client = served(parts, log)
        later = stray_of(connection)
        fanout.connections[connection.descriptor] = later
        fanout.remove(connection, properly=True)
        assert fanout.connections == {connection.descriptor: later}
        assert not is_closed(client)
        assert len(parts.places) == 1
        assert connection.descriptor in parts.poller.watched

    def test_identities_are_no_longer_there(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        ann = Client("ann", None, 0.0)
        connection, _ = served(parts, log, client=ann)
        served(parts, log, client=ann)
        fanout.end(connection)
        assert parts.listeners.by_identity(log) == {"a": {"ann": 1}}

    def test_without_a_place_none_is_given_back(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        connection, client = served(parts, log)
        connection.place = None
        fanout.end(connection)
        assert is_closed(client)

    def test_what_fails_on_the_way_keeps_nobody(
        self,
        log: Log,
        parts: Parts,
        fanout: Fanout,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        connection, client = served(parts, log)
        story = told(connection)
        del parts.poller.watched[connection.descriptor]  # It was never registered.
        fanout.end(connection)
        assert is_closed(client)
        assert story.ends == ["ended"]
        assert caplog.text == ""
        other, _ = served(parts, log)
        story = told(other)
        parts.poller._sockets.pop(other.descriptor).close()

        def finish(descriptor: int, last: bytes = b"") -> None:
            raise OSError("Bad file descriptor")

        monkeypatch.setattr(parts.poller, "finish", finish)
        fanout.end(other)
        assert (len(fanout), story.ends) == (0, ["ended"])
        (record,) = caplog.records
        assert record.levelno >= logging.WARNING
        assert record.exc_info

    def test_where_the_hub_s_lock_cannot_be_had_nobody_is_closed(
        self,
        log: Log,
        parts: Parts,
        fanout: Fanout,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        class Held:
            def __enter__(self) -> None:
                raise Reentered

            def __exit__(self, *_: object) -> None:
                """It was never entered."""

        connection, client = served(parts, log)
        with monkeypatch.context() as context:
            context.setattr(fanout, "_lock", Held())
            with pytest.raises(Reentered):
                fanout.end(connection)
        assert not is_closed(client)
        fanout.end(connection)
        assert is_closed(client)


class TestFailures:
    def test_what_fails_costs_the_connection_that_it_was_for(
        self,
        log: Log,
        parts: Parts,
        fanout: Fanout,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (victim, client), (_, other) = (
            served(parts, log, chunked=True) for _ in range(2)
        )
        story = told(victim)
        fanout.guard(fail, victim)
        assert is_closed(client)
        assert not is_closed(other)
        assert story.ends == ["failed"]
        (record,) = caplog.records
        assert record.exc_info

    def test_what_fails_for_a_group_costs_its_connections(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        clients = [served(parts, log, channel, chunked=True)[1] for channel in "aab"]
        fanout.guard(fail, fanout.groups[log, ("a",)])
        sent = [received(client) for client in clients]
        assert sent == [b""] * 3  # No body was ended as if it was whole.
        assert [is_closed(client) for client in clients] == [True, True, False]

    def test_what_fails_for_an_audience_is_the_loop_s_affair(
        self, log: Log, parts: Parts, fanout: Fanout, caplog: pytest.LogCaptureFixture
    ) -> None:
        audience = Audience(Stream(log, "a"), parts.news.append)
        with pytest.raises(ZeroDivisionError):
            fanout.guard(fail, audience)
        assert caplog.text == ""

    def test_what_ends_the_process_is_not_kept_from_it(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        def stop(whom: object) -> None:
            raise SystemExit

        connection, client = served(parts, log)
        with pytest.raises(SystemExit):
            fanout.guard(stop, connection)
        assert is_closed(client)

    def test_after_a_failure_those_in_no_group_go_on_or_are_closed(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        pairs = {name: served(parts, log, chunked=True) for name in "abcde"}
        connections = {name: connection for name, (connection, _) in pairs.items()}
        in_group, waiting, sending, unregistered, idle = connections.values()
        (group,) = fanout.groups.values()
        for connection in (waiting, sending, unregistered, idle):
            fanout.leave_group(connection)
        group.waiting.append(waiting)
        for connection in (sending, unregistered):
            connection.keep(b"rest", 1)
        del parts.poller.watched[unregistered.descriptor]
        story = told(idle)
        fanout.look_for_strays()
        left = list(fanout.connections.values())
        assert left == [in_group, waiting, sending]
        assert parts.poller.watched == {
            **{in_group.descriptor: False, waiting.descriptor: False},
            sending.descriptor: True,
        }
        assert story.ends == ["failed"]
        assert received(pairs["e"][1]) == b""

    def test_a_failure_lets_strays_be_looked_for(
        self, log: Log, parts: Parts, fanout: Fanout
    ) -> None:
        (stray, client), (victim, _) = (served(parts, log) for _ in range(2))
        fanout.leave_group(stray)
        fanout.guard(fail, victim)
        assert is_closed(client)

    def test_all_can_be_sent_off(self, log: Log, parts: Parts, fanout: Fanout) -> None:
        connection, client = served(parts, log, chunked=True)
        story = told(connection)
        newcomer, other = parts.connect(log, SETTINGS, chunked=True)
        told(newcomer)
        fanout.send_all_off()
        assert [received(client), received(other)] == [b"", b""]
        assert is_closed(client)
        assert is_closed(other)
        assert story.ends == newcomer.story.ends == ["failed"]  # type: ignore[union-attr]
        assert (len(fanout), len(parts.places)) == (0, 0)


def test_a_child_closes_what_is_its_parent_s(
    log: Log, parts: Parts, fanout: Fanout
) -> None:
    pairs = [served(parts, log), parts.connect(log, SETTINGS)]
    for connection, _ in pairs:
        parts.poller._sockets.pop(connection.descriptor).detach()
    fanout.abandon()
    assert all(is_closed(client) for _, client in pairs)
    fanout.connections.clear()
