"""The blueprint's view: which channels, the head, the opening, limits, time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse, run_wsgi_app

from flask_sse_lite import SSE
from flask_sse_lite.hub import current_hub
from flask_sse_lite.testing import read_events

#: Seconds that anything may take that does not fail.
PATIENCE = 10.0

ACCEPT_STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    with app.app_context():
        yield


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def public(app: Flask, *channels: str) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = channels


def chunks(response: TestResponse, count: int) -> list[bytes]:
    """The first pieces of a stream, as soon as they come."""
    timer = threading.Timer(PATIENCE, response.close)
    timer.start()
    try:
        return list(islice(response.iter_encoded(), count))
    finally:
        timer.cancel()
        timer.join()
        response.close()


def opening(response: TestResponse) -> str:
    """What a stream sends before anything is published."""
    (chunk,) = chunks(response, 1)
    return chunk.decode()


# The head


def test_the_head_keeps_caches_and_proxies_from_holding_events_back(
    client: FlaskClient,
) -> None:
    with client.get("/stream") as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache, no-transform"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in response.headers


def test_head_gets_the_head_and_ends(client: FlaskClient) -> None:
    response = client.head("/stream")
    assert response.status_code == 200
    assert response.mimetype == "text/event-stream"
    assert response.data == b""
    assert len(current_hub()) == 0


# Channels


def test_the_default_channel_is_sse(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream")
    sse.publish("hello", channel="sse")
    assert [event.data for event in read_events(response, count=1)] == ["hello"]


def test_the_query_names_the_channel(app: Flask, client: FlaskClient, sse: SSE) -> None:
    public(app, "räume/1?&")
    response = client.get("/stream", query_string={"channel": "räume/1?&"})
    sse.publish("elsewhere")
    sse.publish("here", channel="räume/1?&")
    assert [event.data for event in read_events(response, count=1)] == ["here"]


def test_several_channels_arrive_in_the_order_of_publishing(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    public(app, "a", "b")
    response = client.get("/stream?channel=a&channel=b")
    for number, name in enumerate("abbaxab"):
        sse.publish(str(number), channel=name)
    events = read_events(response, count=6)
    assert [(event.data, event.channel) for event in events] == [
        ("0", "a"),
        ("1", "b"),
        ("2", "b"),
        ("3", "a"),
        ("5", "a"),
        ("6", "b"),
    ]


@pytest.mark.parametrize("query", ["channel=a", "channel=a&channel=a"])
def test_one_channel_is_not_named_in_its_events(
    app: Flask, client: FlaskClient, sse: SSE, query: str
) -> None:
    public(app, "a")
    response = client.get(f"/stream?{query}")
    sse.publish("hello", channel="a")
    sse.close("a")
    assert [event.channel for event in read_events(response)] == [None, None]


def test_a_stream_has_64_channels_at_most(app: Flask, client: FlaskClient) -> None:
    names = [f"room.{number}" for number in range(65)]
    public(app, *names)
    assert "stream-open" in opening(
        client.get("/stream", query_string={"channel": names[:64]})
    )
    refused = client.get("/stream", query_string={"channel": names})
    assert refused.status_code == 400
    assert "A stream has at most 64 channels, not 65." in refused.text


def test_ten_thousand_channels_are_refused(client: FlaskClient) -> None:
    refused = client.get("/stream?" + "&".join(["channel=sse"] * 10_000))
    assert refused.status_code == 400
    assert "not 10000" in refused.text


def test_the_longest_name_is_served(app: Flask, client: FlaskClient) -> None:
    public(app, "*")
    assert "stream-open" in opening(client.get(f"/stream?channel={'é' * 255}"))


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("channel=", "has 1 to 255 characters, not 0."),
        ("channel=sse&channel=", "has 1 to 255 characters, not 0."),
        (f"channel={'a' * 256}", "has 1 to 255 characters, not 256."),
        ("channel=a%0Ab", "has no control characters"),
        ("channel=a%00", "has no control characters"),
        ("channel=a%C2%85", "has no control characters"),
    ],
)
def test_a_bad_name_is_answered_by_400_and_a_sentence(
    app: Flask, client: FlaskClient, query: str, sentence: str
) -> None:
    public(app, "*")
    refused = client.get(f"/stream?{query}")
    assert refused.status_code == 400
    assert f"A channel&#39;s name {sentence}" in refused.text


def test_a_bad_name_is_not_shown_as_html(client: FlaskClient) -> None:
    refused = client.get("/stream?channel=%3Cscript%3E%01")
    assert refused.status_code == 400
    assert "<script>" not in refused.text


@pytest.mark.parametrize("target", ["/stream", "/stream/sse.js", "/own", "/run"])
def test_a_query_that_is_not_utf_8_is_answered_by_400(
    app: Flask, sse: SSE, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Some servers let its bytes through as they are, and WSGI shows them as latin-1.
    The test client would encode them."""
    app.add_url_rule("/own", "own", lambda: sse.stream("a"))
    app.add_url_rule("/run", "run", lambda: sse.run(["an item"]))
    environ = EnvironBuilder(path=target).get_environ()
    environ["QUERY_STRING"] = "channel=\xe9"
    pieces, status, _ = run_wsgi_app(app, environ)
    assert status == "400 BAD REQUEST"
    assert b"The query is not UTF-8." in b"".join(pieces)
    assert caplog.records == []


