"""sse.stream(): the response that an application's own view returns."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

from flask_sse_lite import SSE, InvalidType, Reason, Stats
from flask_sse_lite.hub import current_hub
from flask_sse_lite.testing import read_events

from .servers import until


@pytest.fixture
def app(sse: SSE) -> Iterator[Flask]:
    """An application with views of its own, and no route of the extension's."""
    app = Flask("application")
    app.config["TESTING"] = True
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    sse.init_app(app, url_prefix=None)

    @app.get("/rooms/<int:room>/events")
    def events(room: int) -> Response:
        if request.headers.get("X-User") != "ann":
            abort(401)
        return sse.stream(f"room.{room}", "user.ann")

    @app.get("/progress")
    def progress() -> Response:
        return sse.stream("progress", replay=2)

    @app.get("/plain")
    def plain() -> Response:
        return sse.stream("progress")

    with app.app_context():
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def watchers(app: Flask, channel: str) -> int:
    """How many readers wait for news of a channel."""
    known = app.extensions["sse"].log._channels.get(channel)
    return len(known.watchers) if known else 0


ANN = {"X-User": "ann"}


def test_the_view_decides_who_listens(client: FlaskClient, sse: SSE) -> None:
    assert client.get("/rooms/1/events").status_code == 401
    response = client.get("/rooms/1/events", headers=ANN)
    sse.publish("to the room", channel="room.1")
    sse.publish("to another room", channel="room.2")
    sse.publish("to ann", channel="user.ann")
    assert [
        (event.channel, event.data) for event in read_events(response, count=2)
    ] == [
        ("room.1", "to the room"),
        ("user.ann", "to ann"),
    ]


