"""publish: what it takes, what a client gets of it, and what it refuses as a whole."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request
from flask.json.provider import DefaultJSONProvider

from flask_sse_lite import (
    SSE,
    Event,
    EventTooLarge,
    InvalidType,
    InvalidValue,
    SSEError,
)
from flask_sse_lite.testing import published, read_events


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    with app.app_context():
        yield


EAST = datetime.timezone(datetime.timedelta(hours=2))


@dataclasses.dataclass
class Point:
    x: int
    y: int


def received(app: Flask, sse: SSE, *args: Any, **options: Any) -> Event:
    """What a client of the channel "sse" gets of a publish with these arguments."""
    response = app.test_client().get("/stream")
    sse.publish(*args, **options)
    (event,) = read_events(response, count=1)
    return event


# Data


def test_text_arrives_as_it_is(app: Flask, sse: SSE) -> None:
    texts = [
        "hello",
        "",
        " space in front and behind ",
        "two\nlines",
        "a last line break\n",
        "\n\n",
        "no\u2028line\u0085break\x0c",
        "ünïcödé 🦄",
        "data: id: :",
    ]
    response = app.test_client().get("/stream")
    for text in texts:
        sse.publish(text)
    events = read_events(response, count=len(texts))
    assert [event.data for event in events] == texts


def test_bytes_arrive_as_the_utf_8_that_they_are(app: Flask, sse: SSE) -> None:
    assert received(app, sse, "ünïcödé".encode()).data == "ünïcödé"


def test_anything_else_arrives_as_json(app: Flask, sse: SSE) -> None:
    items = [{"a": [1, None, True]}, [1, "two"], 5, 0.5, None, True]
    response = app.test_client().get("/stream")
    for item in items:
        sse.publish(item)
    events = read_events(response, count=len(items))
    assert [event.json for event in events] == items


@pytest.mark.parametrize(
    "data",
    [
        datetime.date(2030, 1, 2),
        datetime.datetime(2030, 1, 2, 3, 4, tzinfo=EAST),
        uuid.UUID(int=5),
        decimal.Decimal("1.10"),
        Point(1, 2),
    ],
    ids=lambda data: type(data).__name__,
)
def test_json_is_made_as_jsonify_makes_it(app: Flask, sse: SSE, data: object) -> None:
    with app.test_request_context():
        expected = jsonify({"value": data}).json
    assert sse.publish({"value": data}).json == expected
    assert sse.publish(data).json == expected["value"]


def test_json_is_made_by_the_application_s_provider(app: Flask, sse: SSE) -> None:
    class Provider(DefaultJSONProvider):
        def dumps(self, obj: Any, **options: Any) -> str:
            return json.dumps(obj, default=lambda value: f"<{type(value).__name__}>")

    app.json = Provider(app)
    assert sse.publish(Point(1, 2)).json == "<Point>"


def test_json_is_on_one_line(app: Flask, sse: SSE) -> None:
    data = {"text": "two\nlines", "list": [1, 2]}
    assert str(sse.publish(data)).count("data:") == 1


# Fields


def test_the_fields_arrive(app: Flask, sse: SSE) -> None:
    event = received(app, sse, "hello", type="greeting", id="a", retry=500)
    assert (event.data, event.type, event.id, event.retry) == (
        "hello",
        "greeting",
        "a",
        500,
    )


def test_the_fields_may_be_given_by_position(app: Flask, sse: SSE) -> None:
    with published(app) as events:
        sse.publish("hello", "greeting", 7, 0, "room")
    (event,) = events
    assert (event.type, event.id, event.retry, event.channel) == (
        "greeting",
        "7",
        0,
        "room",
    )


def test_an_event_is_published_with_its_own_fields(app: Flask, sse: SSE) -> None:
    event = received(app, sse, Event("hello", "greeting", "a", 500))
    assert (event.data, event.type, event.id, event.retry) == (
        "hello",
        "greeting",
        "a",
        500,
    )


@pytest.mark.parametrize("field", [{"type": "a"}, {"id": "a"}, {"retry": 5}])
def test_an_event_takes_no_other_fields(sse: SSE, field: dict[str, Any]) -> None:
    with pytest.raises(InvalidType, match="its own type, id and retry"):
        sse.publish(Event("hello"), **field)


def test_an_event_may_be_published_again(app: Flask, sse: SSE) -> None:
    event = Event("hello")
    first, second = sse.publish(event), sse.publish(event)
    assert event.id is None
    assert first.id != second.id


def test_the_returned_event_is_what_the_clients_get(app: Flask, sse: SSE) -> None:
    response = app.test_client().get("/stream")
    returned = sse.publish({"a": 1}, type="greeting")
    (event,) = read_events(response, count=1)
    assert returned.id
    assert str(returned) == str(event)
    assert returned.channel == "sse"


def test_ids_are_positions_that_count_over_all_channels(sse: SSE) -> None:
    ids = [sse.publish("x", channel=name).id or "" for name in ("a", "b", "a")]
    epochs = {id.partition("-")[0] for id in ids}
    numbers = [int(id.partition("-")[2]) for id in ids]
    assert len(epochs) == 1
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]


# Channels


def test_several_channels_get_an_event_each(app: Flask, sse: SSE) -> None:
    with published(app) as events:
        last = sse.publish("hello", channel=["a", "b", "a"])
    assert [(event.channel, event.data) for event in events] == [
        ("a", "hello"),
        ("b", "hello"),
    ]
    assert events[0].id != events[1].id
    assert last.id == events[1].id


def test_channels_may_be_any_iterable(app: Flask, sse: SSE) -> None:
    with published(app) as events:
        sse.publish("hello", channel=(f"room.{number}" for number in range(3)))
    assert [event.channel for event in events] == ["room.0", "room.1", "room.2"]


def test_one_event_goes_to_several_channels(app: Flask, sse: SSE) -> None:
    with published(app) as events:
        sse.publish(Event("hello", "greeting"), channel=["a", "b"])
    assert [(event.channel, event.type) for event in events] == [
        ("a", "greeting"),
        ("b", "greeting"),
    ]


def test_a_client_gets_its_own_channel_only(app: Flask, sse: SSE) -> None:
    response = app.test_client().get("/stream")
    sse.publish("not for it", channel="other")
    sse.publish("for it")
    assert [event.data for event in read_events(response, count=1)] == ["for it"]


# An event that was published before, so that it has a channel and an id


def test_an_event_passed_on_to_another_channel_is_resumed_from_once(
    app: Flask, sse: SSE
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["copy"]
    original = sse.publish("hello", channel="original")
    copy = sse.publish(original, channel="copy")
    sse.publish("news", channel="copy")
    response = app.test_client().get(
        "/stream?channel=copy", headers={"Last-Event-ID": copy.id or ""}
    )
    assert [event.data for event in read_events(response, count=1)] == ["news"]


# What is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (object(), "'object'.*JSON"),
        ({"a": {1, 2}}, "'dict'.*JSON"),
        (b"\xff", "UTF-8"),
        ("a lone surrogate \udc80", "surrogate"),
    ],
    ids=["object", "set", "bytes", "surrogate"],
)
def test_bad_data_is_an_error_and_nothing_is_sent(
    app: Flask, sse: SSE, data: object, words: str
) -> None:
    before = sse.position()
    with published(app) as events, pytest.raises(SSEError, match=words):
        sse.publish(data, channel=["a", "b"])
    assert events == []
    assert sse.position() == before


def test_data_that_contains_itself_is_an_error(sse: SSE) -> None:
    data: list[Any] = []
    data.append(data)
    with pytest.raises(InvalidType, match="JSON"):
        sse.publish(data)


@pytest.mark.parametrize(
    "field",
    [
        {"type": "two\nlines"},
        {"type": "stream-end"},
        {"type": True},
        {"id": "a\rb"},
        {"id": "a\0b"},
        {"id": ""},
        {"id": True},
        {"retry": -1},
        {"retry": True},
        {"retry": "soon"},
    ],
    ids=str,
)
def test_a_bad_field_is_an_error_that_names_it_and_nothing_is_sent(
    sse: SSE, field: dict[str, Any]
) -> None:
    before = sse.position()
    (name,) = field
    with pytest.raises(InvalidValue, match=f"event's {name}"):
        sse.publish("hello", **field)
    assert sse.position() == before


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a" * 256,
        "a\nb",
        "a\x7f",
        "\udc80",
        "$run",
        None,
        True,
        b"bytes",
        ["nested"],
    ],
    ids=repr,
)
def test_a_bad_channel_is_an_error_and_the_good_ones_get_nothing(
    sse: SSE, bad: Any
) -> None:
    before = sse.position()
    with pytest.raises(InvalidValue):
        sse.publish("hello", channel=["good", bad])
    assert sse.position() == before


@pytest.mark.parametrize("bad", [None, True, b"bytes", {"a": 1}, []], ids=repr)
def test_what_is_no_channel_nor_several_is_an_error(sse: SSE, bad: Any) -> None:
    before = sse.position()
    with pytest.raises(InvalidValue, match=r"[Cc]hannel"):
        sse.publish("hello", channel=bad)
    assert sse.position() == before


def test_every_error_is_of_one_base_class_and_a_builtin_too(sse: SSE) -> None:
    with pytest.raises(ValueError, match="not empty") as of_value:
        sse.publish("hello", id="")
    with pytest.raises(TypeError, match="whole number") as of_type:
        sse.publish("hello", retry=0.5)  # type: ignore[arg-type]
    assert isinstance(of_value.value, SSEError)
    assert isinstance(of_type.value, SSEError)


# Size


def test_what_is_too_large_is_refused_and_nothing_is_sent(app: Flask, sse: SSE) -> None:
    app.config["SSE_MAX_EVENT_BYTES"] = 100
    response = app.test_client().get("/stream")
    with pytest.raises(EventTooLarge, match=r"104 bytes .* which is 100") as raised:
        sse.publish("x" * 104, channel=["sse", "other"])
    assert raised.value.size == 104
    sse.publish("ä" * 50)
    with pytest.raises(InvalidValue):
        sse.publish("ä" * 50 + "x")
    with pytest.raises(EventTooLarge):
        sse.publish(Event("x" * 50, id="y" * 51))
    with pytest.raises(EventTooLarge):
        sse.publish("x" * 50, type="y" * 51)
    (event,) = read_events(response, count=1)
    assert event.data == "ä" * 50


def test_an_event_is_never_larger_than_what_is_kept(app: Flask, sse: SSE) -> None:
    app.config["SSE_HISTORY_BYTES"] = 1_000
    with pytest.raises(EventTooLarge, match="SSE_HISTORY_BYTES"):
        sse.publish("x" * 1_001)


def test_who_sent_too_much_gets_413(app: Flask, sse: SSE) -> None:
    app.config["SSE_MAX_EVENT_BYTES"] = 1_000
    app.testing = False

    @app.post("/say")
    def say() -> str:
        sse.publish({"text": request.get_data(as_text=True), "at": 1}, type="said")
        return "said"

    @app.post("/report")
    def report() -> str:
        sse.publish("x" * 2_000)
        return "reported"

    client = app.test_client()
    assert client.post("/say", data="x" * 10).status_code == 200
    assert client.post("/say", data="x" * 2_000).status_code == 413
    assert client.post("/say", data='"' * 600).status_code == 413
    assert client.post("/report", data="x" * 10).status_code == 500


def test_a_run_that_says_too_much_at_once_ends_with_an_error(
    app: Flask, sse: SSE
) -> None:
    app.config["SSE_MAX_EVENT_BYTES"] = 100

    @app.get("/run")
    def run() -> Response:
        return sse.run(iter(["one", "x" * 200, "three"]))

    events = read_events(app.test_client().get("/run"))
    assert [event.type for event in events] == [None, "stream-error", "stream-end"]
