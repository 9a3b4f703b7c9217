"""messages and position: a channel's events on the server itself."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from flask import Flask

from flask_sse_lite import SSE, Event, InvalidValue
from flask_sse_lite.testing import read_events


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    with app.app_context():
        yield


#: Seconds that anything may take that does not fail.
PATIENCE = 10.0


def watchers(app: Flask, channel: str) -> int:
    """How many readers wait for news of a channel."""
    known = app.extensions["sse"].log._channels.get(channel)
    return len(known.watchers) if known else 0


def rest(messages: Iterator[Event]) -> list[str]:
    """Each event's data, or the type where it is one of ours."""
    return [
        event.type if event.type and event.type.startswith("stream-") else event.data
        for event in messages
    ]


def test_it_gives_events_as_they_were_published(sse: SSE) -> None:
    messages = sse.messages("room", timeout=PATIENCE)
    published = sse.publish({"a": 1}, type="greeting", retry=5, channel="room")
    event = next(messages)
    assert event == published
    assert (event.type, event.json, event.channel) == ("greeting", {"a": 1}, "room")


def test_the_default_channel_is_that_of_publish(sse: SSE) -> None:
    messages = sse.messages(timeout=PATIENCE)
    sse.publish("hello")
    assert next(messages).data == "hello"


def test_it_subscribes_when_it_is_called(sse: SSE) -> None:
    sse.publish("before", channel="room")
    messages = sse.messages("room", timeout=PATIENCE)
    sse.publish("between", channel="room")
    sse.publish("elsewhere", channel="other")
    assert next(messages).data == "between"


def test_a_waiting_reader_is_woken(app: Flask, sse: SSE) -> None:
    got: list[str] = []

    def read() -> None:
        got.extend(event.data for event in islice(messages, 2))

    messages = sse.messages("room", timeout=PATIENCE)
    reader = threading.Thread(target=read)
    reader.start()
    begun = time.monotonic()
    while not watchers(app, "room"):
        assert time.monotonic() < begun + PATIENCE
    sse.publish("0", channel="room")
    sse.publish("1", channel="room")
    reader.join()
    assert got == ["0", "1"]


def test_it_may_be_read_after_the_context_has_ended(sse: SSE) -> None:
    app = Flask("another")
    sse.init_app(app)
    with app.app_context():
        messages = sse.messages(timeout=PATIENCE)
        sse.publish("hello")
    assert next(messages).data == "hello"


# Since


def test_since_an_id_gives_what_came_behind_it(sse: SSE) -> None:
    events = [sse.publish(str(number)) for number in range(4)]
    messages = sse.messages(since=events[1].id, timeout=0.01)
    assert rest(messages) == ["2", "3"]


def test_since_a_position_gives_what_came_after_it(sse: SSE) -> None:
    sse.publish("before")
    position = sse.position()
    sse.publish("after")
    assert rest(sse.messages(since=position, timeout=0.01)) == ["after"]


def test_since_an_unknown_id_is_a_gap_and_what_is_retained(sse: SSE) -> None:
    sse.publish("0")
    gap, event = sse.messages(since="unknown", timeout=0.01)
    assert gap.type == "stream-gap"
    assert gap.json == {"since": "unknown", "channels": ["sse"]}
    assert event.data == "0"


def test_a_reader_that_is_outrun_is_told_so(app: Flask, sse: SSE) -> None:
    app.config["SSE_HISTORY"] = 2
    messages = sse.messages(timeout=0.01)
    for number in range(5):
        sse.publish(str(number))
    assert rest(messages) == ["stream-gap", "3", "4"]


# The end


def test_a_timeout_ends_it_after_silence(sse: SSE) -> None:
    messages = sse.messages(timeout=0.01)
    sse.publish("hello")
    assert rest(messages) == ["hello"]


def test_a_timeout_of_0_gives_what_is_there(sse: SSE) -> None:
    messages = sse.messages(timeout=0)
    sse.publish("hello")
    assert rest(messages) == ["hello"]
    assert rest(sse.messages(timeout=0)) == []


def test_it_ends_with_its_channel(sse: SSE) -> None:
    messages = sse.messages("room", timeout=PATIENCE)
    sse.publish("last", channel="room")
    sse.close("room")
    sse.publish("too late", channel="room")
    assert rest(messages) == ["last"]


def test_a_waiting_reader_is_told_the_end(app: Flask, sse: SSE) -> None:
    messages = sse.messages("room", timeout=PATIENCE)
    reader = threading.Thread(target=rest, args=[messages])
    reader.start()
    begun = time.monotonic()
    while not watchers(app, "room"):
        assert time.monotonic() < begun + PATIENCE
    sse.close("room")
    reader.join(PATIENCE)
    assert not reader.is_alive()


def test_of_a_closed_channel_it_gives_what_was_missed(sse: SSE) -> None:
    events = [sse.publish(str(number)) for number in range(3)]
    sse.close()
    assert rest(sse.messages(since=events[0].id, timeout=PATIENCE)) == ["1", "2"]


def test_of_a_channel_that_has_ended_it_ends_at_once(sse: SSE) -> None:
    sse.publish("old")
    sse.close()
    begun = time.monotonic()
    assert rest(sse.messages(timeout=3)) == []
    assert time.monotonic() < begun + 3


def test_a_reader_that_stops_leaves_nothing_behind(app: Flask, sse: SSE) -> None:
    messages = sse.messages("room", timeout=0)
    sse.publish("0", channel="room")
    assert next(messages).data == "0"
    assert watchers(app, "room") == 1
    messages.close()  # type: ignore[attr-defined]
    assert watchers(app, "room") == 0
    rest(sse.messages("room", timeout=0))
    assert watchers(app, "room") == 0


def test_a_reader_that_never_starts_leaves_nothing_behind(app: Flask, sse: SSE) -> None:
    sse.messages("room")
    assert watchers(app, "room") == 0


# What is refused


@pytest.mark.parametrize(
    "bad", [{"since": 5}, {"timeout": math.inf}, {"timeout": -1}, {"timeout": "1"}]
)
def test_a_bad_argument_is_an_error_when_it_is_called(
    sse: SSE, bad: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValue):
        sse.messages(**bad)


@pytest.mark.parametrize("bad", ["", "a\nb", "$run", ["a"], None, True], ids=repr)
def test_a_bad_channel_is_an_error_when_it_is_called(sse: SSE, bad: Any) -> None:
    with pytest.raises(InvalidValue):
        sse.messages(bad)


@pytest.mark.parametrize("bad", ["", "a\nb", "$run", ["a"], None, True], ids=repr)
def test_a_bad_channel_cannot_be_closed(sse: SSE, bad: Any) -> None:
    before = sse.position()
    with pytest.raises(InvalidValue):
        sse.close(bad)
    assert sse.position() == before


# Position


def test_the_position_is_that_of_the_newest_event_of_any_channel(sse: SSE) -> None:
    beginning = sse.position()
    assert sse.position() == beginning
    assert sse.publish("a", channel="a").id == sse.position()
    assert sse.publish("b", channel="b").id == sse.position() != beginning


def test_a_page_follows_the_state_that_it_shows(app: Flask, sse: SSE) -> None:
    def render() -> str:
        position = sse.position()
        sse.publish("changed while the page is made")
        return f"/stream?last_event_id={position}"

    url = render()
    sse.publish("changed before the page subscribes")
    response = app.test_client().get(url)
    sse.publish("changed later")
    assert rest(iter(read_events(response, count=3))) == [
        "changed while the page is made",
        "changed before the page subscribes",
        "changed later",
    ]