def test_neither_authorizer_nor_public_channels_are_asked(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = []
    sse.authorizer(lambda channel: False)
    with client.get("/rooms/1/events", headers=ANN) as response:
        assert response.status_code == 200


def test_the_query_adds_no_channel(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/plain?channel=secret&channel=sse")
    sse.publish("secret", channel="secret")
    sse.publish("default", channel="sse")
    sse.publish("progress", channel="progress")
    assert [event.data for event in read_events(response, count=1)] == ["progress"]


def test_the_view_s_stream_is_resumed(client: FlaskClient, sse: SSE) -> None:
    first = sse.publish("0", channel="room.1")
    sse.publish("1", channel="user.ann")
    response = client.get(
        "/rooms/1/events", headers={**ANN, "Last-Event-ID": first.id or ""}
    )
    assert [event.data for event in read_events(response, count=1)] == ["1"]


def test_a_view_s_stream_of_closed_channels_is_204(
    client: FlaskClient, sse: SSE
) -> None:
    sse.close("progress")
    assert client.get("/plain").status_code == 204


def test_a_view_may_add_to_the_response(app: Flask, sse: SSE) -> None:
    @app.get("/marked")
    def marked() -> Response:
        response = sse.stream("a")
        response.headers["X-Mark"] = "1"
        response.set_cookie("seen", "1")
        return response

    with app.test_client().get("/marked") as response:
        assert response.headers["X-Mark"] == "1"
        assert response.headers["Set-Cookie"].startswith("seen=1")
        assert b"stream-open" in next(response.iter_encoded())


# Replay


def test_replay_gives_a_newcomer_the_last_events(client: FlaskClient, sse: SSE) -> None:
    for percent in (10, 20, 30):
        sse.publish(percent, channel="progress")
    response = client.get("/progress")
    sse.publish(40, channel="progress")
    assert [event.json for event in read_events(response, count=3)] == [20, 30, 40]


def test_replay_is_not_for_those_who_come_back(client: FlaskClient, sse: SSE) -> None:
    events = [sse.publish(percent, channel="progress") for percent in (10, 20, 30)]
    response = client.get("/progress", headers={"Last-Event-ID": events[1].id or ""})
    assert [event.json for event in read_events(response, count=1)] == [30]


@pytest.mark.parametrize(("path", "expected"), [("/progress", "20"), ("/plain", "10")])
def test_replay_goes_before_sse_replay(
    app: Flask, client: FlaskClient, sse: SSE, path: str, expected: str
) -> None:
    app.config["SSE_REPLAY"] = 3
    for percent in (10, 20, 30):
        sse.publish(percent, channel="progress")
    (event,) = read_events(client.get(path), count=1)
    assert event.data == expected


def test_replay_0_means_none_whatever_sse_replay_says(app: Flask, sse: SSE) -> None:
    app.config["SSE_REPLAY"] = 3
    sse.publish("old", channel="a")
    with app.test_request_context():
        response = sse.stream("a", replay=0)
    sse.publish("new", channel="a")
    assert [event.data for event in read_events(response, count=1)] == ["new"]


# What is refused


def test_no_channels_are_a_value_error(app: Flask, sse: SSE) -> None:
    with (
        app.test_request_context("/?channel=a"),
        pytest.raises(ValueError, match="at least one channel"),
    ):
        sse.stream()


@pytest.mark.parametrize("bad", [["a", "b"], ("a",), None, True, b"a"], ids=repr)
def test_what_is_no_name_is_a_type_error(app: Flask, sse: SSE, bad: Any) -> None:
    with app.test_request_context(), pytest.raises(InvalidType, match="name is text"):
        sse.stream(bad)


@pytest.mark.parametrize("bad", ["", "a" * 256, "a\nb", "$run"])
def test_a_bad_name_is_a_value_error(app: Flask, sse: SSE, bad: str) -> None:
    with app.test_request_context(), pytest.raises(ValueError, match=r"[Cc]hannel"):
        sse.stream("good", bad)


def test_65_channels_are_a_value_error(app: Flask, sse: SSE) -> None:
    names = [f"room.{number}" for number in range(65)]
    with app.test_request_context():
        assert sse.stream(*names[1:], *names[1:]).status_code == 200
        with pytest.raises(ValueError, match="at most 64 channels, not 65"):
            sse.stream(*names)


@pytest.mark.parametrize("bad", [-1, 0.5, "5", True], ids=repr)
def test_a_bad_replay_is_a_value_error(app: Flask, sse: SSE, bad: Any) -> None:
    with app.test_request_context(), pytest.raises(ValueError, match="replay"):
        sse.stream("a", replay=bad)


# What is left behind


def test_a_response_that_is_never_iterated_leaves_nothing_behind(
    app: Flask, sse: SSE
) -> None:
    with app.test_request_context():
        response = sse.stream("a", "b")
    sse.publish("hello", channel="a")
    assert response.status_code == 200
    assert len(current_hub()) == 0
    assert watchers(app, "a") == watchers(app, "b") == 0
    del response
    gc.collect()


def test_a_view_that_returns_something_else_leaves_nothing_behind(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    @app.after_request
    def replace(response: Response) -> Response:
        return app.response_class("something else")

    assert client.get("/plain").text == "something else"
    assert len(current_hub()) == 0
    assert watchers(app, "progress") == 0


def test_whoever_leaves_is_forgotten(app: Flask, client: FlaskClient) -> None:
    with client.get("/plain"):
        assert len(current_hub()) == 1
        assert watchers(app, "progress") == 1
    # If the hub's loop is busy at this moment, it lets go at its next look.
    until(lambda: len(current_hub()) == watchers(app, "progress") == 0)


def test_head_leaves_nothing_behind(app: Flask, client: FlaskClient) -> None:
    assert client.head("/plain").status_code == 200
    assert len(current_hub()) == 0
    assert watchers(app, "progress") == 0


# What is counted


@pytest.mark.parametrize(
    ("handoff", "code"), [(False, "switched-off"), (True, "unsupported-server")]
)
def test_stats_tell_by_code_and_in_words_why_a_stream_is_iterated(
    app: Flask, client: FlaskClient, sse: SSE, handoff: bool, code: Reason
) -> None:
    app.config["SSE_HANDOFF"] = handoff
    before = sse.stats()
    response = client.get("/plain")
    sse.close("progress")
    assert read_events(response)[-1].type == "stream-end"
    stats: Stats = sse.stats()
    assert stats["reasons"][code] == before["reasons"].get(code, 0) + 1
    assert sum(stats["reasons"].values()) == sum(stats["iterated"].values())
    assert sum(stats["iterated"].values()) == sum(before["iterated"].values()) + 1
    assert stats["handed off"] == before["handed off"]


def test_a_view_may_return_stats(app: Flask, client: FlaskClient, sse: SSE) -> None:
    app.add_url_rule("/stats", view_func=sse.stats)
    assert client.get("/stats").json == sse.stats()
