"""What an operator is shown of open streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import inspected as module
from flask_sse_lite.hub.client import Client
from flask_sse_lite.hub.connection import Connection
from flask_sse_lite.hub.inspected import OpenStream, is_named, open_streams
from flask_sse_lite.hub.iterated import IteratedStream
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED

from .hub_parts import Parts, Stream, hub_parts

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="connections are taken over on Linux only"
)

SETTINGS = Settings.read({})

NOW = 1000.0


@pytest.fixture
def log() -> Log:
    return Log(history=99, age=9999)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: NOW))
    with hub_parts() as parts:
        yield parts


def shown(parts: Parts, log: Log, most: int = 9) -> list[OpenStream]:
    return open_streams(log, most, parts.lock, parts.audiences, parts.fanout)


def connect(parts: Parts, log: Log, identity: str = "ann") -> Connection:
    connection, _ = parts.connect(log, SETTINGS, client=Client(identity, None, NOW - 5))
    parts._welcome_all()
    return connection


def iterate(parts: Parts, log: Log) -> IteratedStream:
    stream = IteratedStream(
        log,
        log.cursor(["a", "b"]),
        SETTINGS,
        end=threading.Lock(),
        program=None,
        sock=None,
        client=Client("bob", None, NOW + 1),
    )
    stream.path_reason = "tls"
    with parts.lock:
        parts.audiences.join(stream)
    return stream


def test_a_connection_is_shown_as_it_is(log: Log, parts: Parts) -> None:
    connect(parts, log)
    for text in "12":
        log.append("a", Event(text))
    (stream,) = shown(parts, log)
    assert stream[1:] == ("handed off", None, ("a",), "ann", 5.0, 2, 0, None)


def test_so_is_a_stream_that_its_server_iterates(log: Log, parts: Parts) -> None:
    iterate(parts, log)
    log.append("b", Event("1"))
    (stream,) = shown(parts, log)
    # Its client was let in by a clock that is ahead.
    assert stream[1:] == ("iterated", "tls", ("a", "b"), "bob", 0.0, 1, 0, None)


def test_what_waits_is_what_we_hold_and_what_the_system_holds(
    log: Log, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(parts, log)
    monkeypatch.setattr(module, "on_the_wire", lambda descriptor: (100, 7))
    connection.sent = 3  # Of a frame that has gone.
    (stream,) = shown(parts, log)
    assert (stream.waiting, stream.taken) == (100, 7)
    connection.keep(b"12345678", 3)
    (stream,) = shown(parts, log)
    assert stream.waiting == 105


def test_only_some_are_shown_and_those_that_are_behind_first(
    log: Log, parts: Parts
) -> None:
    first, _, slow = (connect(parts, log, name) for name in ("1", "2", "slow"))
    assert first.group
    parts.fanout.fall_behind(slow, first.group)
    iterate(parts, log)
    other = Log(history=9, age=99)
    connect(parts, other)
    iterate(parts, other)
    with parts.lock:
        parts.audiences.join(Stream(log, "a"))  # A stand-in, of which nothing is known.
    identities = [stream.identity for stream in shown(parts, log)]
    assert identities == ["slow", "1", "2", "bob"]
    for most in (1, 2, 3):
        found = [stream.identity for stream in shown(parts, log, most)]
        assert found == identities[:most]
    assert len(shown(parts, other)) == 2


def test_a_stream_is_found_by_its_name(log: Log, parts: Parts) -> None:
    streams = [connect(parts, log), connect(parts, log), iterate(parts, log)]
    names = [stream.name for stream in shown(parts, log)]
    assert len(set(names)) == 3
    for name in names:
        assert [is_named(log, name, stream) for stream in streams].count(True) == 1
        assert not is_named(Log(history=9, age=99), name, streams[0])
        assert not is_named(log, name, Stream(log, "a"))
        assert is_named(log, name, object()) is False
