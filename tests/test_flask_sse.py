"""An application that was written for Flask-SSE 1.0, with only the import changed."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, abort, request, url_for
from flask.testing import FlaskClient

from flask_sse_lite import (
    InvalidType,
    InvalidValue,
    Message,
    ServerSentEventsBlueprint,
)
from flask_sse_lite.testing import published, read_events


def application(blueprint: ServerSentEventsBlueprint) -> Flask:
    app = Flask(__name__)
    app.config["TESTING"] = True
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    app.register_blueprint(blueprint, url_prefix="/events")
    return app


@pytest.fixture
def blueprint() -> ServerSentEventsBlueprint:
    """A blueprint as Flask-SSE makes its own, and as its documentation shows it."""
    sse = ServerSentEventsBlueprint("sse", __name__)
    sse.add_url_rule(rule="", endpoint="stream", view_func=sse.stream)

    @sse.before_request
    def check_access() -> None:
        if request.args.get("channel") == "secret" and "key" not in request.args:
            abort(403)

    return sse


@pytest.fixture
def legacy(blueprint: ServerSentEventsBlueprint) -> Iterator[Flask]:
    app = application(blueprint)
    app.config["SSE_PUBLIC_CHANNELS"] = ["*"]

    @app.route("/hello")
    def publish_hello() -> str:
        blueprint.publish({"message": "Hello!"}, type="greeting")
        return "Message sent!"

    with app.app_context():
        yield app


@pytest.fixture
def client(legacy: Flask) -> FlaskClient:
    return legacy.test_client()


def test_its_first_example_works(client: FlaskClient) -> None:
    response = client.get("/events")
    assert client.get("/hello").text == "Message sent!"
    (event,) = read_events(response, count=1)
    assert event.type == "greeting"
    assert event.json == {"message": "Hello!"}


def test_the_own_rule_is_the_only_one(legacy: Flask) -> None:
    rules = [r.rule for r in legacy.url_map.iter_rules() if r.endpoint == "sse.stream"]
    assert set(rules) == {"/events"}


def test_a_second_rule_may_be_added(blueprint: ServerSentEventsBlueprint) -> None:
    blueprint.add_url_rule("/too", "too", view_func=blueprint.stream)
    app = application(blueprint)
    with app.test_client().get("/events/too") as response:
        assert response.status_code == 200


def test_url_for_names_the_channel(legacy: Flask) -> None:
    with legacy.test_request_context():
        assert url_for("sse.stream") == "/events"
        assert url_for("sse.stream", channel="users.ann") == "/events?channel=users.ann"


def test_the_query_names_the_channel(
    client: FlaskClient, blueprint: ServerSentEventsBlueprint
) -> None:
    response = client.get("/events?channel=users.ann")
    blueprint.publish("for bob", channel="users.bob")
    blueprint.publish("for ann", channel="users.ann")
    assert [event.data for event in read_events(response, count=1)] == ["for ann"]


def test_publish_takes_its_arguments_by_position(
    legacy: Flask, blueprint: ServerSentEventsBlueprint
) -> None:
    with published(legacy) as events:
        blueprint.publish({"a": 1}, "greeting", "7", 5000, "room")
    (event,) = events
    assert (event.json, event.type, event.id, event.retry, event.channel) == (
        {"a": 1},
        "greeting",
        "7",
        5000,
        "room",
    )


def test_messages_gives_what_is_published(
    legacy: Flask, blueprint: ServerSentEventsBlueprint
) -> None:
    messages = blueprint.messages(channel="room", timeout=10)
    blueprint.publish({"a": 1}, type="greeting", id="7", channel="room")
    message = next(messages)
    assert str(message) == 'event: greeting\ndata: {"a": 1}\nid: 7\n\n'


# Types and ids that are no text, which Flask-SSE wrote as text


class Color(enum.Enum):
    RED = 1


#: Values that can stand for a name, and the text of each.
WORDED: list[tuple[Any, str]] = [
    (7, "7"),
    (-7, "-7"),
    (1.5, "1.5"),
    (Decimal("1.50"), "1.50"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    (datetime.date(2024, 5, 1), "2024-05-01"),
    (Color.RED, "Color.RED"),
    (Path("a/b"), "a/b"),
]

#: Values that an application passes for a name by mistake.
NO_NAMES = [True, False, b"a", ["a"], ("a",), {"a"}, {"a": 1}, object(), object, len]


@pytest.mark.parametrize(("value", "text"), WORDED, ids=repr)
@pytest.mark.parametrize("field", ["type", "id"])
def test_a_type_and_an_id_are_written_as_their_text(
    legacy: Flask,
    blueprint: ServerSentEventsBlueprint,
    field: str,
    value: Any,
    text: str,
) -> None:
    event = blueprint.publish("x", **{field: value})
    assert getattr(event, field) == text
    assert getattr(Message("x", **{field: value}), field) == text


@pytest.mark.parametrize(("value", "text"), WORDED, ids=repr)
def test_a_channel_is_written_as_its_text(
    legacy: Flask,
    client: FlaskClient,
    blueprint: ServerSentEventsBlueprint,
    value: Any,
    text: str,
) -> None:
    response = client.get("/events", query_string={"channel": text})
    heard = blueprint.messages(value, timeout=10)
    with legacy.test_request_context():
        own = blueprint.stream(value)
    assert blueprint.publish("one", channel=value).channel == text
    blueprint.publish("two", channel=["other", value])
    assert blueprint.subscribers(value) == blueprint.subscribers(text)
    blueprint.close(value)
    for stream in (response, own):
        assert [e.data for e in read_events(stream)] == ["one", "two", ""]
    assert [event.data for event in heard] == ["one", "two"]


@pytest.mark.parametrize(
    ("value", "milliseconds"), [("1000", 1000), ("0", 0), (" 5 ", 5), (5, 5)]
)
def test_a_retry_may_be_text(
    legacy: Flask,
    blueprint: ServerSentEventsBlueprint,
    value: Any,
    milliseconds: int,
) -> None:
    assert blueprint.publish("x", retry=value).retry == milliseconds
    assert Message("x", retry=value).retry == milliseconds


@pytest.mark.parametrize("bad", NO_NAMES, ids=lambda bad: type(bad).__name__)
@pytest.mark.parametrize("field", ["type", "id", "retry"])
def test_what_is_no_name_is_refused(
    legacy: Flask, blueprint: ServerSentEventsBlueprint, field: str, bad: Any
) -> None:
    for make in (blueprint.publish, Message):
        with pytest.raises(InvalidType, match=f"event's {field}"):
            make("x", **{field: bad})


@pytest.mark.parametrize("bad", NO_NAMES, ids=lambda bad: type(bad).__name__)
def test_what_is_no_channel_is_refused(
    legacy: Flask, blueprint: ServerSentEventsBlueprint, bad: Any
) -> None:
    for call in (
        lambda: blueprint.publish("x", channel=[bad]),
        lambda: blueprint.messages(bad),
        lambda: blueprint.close(bad),
        lambda: blueprint.subscribers(bad),
    ):
        with pytest.raises(InvalidType, match="channel's name is text"):
            call()


@pytest.mark.parametrize("bad", ["", "soon", "1.5", "1e3", "9" * 50, 1.0])
def test_a_retry_that_is_no_number_is_refused(
    legacy: Flask, blueprint: ServerSentEventsBlueprint, bad: Any
) -> None:
    with pytest.raises(InvalidType, match="retry is a whole number"):
        blueprint.publish("x", retry=bad)


def test_a_number_too_long_to_be_written_is_refused(
    legacy: Flask, blueprint: ServerSentEventsBlueprint
) -> None:
    number: Any = 10**5000
    for fields in ({"type": number}, {"id": number}):
        with pytest.raises(InvalidValue):
            blueprint.publish("x", **fields)


# Its guards


def test_a_guard_that_looks_at_the_channel_goes_on_guarding(
    client: FlaskClient,
) -> None:
    assert client.get("/events?channel=secret").status_code == 403
    for path in ("/events", "/events?channel=sse", "/events?channel=secret&key=1"):
        with client.get(path) as response:
            assert response.status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "channel=sse&channel=secret",
        "channel=sse&channel=sse&channel=secret",
        "channel=&channel=secret",
        "channel=sse&channel=secret&channel=sse",
    ],
)
def test_a_guard_that_looks_at_the_first_channel_cannot_be_passed_by(
    client: FlaskClient, query: str
) -> None:
    assert client.get(f"/events?{query}").status_code in (400, 403)


def test_a_guard_in_a_subclass_cannot_be_passed_by() -> None:
    class Guarded(ServerSentEventsBlueprint):
        def stream(self, *channels: Any, **options: Any) -> Response:
            abort(401)

    sse = Guarded("sse", __name__)
    sse.add_url_rule(rule="/guarded", endpoint="guarded", view_func=sse.stream)
    app = application(sse)
    with app.test_client().get("/events/guarded") as response:
        assert response.status_code == 401


def test_named_channels_are_served_only_where_they_are_allowed() -> None:
    sse = ServerSentEventsBlueprint("sse", __name__)
    client = application(sse).test_client()
    assert client.get("/events?channel=news").status_code == 403


# Message


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (("hello",), {"data": "hello"}),
        (("hello", "greeting"), {"data": "hello", "type": "greeting"}),
        (
            ("hello", "greeting", "7", 5000),
            {"data": "hello", "type": "greeting", "id": "7", "retry": 5000},
        ),
        (("", None, None, 0), {"data": "", "retry": 0}),
    ],
)
def test_to_dict_leaves_out_what_is_not_there(
    arguments: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    assert Message(*arguments).to_dict() == fields


def test_a_message_is_made_again_of_its_dict() -> None:
    message = Message({"a": 1}, type="greeting", id="7", retry=0)
    assert Message(**message.to_dict()) == message
    assert Message("other") != message


def test_a_message_as_text_is_what_is_sent() -> None:
    message = Message("one\ntwo", type="greeting", id="7", retry=5000)
    assert str(message) == (
        "event: greeting\ndata: one\ndata: two\nid: 7\nretry: 5000\n\n"
    )


def test_a_message_of_other_data_is_json(legacy: Flask) -> None:
    assert Message({"a": [1]}).json == {"a": [1]}


def test_a_message_can_be_published(
    legacy: Flask, client: FlaskClient, blueprint: ServerSentEventsBlueprint
) -> None:
    response = client.get("/events")
    blueprint.publish(Message({"a": 1}, type="greeting"))
    (event,) = read_events(response, count=1)
    assert (event.json, event.type) == ({"a": 1}, "greeting")
