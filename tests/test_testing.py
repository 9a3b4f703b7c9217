"""The helpers for the tests of applications."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_sse_lite import SSE, Event, EventStream
from flask_sse_lite.hub import current_hub
from flask_sse_lite.testing import published, read_events

from .patience import patient


@pytest.fixture(autouse=True)
def _context(app: Flask) -> Iterator[None]:
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    with app.app_context():
        yield


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


# read_events


def test_it_returns_as_many_as_are_asked_for(client: FlaskClient, sse: SSE) -> None:
    response = client.get("/stream")
    events = [sse.publish(str(number), type="number") for number in range(3)]
    assert [str(event) for event in read_events(response, count=2)] == [
        str(event) for event in events[:2]
    ]


def test_it_closes_the_response(client: FlaskClient) -> None:
    response = client.get("/stream")
    assert len(current_hub()) == 1
    assert read_events(response, count=0) == []
    assert len(current_hub()) == 0


def test_it_returns_what_came_when_the_stream_ends(
    client: FlaskClient, sse: SSE
) -> None:
    response = client.get("/stream")
    sse.publish("hello")
    sse.close()
    begun = time.monotonic()
    events = read_events(response, count=10, timeout=30)
    assert time.monotonic() < begun + 30
    assert [event.type for event in events] == [None, "stream-end"]


@pytest.mark.parametrize("count", [None, 2])
def test_it_returns_what_came_after_its_timeout(
    client: FlaskClient, sse: SSE, count: int | None
) -> None:
    response = client.get("/stream")
    sse.publish("hello")
    events = read_events(response, count=count, timeout=patient(0.5))
    assert [event.data for event in events] == ["hello"]
    assert len(current_hub()) == 0


def test_it_waits_for_what_another_thread_publishes(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    def work() -> None:
        with app.app_context():
            for number in range(3):
                sse.publish(str(number))

    response = client.get("/stream")
    thread = threading.Thread(target=work)
    thread.start()
    events = read_events(response, count=3, timeout=30)
    thread.join()
    assert [event.data for event in events] == ["0", "1", "2"]


def test_heartbeats_are_no_events(app: Flask, client: FlaskClient) -> None:
    app.config["SSE_HEARTBEAT"] = 0.01
    assert read_events(client.get("/stream"), timeout=0.05) == []


def test_bookkeeping_counts_only_when_it_is_asked_for(
    client: FlaskClient, sse: SSE
) -> None:
    response = client.get("/stream")
    sse.publish("hello")
    with_it = read_events(response, count=2, bookkeeping=True)
    assert [event.type for event in with_it] == ["stream-open", None]
    assert with_it[0].retry is not None


def test_what_is_lost_and_the_end_are_no_bookkeeping(
    client: FlaskClient, sse: SSE
) -> None:
    sse.close()
    events = read_events(client.get("/stream?last_event_id=unknown"))
    assert [event.type for event in events] == ["stream-gap", "stream-end"]


def test_it_reads_a_response_that_no_client_asked_for(app: Flask, sse: SSE) -> None:
    with app.test_request_context():
        response = sse.stream("a")
    sse.publish("hello", channel="a")
    assert [event.data for event in read_events(response, count=1)] == ["hello"]


def test_it_reads_a_generator(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/ask", "ask", lambda: EventStream(iter(["one", "two"])))
    events = read_events(client.get("/ask"), count=2)
    assert [event.data for event in events] == ["one", "two"]


def test_a_timeout_during_a_generator_s_step_is_no_error(
    app: Flask, client: FlaskClient
) -> None:
    go_on = threading.Event()

    def answer() -> Iterator[str]:
        yield "one"
        go_on.wait(0.2)
        yield "two"

    app.add_url_rule("/ask", "ask", lambda: EventStream(answer()))
    events = read_events(client.get("/ask"), timeout=0.05)
    assert events[0].data == "one"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nothing", "404 NOT FOUND"),
        ("/stream?channel=secret", "403 FORBIDDEN"),
        ("/page", "200 OK text/html"),
    ],
)
def test_what_is_no_stream_fails_the_test(
    app: Flask, client: FlaskClient, path: str, words: str
) -> None:
    app.add_url_rule("/page", "page", lambda: "a page")
    words = f"No event stream: {words}"
    with client.get(path) as response, pytest.raises(AssertionError, match=words):
        read_events(response)


def test_204_fails_the_test(client: FlaskClient, sse: SSE) -> None:
    sse.close()
    with pytest.raises(AssertionError, match="No event stream: 204 NO CONTENT"):
        read_events(client.get("/stream"))


# published


def test_it_records_events_as_they_were_published(app: Flask, sse: SSE) -> None:
    with published(app) as events:
        first = sse.publish({"a": 1}, type="greeting")
        second = sse.publish("hello", channel=["b", "c"])
    assert events[0] is first
    assert events[2] is second
    assert [(event.channel, event.type) for event in events] == [
        ("sse", "greeting"),
        ("b", None),
        ("c", None),
    ]


def test_it_records_what_a_view_publishes(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    @app.post("/say")
    def say() -> str:
        return sse.publish("hello").data

    with published(app) as events:
        client.post("/say")
    assert [event.data for event in events] == ["hello"]


def test_it_records_only_while_it_is_open(app: Flask, sse: SSE) -> None:
    sse.publish("before")
    with published(app) as events:
        sse.publish("within")
    sse.publish("after")
    assert [event.data for event in events] == ["within"]


def test_it_stops_recording_after_an_error(app: Flask, sse: SSE) -> None:
    with pytest.raises(RuntimeError, match="fails"), published(app) as events:
        raise RuntimeError("It fails")
    sse.publish("after")
    assert events == []


def test_it_does_not_record_what_is_refused(app: Flask, sse: SSE) -> None:
    with published(app) as events:
        with pytest.raises(ValueError, match="not empty"):
            sse.publish("hello", id="")
        sse.close()
    assert events == []


def test_two_at_once_record_the_same(app: Flask, sse: SSE) -> None:
    with published(app) as outer:
        with published(app) as inner:
            sse.publish("both")
        sse.publish("outer")
    assert [event.data for event in outer] == ["both", "outer"]
    assert [event.data for event in inner] == ["both"]


def test_it_records_one_application_only(app: Flask, sse: SSE) -> None:
    other = Flask("other")
    sse.init_app(other)
    with published(app) as events, other.app_context():
        sse.publish("elsewhere")
    assert events == []


def test_it_records_several_threads(app: Flask, sse: SSE) -> None:
    def work() -> None:
        with app.app_context():
            for _ in range(100):
                sse.publish("hello")

    threads = [threading.Thread(target=work) for _ in range(4)]
    with published(app) as events:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({event.id for event in events}) == 400


def test_streams_get_what_is_recorded(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    response = client.get("/stream")
    with published(app) as events:
        sse.publish("hello")
    (received,) = read_events(response, count=1)
    assert received == Event("hello", id=events[0].id)


def test_an_application_that_was_never_registered_is_named() -> None:
    app = Flask("forgotten")
    with pytest.raises(RuntimeError, match="'forgotten'"), published(app):
        pass
