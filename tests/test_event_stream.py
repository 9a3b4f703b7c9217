"""EventStream: a response from an application's iterable."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest
from flask import Flask, Response, abort, current_app, g, request
from flask.testing import FlaskClient

from flask_sse_lite import SSE, Event, EventStream, InvalidType, InvalidValue
from flask_sse_lite.testing import read_events

from .servers import PATIENCE


@dataclasses.dataclass
class Point:
    x: int
    y: int


@pytest.fixture(autouse=True)
def impatient(app: Flask) -> None:
    """Have the hub look around so often that each test finds it gone at once."""
    app.config["SSE_HEARTBEAT"] = 0.1


@pytest.fixture
def calm(app: Flask, impatient: None) -> None:
    """Send no sign of life before an error, however busy the machine is: the first one
    settles the status."""
    app.config["SSE_HEARTBEAT"] = PATIENCE


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


def test_an_application_without_channels_streams_too() -> None:
    bare = Flask("bare")
    bare.config["SSE_HEARTBEAT"] = 0.1
    events = read_events(serve(bare, lambda: ["a", "b"]).get("/ask"))
    assert [event.data for event in events] == ["a", "b", ""]


def test_an_application_without_channels_has_its_settings_checked() -> None:
    bare = Flask("bare")
    bare.config |= {"SSE_HEARTBEAT": "often", "PROPAGATE_EXCEPTIONS": True}
    with pytest.raises(InvalidValue, match="SSE_HEARTBEAT"):
        serve(bare, lambda: ["a"]).get("/ask")


def test_the_head_is_that_of_every_stream(app: Flask) -> None:
    with serve(app, lambda: ["hello"]).get("/ask") as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache, no-transform"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
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
    assert back.headers["X-Content-Type-Options"] == "nosniff"
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


def test_a_final_item_comes_last(app: Flask) -> None:
    app.add_url_rule("/ask", "ask", lambda: EventStream(["a"], final="[DONE]"))
    events = read_events(app.test_client().get("/ask"))
    assert [event.data for event in events] == ["a", "[DONE]", ""]


def test_the_type_is_that_of_items_that_are_no_event(app: Flask) -> None:
    items = ["a", {"b": 1}, Event("c"), Event("d", "note")]
    app.add_url_rule("/ask", "ask", lambda: EventStream(items, type="token"))
    events = read_events(app.test_client().get("/ask"))
    assert [event.type for event in events] == [
        *("token", "token", None, "note", "stream-end")
    ]


@pytest.mark.parametrize("type", ["stream-mine", "two\nlines"])
def test_a_type_that_cannot_be_is_refused_at_once(app: Flask, type: str) -> None:
    with app.test_request_context(), pytest.raises(InvalidValue):
        EventStream(["a"], type=type)


# Without events of our own


def bare_view(items: Iterable[Any], **options: Any) -> Callable[[], EventStream]:
    return lambda: EventStream(items, own_events=False, **options)


def bare_body(app: Flask, items: Iterable[Any], **options: Any) -> bytes:
    app.add_url_rule("/ask", "ask", bare_view(items, **options))
    body: bytes = app.test_client().get("/ask").data
    return body


def test_without_our_own_events_the_items_are_all_there_is(app: Flask) -> None:
    items = ["a", {"b": 1}, Event("c", "note", id="7", retry=5)]
    assert bare_body(app, items, final="[DONE]") == (
        b'data: a\n\ndata: {"b": 1}\n\nevent: note\ndata: c\n\ndata: [DONE]\n\n'
    )


def test_without_our_own_events_nobody_is_sent_off_for_an_id(app: Flask) -> None:
    app.add_url_rule("/ask", "ask", bare_view(["a"]))
    response = app.test_client().get("/ask", headers={"Last-Event-ID": "stream-end"})
    assert (response.status_code, response.data) == (200, b"data: a\n\n")


def failing(*items: Any) -> Iterator[Any]:
    yield from items
    raise RuntimeError("password=geheim")


def test_without_our_own_events_an_error_is_the_end(app: Flask) -> None:
    assert bare_body(app, failing("a"), final="[DONE]") == b"data: a\n\n"


def test_without_our_own_events_an_error_is_what_the_application_makes_of_it(
    app: Flask,
) -> None:
    body = bare_body(
        app,
        failing("a"),
        type="token",
        on_error=lambda error: {"error": type(error).__name__},
    )
    assert body == (
        b'event: token\ndata: a\n\nevent: token\ndata: {"error": "RuntimeError"}\n\n'
    )


def test_nothing_at_all_is_an_empty_stream(app: Flask) -> None:
    assert bare_body(app, []) == b""


# Errors


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("sorry", {"reason": "error", "message": "sorry"}),
        ({"code": 5}, {"reason": "error", "message": {"code": 5}}),
        (None, {"reason": "error"}),
    ],
)
def test_the_application_may_say_what_is_told_of_an_error(
    app: Flask, told: Any, expected: Any
) -> None:
    errors = []

    def explain(error: Exception) -> Any:
        errors.append((str(error), request.path))
        return told

    view = partial(EventStream, on_error=explain)
    app.add_url_rule("/ask", "ask", lambda: view(failing("a")))
    _, error, end = read_events(app.test_client().get("/ask"))
    assert (error.type, error.json, end.type) == (
        *("stream-error", expected, "stream-end"),
    )
    assert errors == [("password=geheim", "/ask")]


def test_the_application_may_send_an_event_of_its_own_for_an_error(app: Flask) -> None:
    view = partial(EventStream, on_error=lambda error: Event("sorry", "failure"))
    app.add_url_rule("/ask", "ask", lambda: view(failing("a")))
    _, error, end = read_events(app.test_client().get("/ask"))
    assert (error.type, error.data, end.type) == ("failure", "sorry", "stream-end")


@pytest.mark.parametrize("fails", ["raises", "returns what cannot be sent"])
def test_a_function_for_errors_that_fails_costs_its_message_alone(
    app: Flask, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    def explain(error: Exception) -> Any:
        if fails == "raises":
            raise LookupError("passwort=secret")
        return object()

    view = partial(EventStream, on_error=explain)
    app.add_url_rule("/ask", "ask", lambda: view(failing("a")))
    _, error, end = read_events(app.test_client().get("/ask"))
    assert (error.json, end.type) == ({"reason": "error"}, "stream-end")
    assert [record.getMessage() for record in caplog.records] == [
        "SSE-E15: An event stream's iterable failed",
        "SSE-E16: What a client is told of an error failed too",
    ]


@pytest.mark.usefixtures("calm")
def test_an_error_before_the_first_item_has_its_status_and_its_handler(
    app: Flask,
) -> None:
    seen = []

    def answer() -> Iterator[str]:
        abort(404 if "missing" in request.args else 403)
        yield "never"

    @app.errorhandler(403)
    def forbid(error: Exception) -> tuple[str, int]:
        return f"{request.path} is not for you", 403

    @app.after_request
    def see(response: Response) -> Response:
        seen.append(response.status_code)
        response.headers["X-Seen"] = "yes"
        return response

    client = serve(app, answer)
    response = client.get("/ask")
    assert (response.status_code, response.text) == (403, "/ask is not for you")
    assert response.headers["X-Seen"] == "yes"
    assert client.get("/ask?missing").status_code == 404
    # First the stream that was begun, then the answer in its place.
    assert seen == [200, 403, 200, 404]


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("key", ["TESTING", "DEBUG", "PROPAGATE_EXCEPTIONS"])
def test_where_errors_are_let_through_so_is_one_before_the_first_item(
    app: Flask, key: str
) -> None:
    app.config |= {"TESTING": False, key: True}
    with pytest.raises(RuntimeError, match="geheim"):
        serve(app, failing).get("/ask")


@pytest.mark.usefixtures("calm")
def test_elsewhere_it_is_a_500_that_is_logged_once(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    app.config["TESTING"] = False
    torn_down: list[Any] = []
    app.teardown_request(torn_down.append)
    response = serve(app, failing).get("/ask")
    assert response.status_code == 500
    assert b"geheim" not in response.data
    (record,) = caplog.records
    assert str(record.exc_info and record.exc_info[1]) == "password=geheim"
    assert len(torn_down) == 1


def test_what_ends_the_process_before_the_first_item_is_let_through(app: Flask) -> None:
    ends = []

    def items() -> Iterator[str]:
        try:
            raise SystemExit("the worker is told to end")
            yield ""
        finally:
            ends.append("items")

    def view() -> EventStream:
        stream = EventStream(items())
        stream.call_on_close(lambda: ends.append("response"))
        return stream

    app.add_url_rule("/ask", "ask", view)
    with pytest.raises(SystemExit, match="told to end"):
        app.test_client().get("/ask")
    assert ends == ["items", "response"]


def test_what_is_called_on_close_is_called_once_however_it_ends(app: Flask) -> None:
    closed = []

    def view(how: str) -> EventStream:
        items = {"whole": ["a"], "failing": failing("a"), "at once": failing()}[how]
        response = EventStream(items)
        response.call_on_close(lambda: closed.append(how))
        return response

    app.config["TESTING"] = False
    app.add_url_rule("/ask/<how>", view_func=view)
    for how in ("whole", "failing", "at once"):
        app.test_client().get(f"/ask/{how}").close()
    app.test_client().head("/ask/whole").close()
    assert closed == ["whole", "failing", "at once", "whole"]


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


async def asynchronous() -> AsyncIterator[str]:
    yield "never"


@pytest.mark.parametrize("make", [EventStream, SSE().run])
def test_what_is_asynchronous_is_refused_with_what_to_do(app: Flask, make: Any) -> None:
    with app.test_request_context(), pytest.raises(InvalidType, match="def with yield"):
        make(asynchronous())
