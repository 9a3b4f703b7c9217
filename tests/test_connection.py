"""A connection that was taken over: how its bytes are framed and sent, what its client
may send, how it ends; and the group that it reads in."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.fed import FedLog
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.connection import (
    MAX_JUNK,
    PIECE,
    Connection,
    Group,
    framed,
)
from flask_sse_lite.hub.readers import Readers
from flask_sse_lite.settings import Settings

SETTINGS = Settings.read({})

OLD, NEW = "0123456789abcdef", "fedcba9876543210"

ALL = 1 << 30


class Socket:
    """A poller that sends to nobody.

    :param rooms: for how many bytes there is room at each call; -1 where the call must
        come back later.
    """

    def __init__(self, *rooms: int) -> None:
        self._rooms = iter(rooms)
        self.sent = b""
        #: How much it was given at each call.
        self.given: list[int] = []
        self.finished: list[tuple[int, bytes]] = []

    def send(self, descriptor: int, data: bytes) -> int:
        self.given.append(len(data))
        room = next(self._rooms)
        if room < 0:
            raise BlockingIOError
        self.sent += data[:room]
        return min(room, len(data))

    def finish(self, descriptor: int, last: bytes = b"") -> None:
        self.finished.append((descriptor, last))


def nobody(readers: Readers) -> None:
    """The hub that is told of news."""


def poller(*rooms: int) -> Any:
    return Socket(*rooms)


@pytest.fixture
def log() -> Log:
    return Log(history=9, age=99, epoch=OLD)


def make(log: Log, descriptor: int = 7, *, chunked: bool = False) -> Connection:
    return Connection(descriptor, log.cursor(["a"]), log, SETTINGS, chunked=chunked)


@pytest.fixture
def connection(log: Log) -> Connection:
    return make(log)


def test_only_a_chunked_body_is_framed() -> None:
    assert framed(b"data: 1\n\n", chunked=False) == b"data: 1\n\n"
    assert framed(b"data: 1234567\n\n", chunked=True) == b"f\r\ndata: 1234567\n\n\r\n"


def test_a_new_one_owes_nothing_and_never_expires(connection: Connection) -> None:
    assert (connection.frame, connection.is_ended) == (b"", False)
    assert (connection.expires, connection.junk) == (0, 0)


class TestSending:
    def test_what_fits_goes_at_once(self, connection: Connection) -> None:
        sock = poller(9)
        assert connection.send(sock, b"data: 1\n\n") is True
        assert sock.sent == b"data: 1\n\n"
        assert connection.frame == b""

    @pytest.mark.parametrize("room", [4, -1])
    def test_the_rest_goes_when_there_is_room(
        self, connection: Connection, room: int
    ) -> None:
        sock = poller(room, 2, -1, 100)
        assert connection.send(sock, b"data: 1\n\n") is False
        assert connection.flush(sock) is False
        assert connection.flush(sock) is True
        assert sock.sent == b"data: 1\n\n"
        assert connection.frame == b""
        assert connection.flush(sock) is True

    def test_the_system_is_given_a_piece_at_a_time(
        self, connection: Connection
    ) -> None:
        frame = bytes(range(256)) * (PIECE // 128) + b"end"
        sock = poller(-1, PIECE, 5, PIECE)
        assert connection.send(sock, frame) is False
        assert connection.flush(sock) is True
        assert sock.sent == frame
        assert sock.given == [len(frame), PIECE, PIECE, PIECE - 2]

    def test_whose_client_is_gone_is_told_so(self, connection: Connection) -> None:
        class Gone(Socket):
            def send(self, descriptor: int, data: bytes) -> int:
                raise BrokenPipeError

        gone: Any = Gone()
        connection.keep(b"rest", 1)
        with pytest.raises(BrokenPipeError):
            connection.send(gone, b"x")
        with pytest.raises(BrokenPipeError):
            connection.flush(gone)


class TestWhatTheClientSends:
    @pytest.fixture
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        served, client = socket.socketpair()
        served.setblocking(False)
        with served, client:
            yield served, client

    def test_it_is_thrown_away_up_to_a_bound(
        self, log: Log, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        served, client = pair
        connection = make(log, served.fileno())
        assert connection.read() is True  # There is nothing.
        client.send(b"xy")
        assert connection.read() is True
        assert connection.junk == 2
        client.send(b"x")
        connection.junk = MAX_JUNK - 1
        assert connection.read() is True
        assert connection.is_talkative is False
        client.send(b"x")
        assert connection.read() is False
        assert connection.is_talkative is True

    def test_who_has_left_is_no_longer_there(
        self, log: Log, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        served, client = pair
        connection = make(log, served.fileno())
        client.close()
        assert connection.read() is False
        assert connection.is_talkative is False

    def test_nor_is_who_was_reset(self, log: Log) -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb"), os.fdopen(writing, "wb"):
            assert make(log, writing).read() is False


@pytest.mark.parametrize(
    ("properly", "chunked", "frame", "last"),
    [
        (True, True, b"", b"0\r\n\r\n"),
        (False, True, b"", b""),
        (True, False, b"", b""),
        # Behind a part of a frame, a truncated stream would look whole.
        (True, True, b"rest", b""),
    ],
)
def test_only_a_whole_body_that_is_chunked_has_a_last_chunk(
    log: Log, properly: bool, chunked: bool, frame: bytes, last: bytes
) -> None:
    connection = make(log, 7, chunked=chunked)
    connection.keep(frame, 0)
    sock = poller()
    connection.close(sock, properly=properly)
    assert sock.finished == [(7, last)]


class TestGroup:
    def test_its_members_are_counted_however_they_are_framed(self, log: Log) -> None:
        one, other = make(log, 7), make(log, 8, chunked=True)
        group = Group(one, nobody)
        assert (group.size, group.connections()) == (0, [])
        assert (group.log, group.channels) == (log, ("a",))
        assert group.cursor is one.cursor
        assert group.named == one.cursor.id
        for connection in (one, other):
            group.members[connection.chunked][connection.descriptor] = connection
        assert (group.size, group.connections()) == (2, [one, other])

    def test_it_is_behind_who_has_read_more(self, log: Log) -> None:
        group = Group(make(log), nobody)
        here = log.cursor(["a"])
        assert group.is_behind(here) is False
        log.append("a", Event("1"))
        ahead = log.cursor(["a"])
        assert group.is_behind(ahead) is True
        log.read(group.cursor, ALL)
        assert group.is_behind(ahead) is False
        assert group.is_behind(here) is False

    def test_where_the_log_has_begun_anew_the_group_has_read_nothing(self) -> None:
        log = FedLog()
        log.restart(OLD, 5, {}, history=9, age=99)
        group, stranger = Group(make(log), nobody), log.cursor(["a"])
        stranger.position = 9
        log.restart(NEW, 3, {}, history=9, age=99)
        assert group.is_behind(log.cursor(["a"])) is True
        assert group.is_behind(stranger) is True
        log.read(group.cursor, ALL)
        assert group.is_behind(stranger) is False
