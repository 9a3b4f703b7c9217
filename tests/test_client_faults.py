"""A bad value that a client sent is answered by 400. One that the application chose is
an error of the application's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient
from flask.typing import ResponseReturnValue

from flask_sse_lite import SSE, EventStream, InvalidType, InvalidValue


@pytest.fixture
def app(sse: SSE) -> Flask:
    """An application that answers errors as in production."""
    app = Flask("application")
    app.config["SSE_HEARTBEAT"] = 0.4
    app.register_blueprint(sse)
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def close(sse: SSE, name: Any) -> str:
    sse.close(name)
    return "closed"


VERBS: dict[str, Callable[[SSE, Any], Any]] = {
    "stream": lambda sse, name: sse.stream("good", name, replay=1),
    "run": lambda sse, name: sse.run(iter(["done"]), channel=name),
    "messages": lambda sse, name: str(list(sse.messages(name, timeout=0))),
    "publish": lambda sse, name: sse.publish("x", channel=name).data,
    "publish to some": lambda sse, name: sse.publish("x", channel=["a", name]).data,
    "publish to an iterator": lambda sse, name: sse.publish("x", channel=iter([name])),
    "close": close,
    "subscribers": lambda sse, name: str(sse.subscribers(name)),
    "type": lambda sse, name: sse.publish("x", type=name).data,
    "id": lambda sse, name: sse.publish("x", id=name).data,
    "type of a run": lambda sse, name: sse.run(iter(["done"]), type=name),
    "type of items": lambda sse, name: EventStream(iter(["done"]), type=name),
}
LINES = ["type", "id", "type of a run", "type of items"]
NAMES = [name for name in VERBS if name not in LINES]

#: What views make of a client's text.
MADE: dict[str, Callable[[str], str]] = {
    "as it is": lambda said: said,
    "in a name": lambda said: f"job.{said}",
    "in capitals": lambda said: f"job.{said}".upper(),
    "cut": lambda said: f"job.{said[-300:]}",
}


def view(app: Flask, function: Callable[[], Any]) -> None:
    def answer() -> ResponseReturnValue:
        result = function()
        return result if isinstance(result, Response) else str(result)

    app.add_url_rule("/view", "view", answer, methods=["GET", "POST"])


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        *itertools.product(NAMES, ["a\nb", "a\x7f", "a" * 300, "\0"]),
        *itertools.product(LINES, ["a\nb", "a\0", "\r"]),
    ],
)
@pytest.mark.parametrize("made", MADE)
def test_what_a_client_says_wrongly_is_its_own_fault(
    app: Flask,
    client: FlaskClient,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    verb: str,
    said: str,
    made: str,
) -> None:
    view(app, lambda: VERBS[verb](sse, MADE[made](request.values["said"])))
    for request_ in ({"query_string": {"said": said}}, {"data": {"said": said}}):
        method = "POST" if "data" in request_ else "GET"
        answer = client.open("/view", method=method, **request_)  # type: ignore[arg-type]
        assert answer.status_code == 400
    assert errors(caplog) == []


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("query", ["", "said=fine", "said=n", "said=%0d"])
def test_what_the_application_has_chosen_is_its_own_fault(
    app: Flask,
    client: FlaskClient,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    verb: str,
    query: str,
) -> None:
    view(app, lambda: VERBS[verb](sse, "a name\nof two lines"))
    answer = client.get(f"/view?{query}")
    assert answer.status_code == 500
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("verb", ["stream", "messages", "publish", "close"])
def test_a_channel_of_the_extension_is_no_client_s_to_name(
    app: Flask, client: FlaskClient, sse: SSE, verb: str
) -> None:
    view(app, lambda: VERBS[verb](sse, request.args["said"]))
    assert client.get("/view?said=$run.x").status_code == 400
    assert client.get("/view?said=").status_code == 400


@pytest.mark.parametrize("verb", NAMES)
@pytest.mark.parametrize("said", [None, True, ["a"], {"a": 1}, [], "a\nb", "", 0.5])
def test_json_of_the_wrong_kind_is_the_client_s_fault(
    app: Flask,
    client: FlaskClient,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    verb: str,
    said: Any,
) -> None:
    view(app, lambda: VERBS[verb](sse, request.json["deep"][0]["said"]))
    with client.post("/view", json={"deep": [{"said": said}]}) as answer:
        # These are valid: a number, a list of channels to publish to, a run without
        # one.
        good = said == 0.5 or (verb, said) in [("publish", ["a"]), ("run", None)]
        assert answer.status_code == (200 if good else 400)
    assert errors(caplog) == []


def test_a_name_that_is_left_out_is_the_client_s_fault(
    app: Flask, client: FlaskClient, sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    view(app, lambda: sse.stream(request.args.get("room")))  # type: ignore[arg-type]
    assert client.get("/view").status_code == 400
    assert errors(caplog) == []


def reasons(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage().partition("by 400, as ")[2])
        for record in caplog.records
        if "answered by 400" in record.getMessage()
    ]


@pytest.mark.parametrize("is_debug", [False, True])
def test_the_log_says_why_a_request_is_refused(
    app: Flask,
    client: FlaskClient,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    is_debug: bool,
) -> None:
    app.debug = is_debug
    caplog.set_level("INFO", app.logger.name)
    view(app, lambda: sse.stream(request.args["room"]))
    assert client.get("/view?room=%0a").status_code == 400
    assert reasons(caplog) == [
        (
            "WARNING" if is_debug else "INFO",
            "the client sent a bad value: "
            r"A channel's name has no control characters: '\n'",
        )
    ]


@pytest.mark.parametrize("names", [(), (None,)])
def test_a_view_that_gives_nothing_is_warned_of_once(
    app: Flask,
    client: FlaskClient,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    names: tuple[Any, ...],
) -> None:
    view(app, lambda: sse.stream(*names))
    for _ in range(3):
        assert client.get("/view").status_code == 400
    (reason,) = [reason for level, reason in reasons(caplog) if level == "WARNING"]
    assert reason.startswith("the client left a value out, or the view gave none: ")


@pytest.mark.parametrize("count", [0, 65, 200])
def test_a_number_of_names_that_cannot_be_is_the_client_s_fault(
    app: Flask,
    client: FlaskClient,
    sse: SSE,
    caplog: pytest.LogCaptureFixture,
    count: int,
) -> None:
    names = [f"x{number}" for number in range(count)]

    def answer() -> Response:
        listed = request.args.getlist("room") or request.args.get("rooms", "").split()
        return sse.stream(*(f"room.{name}" for name in listed))

    view(app, answer)
    for query in ({"room": names}, {"rooms": " ".join(names)}):
        assert client.get("/view", query_string=query).status_code == 400
    assert errors(caplog) == []


def test_too_many_names_of_the_application_are_its_own_fault(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    view(app, lambda: sse.stream(*(f"room.{number}" for number in range(65))))
    assert client.get("/view?room=fine").status_code == 500


@pytest.mark.parametrize(
    ("argument", "said"), [("replay", -5), ("timeout", -5), ("retry", -5)]
)
def test_a_number_that_a_client_says_wrongly_is_its_own_fault(
    app: Flask, client: FlaskClient, sse: SSE, argument: str, said: int
) -> None:
    verbs: dict[str, Callable[[int], Any]] = {
        "replay": lambda number: sse.stream("a", replay=number),
        "timeout": lambda number: sse.messages("a", timeout=number),
        "retry": lambda number: sse.publish("a", retry=number),
    }
    view(app, lambda: verbs[argument](request.args.get("n", said, int)))
    assert client.get(f"/view?n={said}").status_code == 400
    assert client.get("/view").status_code == 500


@pytest.mark.parametrize("said", ["-1", "-1.50", "-1e0", "-inf", "NaN"])
def test_a_number_may_be_written_in_any_way(
    app: Flask, client: FlaskClient, sse: SSE, said: str
) -> None:
    def linger() -> Response:
        return sse.run(iter(["done"]), linger=float(request.values["n"]))

    view(app, linger)
    assert client.get(f"/view?n={said}").status_code == 400
    assert client.post("/view", data={"n": said}).status_code == 400


@pytest.mark.parametrize(
    "call",
    [
        lambda sse: sse.stream("a", replay=-1),
        lambda sse: sse.run(iter(["done"]), linger=-1),
        lambda sse: sse.run(iter(["done"]), linger=-1.0),
        lambda sse: sse.messages("a", timeout=-1),
        lambda sse: sse.publish("x", retry=-1),
    ],
)
def test_a_number_of_the_application_is_its_own_whatever_browsers_are_called(
    app: Flask, client: FlaskClient, sse: SSE, call: Callable[[SSE], Any]
) -> None:
    view(app, lambda: call(sse))
    headers = {"User-Agent": "Browser/5.0-1 (rv:109.0-1.0; -1x)", "DNT": "1"}
    assert client.get("/view?page=1", headers=headers).status_code == 500


def test_data_that_is_no_unicode_is_the_client_s_fault(
    app: Flask, client: FlaskClient, sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    def publish() -> str:
        data = request.json["text"] if request.is_json else request.get_data()
        return sse.publish(data).data

    view(app, publish)
    assert client.post("/view", data=b"\xff").status_code == 400
    lone = client.post("/view", data='{"text": "\\ud800"}', mimetype="application/json")
    assert lone.status_code == 400
    assert errors(caplog) == []


@pytest.mark.parametrize("header", ["X-Room", "Cookie", "Authorization"])
def test_headers_are_the_client_s_too(
    app: Flask, client: FlaskClient, sse: SSE, header: str
) -> None:
    def answer() -> Response:
        user = request.authorization and request.authorization.username
        name = request.headers.get("X-Room") or request.cookies.get("room") or user
        return sse.stream(f"room.{name}")

    view(app, answer)
    long = "r" * 300
    if header == "Authorization":
        response = client.get("/view", auth=(long, "password"))
    else:
        client.set_cookie("room", long)
        headers = {header: long} if header == "X-Room" else {}
        response = client.get("/view", headers=headers)
    assert response.status_code == 400


def test_the_answer_says_what_is_wrong_and_shows_no_html(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    view(app, lambda: sse.stream(request.args["room"]))
    text = client.get("/view?room=%0a<script>").text
    assert "no control characters" in text
    assert "<script>" not in text


def test_the_application_s_error_handlers_see_both(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    view(app, lambda: sse.stream(request.args["room"]))
    app.errorhandler(InvalidValue)(lambda error: (f"mine: {error}", 422))
    answer = client.get("/view?room=%0a")
    assert (answer.status_code, answer.text[:30]) == (
        422,
        "mine: A channel's name has no ",
    )


def test_it_is_an_error_of_ours_still(app: Flask, sse: SSE) -> None:
    with app.test_request_context("/?room=%0a"), pytest.raises(InvalidValue):
        sse.stream(request.args["room"])
    with app.test_request_context("/"), pytest.raises(InvalidType):
        sse.stream(request.args.get("room"))  # type: ignore[arg-type]


def test_a_large_body_is_not_looked_through(
    app: Flask, client: FlaskClient, sse: SSE
) -> None:
    view(app, lambda: sse.stream(request.json["room"]))
    body = {"room": "\n", "more": "x" * 1024 * 1024}
    assert client.post("/view", json=body).status_code == 500
