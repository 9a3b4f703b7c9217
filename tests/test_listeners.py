"""Who listens: how a hub's streams are found and counted, by channel and identity."""

from __future__ import annotations

import pytest

from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.client import Client
from flask_sse_lite.hub.listeners import Listeners

from .hub_parts import Stream

ANN, BOB = Client("ann", None, 0.0), Client("bob", None, 0.0)
ONLOOKER = Client("ann", None, 0.0, is_onlooker=True)


@pytest.fixture
def log() -> Log:
    return Log(history=9, age=9)


@pytest.fixture
def listeners() -> Listeners:
    return Listeners()


def come(listeners: Listeners, stream: Stream, client: Client | None = None) -> Stream:
    if client:
        stream.client = client
    listeners.add(stream)
    return stream


def test_a_channel_has_as_many_as_came_and_did_not_leave(
    log: Log, listeners: Listeners
) -> None:
    both = come(listeners, Stream(log, "a", "b"))
    one = come(listeners, Stream(log, "a"))
    assert listeners.by_channel(log) == {"a": 2, "b": 1}
    assert [listeners.count(log, name) for name in "abc"] == [2, 1, 0]
    listeners.discard(both)
    assert listeners.by_channel(log) == {"a": 1}
    for _ in range(2):
        listeners.discard(one)
    assert listeners.by_channel(log) == {}
    assert len(listeners) == 0


def test_an_identity_has_so_many_on_each_channel(
    log: Log, listeners: Listeners
) -> None:
    come(listeners, Stream(log, "a"))
    ann = come(listeners, Stream(log, "a", "b"), ANN)
    come(listeners, Stream(log, "a"), ANN)
    bob = come(listeners, Stream(log, "b"), BOB)
    assert listeners.by_identity(log) == {"a": {"ann": 2}, "b": {"ann": 1, "bob": 1}}
    for stream in (ann, bob):
        listeners.discard(stream)
    assert listeners.by_identity(log) == {"a": {"ann": 1}}


def test_nobody_is_told_of_an_onlooker_who_is_found_all_the_same(
    log: Log, listeners: Listeners
) -> None:
    stream = come(listeners, Stream(log, "a"), ONLOOKER)
    assert listeners.by_identity(log) == {}
    assert listeners.by_channel(log) == {"a": 1}
    assert listeners.of(log, ["ann"], []) == [stream]
    come(listeners, Stream(log, "a"), ANN)
    assert listeners.by_identity(log) == {"a": {"ann": 1}}


def test_each_is_found_once_by_its_identity_and_its_channels(
    log: Log, listeners: Listeners
) -> None:
    ann = come(listeners, Stream(log, "a", "b"), ANN)
    bob = come(listeners, Stream(log, "b"), BOB)
    nobody = come(listeners, Stream(log, "c"))
    assert listeners.of(log, ["ann", "cid"], []) == [ann]
    assert listeners.of(log, [], ["b"]) == [ann, bob]
    assert listeners.of(log, ["ann"], ["a", "b", "d"]) == [ann, bob]
    assert listeners.of_log(log) == [ann, bob, nobody]
    listeners.discard(ann)
    assert listeners.of(log, ["ann"], ["a", "b"]) == [bob]


def test_logs_have_listeners_of_their_own(log: Log, listeners: Listeners) -> None:
    other = Log(history=9, age=9)
    ann = come(listeners, Stream(log), ANN)
    come(listeners, Stream(other, "a", "b"), ANN)
    assert listeners.logs() == {log, other}
    assert listeners.of(log, ["ann"], ["a"]) == listeners.of_log(log) == [ann]
    assert listeners.count(log, "a") == 1
    assert listeners.by_channel(log) == {"a": 1}
    assert listeners.by_identity(log) == {"a": {"ann": 1}}
    listeners.discard(ann)
    assert listeners.logs() == {other}