# The opening


def test_a_stream_begins_with_its_position_and_retry(
    client: FlaskClient, sse: SSE
) -> None:
    sse.publish("before")
    match = re.fullmatch(
        "event: stream-open\ndata: \nid: (.+)\nretry: [0-9]+\n"
        ": heartbeat [0-9.]+ shareable\n\n",
        opening(client.get("/stream")),
    )
    assert match
    assert match[1] == sse.position()


@pytest.mark.parametrize(("setting", "middle"), [(None, 3000), (10_000, 10_000)])
def test_retry_is_spread_by_20_percent(
    app: Flask, client: FlaskClient, setting: int | None, middle: int
) -> None:
    app.config["SSE_RETRY"] = setting
    values = set()
    for _ in range(40):
        (event,) = read_events(client.get("/stream"), count=1, bookkeeping=True)
        assert event.retry is not None
        values.add(event.retry)
    assert middle * 0.8 <= min(values)
    assert max(values) <= middle * 1.2
    assert len(values) > 1


def test_a_waiting_stream_is_woken_by_an_event(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    def work() -> None:
        with app.app_context():
            sse.publish("hello")

    app.config["SSE_HEARTBEAT"] = PATIENCE
    response = client.get("/stream")
    thread = threading.Thread(target=work)
    thread.start()
    first, second = chunks(response, 2)
    thread.join()
    assert b"stream-open" in first
    assert b"data: hello\n" in second


# As time passes


def test_a_silent_stream_sends_heartbeats(app: Flask, client: FlaskClient) -> None:
    app.config["SSE_HEARTBEAT"] = 0.02
    first, *others = chunks(client.get("/stream"), 3)
    assert b"stream-open" in first
    assert others == [b":\n\n", b":\n\n"]


def test_an_idle_stream_is_told_how_far_the_log_moved_on(
    app: Flask, client: FlaskClient, sse: SSE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.hub.iterated.POSITION_INTERVAL", 0.0)
    app.config["SSE_HEARTBEAT"] = 0.02
    response = client.get("/stream")
    sse.publish("elsewhere", channel="other")
    events = read_events(response, count=2, bookkeeping=True)
    assert [event.type for event in events] == ["stream-open", "stream-position"]
    assert events[1].id == sse.position() != events[0].id


def test_a_stream_of_max_age_ends_and_may_come_back(
    app: Flask, client: FlaskClient
) -> None:
    app.config.update(SSE_MAX_AGE=0.01, SSE_HEARTBEAT=0.08)
    begun = time.monotonic()
    events = read_events(client.get("/stream"), timeout=PATIENCE, bookkeeping=True)
    assert time.monotonic() - begun < PATIENCE
    assert [event.type for event in events] == ["stream-open"]
    assert "stream-open" in opening(client.get("/stream"))


# Limits


def test_past_the_limit_a_browser_is_told_to_come_back_later(
    app: Flask, client: FlaskClient
) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 1
    with client.get("/stream"):
        values = set()
        for _ in range(40):
            refused = client.get("/stream", headers=ACCEPT_STREAM)
            assert refused.status_code == 200
            assert refused.mimetype == "text/event-stream"
            assert refused.headers["X-Content-Type-Options"] == "nosniff"
            match = re.fullmatch("retry: ([0-9]+)\n\n", refused.text)
            assert match
            values.add(int(match[1]))
    assert 24_000 <= min(values) < max(values) <= 36_000


@pytest.mark.parametrize("accept", ["*/*", "text/html", ""])
def test_past_the_limit_others_get_503(
    app: Flask, client: FlaskClient, accept: str
) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 1
    with client.get("/stream"):
        refused = client.get("/stream", headers={"Accept": accept})
    assert refused.status_code == 503
    assert 24 <= int(refused.headers["Retry-After"]) <= 36


def test_whoever_leaves_makes_room(app: Flask, client: FlaskClient) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 2
    with client.get("/stream"):
        client.get("/stream").close()
        assert "stream-open" in opening(client.get("/stream", headers=ACCEPT_STREAM))


def test_the_limit_does_not_tell_strangers_what_there_is(
    app: Flask, client: FlaskClient
) -> None:
    app.config["SSE_MAX_CONNECTIONS"] = 1
    with client.get("/stream"):
        refused = client.get("/stream?channel=secret", headers=ACCEPT_STREAM)
    assert refused.status_code == 403
