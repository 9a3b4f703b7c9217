"""Events that carry the context of a trace: they are events as any other, the stores
keep the context, and no client is sent it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flask_sse_lite import Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.history.cursor import Entry
from flask_sse_lite.settings import Settings
from flask_sse_lite.traced import TracedEvent, checked_trace, trace_of, traced, untold

from .redis_servers import redis_server

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

PLAIN = Event("hello", type="said", id="7", retry=10, channel="a")


def test_a_traced_event_is_the_same_event() -> None:
    event = traced(PLAIN, TRACE)
    assert trace_of(event) == TRACE
    assert event == PLAIN
    assert PLAIN in [event]
    assert event in [PLAIN]
    assert event != Event("hello")
    assert hash(event) == hash(PLAIN)
    assert {event} == {PLAIN}


def test_a_client_is_sent_nothing_of_the_trace() -> None:
    event = traced(PLAIN, TRACE)
    assert event.encode() == PLAIN.encode()
    assert event.size == PLAIN.size
    assert str(event) == str(PLAIN)


def test_an_event_that_nobody_traces_is_what_it_was() -> None:
    assert traced(PLAIN, None) is PLAIN
    assert type(Event("x").published("a", "1")) is Event
    assert trace_of(PLAIN) is None
    assert untold(PLAIN) is None
    assert untold(None) is None


def test_a_published_event_carries_the_trace_on() -> None:
    event = traced(Event("hello"), TRACE).published("a", "5")
    assert event == Event("hello", id="5", channel="a")
    assert trace_of(event) == TRACE


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_is_traced_as_well(again: object) -> None:
    assert callable(again)
    event = again(traced(PLAIN, TRACE))
    assert event == PLAIN
    assert trace_of(event) == TRACE


def test_an_event_made_of_its_class_alone_has_no_trace() -> None:
    # dataclasses.replace makes one.
    assert trace_of(TracedEvent("hello").published("a", "1")) is None


def test_a_delivery_is_told_once() -> None:
    event = traced(PLAIN, TRACE)
    assert untold(event) == TRACE
    assert untold(event) is None


@pytest.mark.parametrize(
    "value", [None, 7, b"x", "", TRACE.upper(), TRACE + "\n", "01" + TRACE, TRACE[:-1]]
)
def test_what_is_no_context_is_ignored(value: object) -> None:
    assert checked_trace(value) is None
    assert checked_trace(TRACE) == TRACE


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "redis":
        with redis_server() as server:
            yield server.url
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/events.db"
    else:
        yield "memory://"


def entries(url: str, *events: Event) -> list[Entry]:
    """What a reader of the channel is given of these events, which another process
    publishes where there can be one."""
    settings = Settings.read({"SSE_URL": url})
    with closing(connect(settings)) as broker:
        broker.want(["a"])
        cursor = broker.log.cursor(["a"])
        with closing(connect(settings)) as other:
            publisher = other if broker.is_shared else broker
            for event in events:
                publisher.publish("a", event)
            broker.want(["a"], fresh=True)
        return broker.log.read(cursor, 10**6).entries


def test_the_context_travels_with_the_event_and_with_no_other(url: str) -> None:
    found = entries(url, Event("1"), traced(Event("2"), TRACE), Event("3"))
    events = [entry.event for entry in found]
    assert [event and event.data for event in events] == ["1", "2", "3"]
    assert [event and trace_of(event) for event in events] == [None, TRACE, None]
    assert all(event and TRACE[3:35] not in str(event) for event in events)


def test_a_context_that_is_none_costs_nobody_the_event(url: str) -> None:
    # A later release can write another version of the format.
    (entry,) = entries(url, traced(Event("1"), "another"))
    assert entry.event
    assert entry.event.data == "1"
