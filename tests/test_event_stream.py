"""EventStream: a response from an application's iterable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask, current_app, g, request
from flask.testing import FlaskClient

from flask_sse_lite import Event, EventStream, InvalidType
from flask_sse_lite.testing import read_events


@dataclasses.dataclass
class Point:
    x: int
    y: int


def serve(app: Flask, make: Callable[[], Iterable[Any]]) -> FlaskClient:
    """A client of an application whose /ask streams what ``make`` makes."""
    app.add_url_rule("/ask", "ask", lambda: EventStream(make()))
    return app.test_client()


def test_items_arrive_as_events(app: Flask) -> None:
    client = serve(
        app,
        lambda: [
            "text",
            "two\nlines",
            b"bytes",
            {"a": 1},
            [1, 2],
            Point(1, 2),
            5,
            None,
            Event("event", "greeting", id="7"),
        ],
    )
    *events, end = read_events(client.get("/ask"))
    assert [event.data for event in events[:3]] == ["text", "two\nlines", "bytes"]
    assert [event.json for event in events[3:8]] == [
        {"a": 1},
        [1, 2],
        {"x": 1, "y": 2},
        5,
        None,
    ]
    assert (events[8].data, events[8].type, events[8].id) == ("event", "greeting", "7")
    assert (end.type, end.id, end.data) == ("stream-end", "stream-end", "")


def test_the_head_is_that_of_every_stream(app: Flask) -> None:
    with serve(app, lambda: ["hello"]).get("/ask") as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache, no-transform"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in response.headers


def test_items_are_sent_as_they_come(app: Flask) -> None:
    steps = []

    def answer() -> Iterator[str]:
        for step in range(3):
            steps.append(step)
            yield str(step)

    with serve(app, answer).get("/ask") as response:
        assert next(response.iter_encoded()) == b"data: 0\n\n"
        assert steps == [0]


def test_the_request_s_context_lasts_as_long_as_the_generator(app: Flask) -> None:
    def answer() -> Iterator[str]:
        g.steps = 0
        for word in request.args["q"].split():
            g.steps += 1
            yield f"{current_app.name} {g.steps} {word}"

    events = read_events(serve(app, answer).get("/ask?q=one+two"))
    assert [event.data for event in events[:-1]] == [
        "application 1 one",
        "application 2 two",
    ]


# The end


@pytest.mark.parametrize("how", ["header", "query"])
def test_whoever_saw_the_end_gets_204_before_the_first_step(
    app: Flask, how: str
) -> None:
    steps = []

    def answer() -> Iterator[str]:
        steps.append("step")
        yield "answer"

    client = serve(app, answer)
    *_, end = read_events(client.get("/ask"))
    assert steps == ["step"]
    if how == "header":
        back = client.get("/ask", headers={"Last-Event-ID": end.id or ""})
    else:
        back = client.get(f"/ask?last_event_id={end.id}")
    assert (back.status_code, back.data) == (204, b"")
    assert steps == ["step"]


def test_whoever_comes_back_with_another_id_gets_the_whole(app: Flask) -> None:
    response = serve(app, lambda: ["answer"]).get(
        "/ask", headers={"Last-Event-ID": "something"}
    )
    assert [event.data for event in read_events(response, count=1)] == ["answer"]


def test_the_iterable_of_whoever_saw_the_end_is_closed(app: Flask) -> None:
    closed = []

    class Answer:
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("It was iterated")

        def close(self) -> None:
            closed.append(True)

    client = serve(app, Answer)
    assert client.get("/ask?last_event_id=stream-end").status_code == 204
    assert closed == [True]


def test_head_does_not_step_the_generator(app: Flask) -> None:
    steps = []

    def answer() -> Iterator[str]:
        steps.append("step")
        yield "answer"

    response = serve(app, answer).head("/ask")
    assert (response.status_code, response.data) == (200, b"")
    assert steps == []


def test_whoever_leaves_closes_the_generator(app: Flask) -> None:
    ended = []

    def answer() -> Iterator[str]:
        try:
            while True:
                yield "more"
        except GeneratorExit:
            ended.append(request.path)
            raise

    events = read_events(serve(app, answer).get("/ask"), count=3)
    assert [event.data for event in events] == ["more"] * 3
    assert ended == ["/ask"]


def test_an_iterable_is_closed_when_it_has_ended(app: Flask) -> None:
    closed = []

    class Answer:
        def __iter__(self) -> Iterator[str]:
            return iter(["answer"])

        def close(self) -> None:
            closed.append(True)

    read_events(serve(app, Answer).get("/ask"))
    assert closed


# Errors


def test_an_error_is_told_without_its_details_and_logged(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    def answer() -> Iterator[str]:
        yield "answer"
        raise RuntimeError("password=geheim")

    client = serve(app, answer)
    with client.get("/ask") as response:
        text = response.get_data(as_text=True)
    assert "geheim" not in text
    assert "RuntimeError" not in text
    answered, error, end = read_events(client.get("/ask"))
    assert answered.data == "answer"
    assert error.type == "stream-error"
    assert error.json == {"reason": "error"}
    assert (end.type, end.id) == ("stream-end", "stream-end")
    (logged, _) = [record for record in caplog.records if record.exc_info]
    assert logged.name == app.name
    assert logged.levelname == "ERROR"
    assert logged.exc_info
    assert str(logged.exc_info[1]) == "password=geheim"


@pytest.mark.parametrize(
    "item", [object(), b"\xff", "\udc80"], ids=["object", "bytes", "text"]
)
def test_an_item_that_cannot_be_sent_is_such_an_error(
    app: Flask, caplog: pytest.LogCaptureFixture, item: object
) -> None:
    events = read_events(serve(app, lambda: ["answer", item]).get("/ask"))
    assert [event.type for event in events] == [None, "stream-error", "stream-end"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("bad", ["text", b"bytes", {"a": 1}], ids=repr)
def test_one_item_in_place_of_several_is_an_error(app: Flask, bad: Any) -> None:
    with app.test_request_context(), pytest.raises(InvalidType, match="an iterable"):
        EventStream(bad)


@pytest.mark.parametrize("bad", [None, 5, lambda: iter("ab")], ids=["none", "5", "def"])
def test_what_cannot_be_iterated_is_an_error(app: Flask, bad: Any) -> None:
    with app.test_request_context(), pytest.raises(TypeError):
        EventStream(bad)
