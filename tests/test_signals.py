"""The signals of an application: what each of them tells, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, Response, current_app, redirect, request
from flask.testing import FlaskClient

import flask_sse_lite
from flask_sse_lite import SSE, BrokerUnavailable, Publisher, signals
from flask_sse_lite.hub import current_hub
from flask_sse_lite.signals import courier as module
from flask_sse_lite.testing import await_signals, read_events

from .generating import lose_patience
from .patience import patient
from .servers import until

PATIENCE = patient(10)

NAMES = ["connected", "disconnected", "published", "gap", "refused"]
NAMES += ["run_started", "run_ended"]


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test waits at its end for the thread's."""
    monkeypatch.setattr(module, "LINGER", 0.02)


@pytest.fixture
def app(sse: SSE) -> Flask:
    app = Flask("application")
    app.config.update(SSE_HEARTBEAT=5, SECRET_KEY="secret")
    app.config["SSE_PUBLIC_CHANNELS"] = ["a", "b", "*"]
    sse.init_app(app)
    return app


class Told:
    """What the receivers of an application were told, in order."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._facts: list[tuple[str, dict[str, Any]]] = []

    def note(self, name: str, **facts: Any) -> None:
        self._facts.append((name, facts))

    @property
    def names(self) -> list[str]:
        await_signals(self._app, PATIENCE)
        return [name for name, _ in self._facts]

    def facts(self, wanted: str) -> list[dict[str, Any]]:
        await_signals(self._app, PATIENCE)
        return [facts for name, facts in self._facts if name == wanted]

    def await_one(self, name: str) -> dict[str, Any]:
        until(lambda: self.facts(name), PATIENCE)
        (facts,) = self.facts(name)
        return facts


@pytest.fixture
def told(app: Flask) -> Iterator[Told]:
    """Receivers of all signals."""
    told = Told(app)
    receivers = []
    for name in NAMES:

        def receiver(sender: Flask, *, name: str = name, **facts: Any) -> None:
            assert sender is current_app._get_current_object()  # type: ignore[attr-defined]
            told.note(name, **facts)

        receivers.append(receiver)
        getattr(signals, name).connect(receiver, app)
    yield told
    for name, receiver in zip(NAMES, receivers, strict=True):
        getattr(signals, name).disconnect(receiver, app)


def test_an_sse_has_the_signals_of_the_module(sse: SSE) -> None:
    for name in NAMES:
        assert getattr(sse, name) is getattr(signals, name)
        assert getattr(flask_sse_lite.sse, name) is getattr(signals, name)


# Streams


def test_a_stream_is_told_from_its_beginning_to_its_end(
    app: Flask, sse: SSE, told: Told
) -> None:
    stream = app.test_client().get("/stream?channel=a&channel=b")
    events = stream.iter_encoded()
    opening = next(events)
    (connected,) = told.facts("connected")
    assert connected == {
        "channels": ("a", "b"),
        "identity": None,
        "path": "iterated",
        "path_reason": "unsupported-server",
        "since": "",
    }
    with app.app_context():
        sse.publish("hello", channel="a")
        sse.publish("hello", channel="b")
    piece = next(events)
    assert piece.count(b"data: hello") == 2
    stream.close()
    disconnected = told.await_one("disconnected")
    assert disconnected.pop("seconds") >= 0
    assert disconnected.pop("bytes") == len(opening) + len(piece)
    assert disconnected == {
        "channels": ("a", "b"),
        "identity": None,
        "path": "iterated",
        "path_reason": "unsupported-server",
        "reason": "left",
        "events": 2,
    }
    assert told.names[0] == "connected"
    assert told.names[-1] == "disconnected"


def close(sse: SSE, stream: Any) -> None:
    stream.close()


def end_channel(sse: SSE, stream: Any) -> None:
    sse.close("a")


def disconnect(sse: SSE, stream: Any) -> None:
    sse.disconnect(channel="a")


def end_streams(sse: SSE, stream: Any) -> None:
    sse.end_streams()


def grow_old(sse: SSE, stream: Any) -> None:
    for each in current_hub()._audiences.iterated:
        each._expires = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (close, "left"),
        (end_channel, "ended"),
        (disconnect, "disconnect"),
        (end_streams, "end-streams"),
        (grow_old, "max-age"),
    ],
)
def test_the_end_of_an_iterated_stream_says_its_reason(
    app: Flask, sse: SSE, told: Told, do: Callable[[SSE, Any], None], reason: str
) -> None:
    stream = app.test_client().get("/stream?channel=a")
    pieces = stream.iter_encoded()
    next(pieces)
    with app.app_context():
        do(sse, stream)
    list(pieces)
    stream.close()
    assert told.await_one("disconnected")["reason"] == reason


def test_the_identity_and_the_id_of_a_client_are_told(
    app: Flask, sse: SSE, told: Told
) -> None:
    @app.get("/own")
    def own() -> Response:
        return sse.stream("a", identity="ann")

    with app.app_context():
        since = sse.publish("first", channel="a").id
    assert since
    stream = app.test_client().get("/own", headers={"Last-Event-ID": since})
    next(stream.iter_encoded())
    assert told.await_one("connected")["identity"] == "ann"
    assert told.await_one("connected")["since"] == since
    stream.close()
    assert told.await_one("disconnected")["identity"] == "ann"


def test_streams_that_have_lost_events_are_told_of(
    app: Flask, sse: SSE, told: Told
) -> None:
    stream = app.test_client().get("/stream?channel=a", headers={"Last-Event-ID": "x"})
    (event,) = read_events(stream, count=1)
    assert event.type == "stream-gap"
    assert told.facts("gap") == [{"channels": ("a",), "since": "x", "streams": 1}]


# Refusals


def refuse_by_authorizer(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    sse.authorizer(lambda channel: False)
    return client.get("/stream?channel=a")


def answer_by_authorizer(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    sse.authorizer(lambda channel: redirect("/"))
    return client.get("/stream?channel=a")


def ask_for_what_is_not_public(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    app.config["SSE_PUBLIC_CHANNELS"] = []
    return client.get("/stream?channel=a")


def ask_for_what_is_reserved(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    return client.get("/stream?channel=$run.a")


def bring_a_bad_token(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    with app.app_context():
        token = sse.sign("other")
    headers = {"Authorization": f"Bearer {token}"}
    return client.get("/stream?channel=a", headers=headers)


def come_second(app: Flask, client: FlaskClient, limit: str) -> Any:
    """Ask for a stream beside another one, where a limit is 1."""
    app.config[limit] = 1
    first = client.get("/stream?channel=first")
    next(first.iter_encoded())
    try:
        return client.get("/stream?channel=a")
    finally:
        first.close()


def come_as_one_too_many(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    return come_second(app, client, "SSE_MAX_CONNECTIONS")


def come_once_too_often(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    return come_second(app, client, "SSE_MAX_PER_CLIENT")


def name_one_channel_too_many(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    return come_second(app, client, "SSE_MAX_CHANNELS")


def come_together(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    """Two streams are let in while there is one place."""
    app.config["SSE_MAX_CONNECTIONS"] = 1
    first, second = client.get("/stream?channel=first"), client.get("/stream?channel=a")
    next(first.iter_encoded())
    list(second.iter_encoded())
    first.close()
    second.close()
    return second


def have_no_room_for_runs(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    app.config["SSE_MAX_RUNS"] = 1
    gate = threading.Event()

    def wait() -> Iterator[str]:
        yield "begun"
        gate.wait(PATIENCE)

    @app.get("/run/<name>")
    def run(name: str) -> Response:
        return sse.run(wait(), channel=name)

    first = client.get("/run/first")
    read_events(first, count=1)
    try:
        return client.get("/run/a")
    finally:
        gate.set()


def ask_from_another_site(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    app.config["SSE_SAME_SITE_RUNS"] = True

    @app.get("/run")
    def run() -> Response:
        return sse.run(["never"], channel="a")

    return client.get("/run", headers={"Sec-Fetch-Site": "cross-site"})


def have_the_server_stop(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    current_hub().is_stopping = True
    try:
        return client.get("/stream?channel=a")
    finally:
        current_hub().is_stopping = False


def have_the_broker_away(sse: SSE, app: Flask, client: FlaskClient) -> Any:
    def fail(*arguments: object, **options: object) -> None:
        raise BrokerUnavailable("It is away")

    app.extensions["sse"].broker.want = fail
    return client.get("/stream?channel=a")


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (refuse_by_authorizer, "authorizer"),
        (answer_by_authorizer, "authorizer"),
        (ask_for_what_is_not_public, "not-public"),
        (ask_for_what_is_reserved, "reserved"),
        (bring_a_bad_token, "token"),
        (ask_from_another_site, "cross-site"),
        (come_as_one_too_many, "full"),
        (come_together, "full"),
        (come_once_too_often, "client-full"),
        (name_one_channel_too_many, "channels-full"),
        (have_no_room_for_runs, "runs-full"),
        (have_the_server_stop, "stopping"),
        (have_the_broker_away, "broker-unavailable"),
    ],
)
def test_a_client_that_gets_no_stream_is_told_of(
    app: Flask,
    sse: SSE,
    told: Told,
    ask: Callable[[SSE, Flask, FlaskClient], Any],
    reason: str,
) -> None:
    client = app.test_client()
    ask(sse, app, client).close()
    facts = told.await_one("refused")
    assert facts["reason"] == reason
    assert facts["channels"][0] in ("a", "$run.a")
    assert facts["identity"] is None
    assert all(each["channels"] != ("a",) for each in told.facts("connected"))


# Publishes


def test_an_event_is_told_as_it_was_published(app: Flask, sse: SSE, told: Told) -> None:
    with app.app_context():
        event = sse.publish("hello", type="said", channel=["a", "b"])
        sse.disconnect(channel="a")  # No event of the application's.
    one, other = told.facts("published")
    assert other["event"] == event
    assert [each["event"].channel for each in (one, other)] == ["a", "b"]
    assert other["seconds"] >= one["seconds"] >= 0
    assert set(one) == {"event", "seconds"}


def test_a_publisher_without_an_application_tells_nothing(
    told: Told, tmp_path: Any
) -> None:
    with Publisher.from_url(f"sqlite:///{tmp_path}/events.db") as publisher:
        publisher.publish("hello")
    assert told.names == []


def test_a_receiver_that_publishes_is_told_of_that_later(
    app: Flask, sse: SSE, told: Told
) -> None:
    def echo(sender: Flask, event: Any, **facts: Any) -> None:
        if event.channel == "a":
            sse.publish(event.data, channel="b")

    with signals.published.connected_to(echo, app), app.app_context():
        sse.publish("hello", channel="a")
        until(lambda: len(told.facts("published")) == 2, PATIENCE)


# Runs


def run_of(app: Flask, sse: SSE, iterable: Any, **options: Any) -> Any:
    app.add_url_rule("/run", view_func=lambda: sse.run(iterable, **options))
    return app.test_client().get("/run")


def test_a_run_is_told_from_its_beginning_to_its_end(
    app: Flask, sse: SSE, told: Told
) -> None:
    *events, end = read_events(run_of(app, sse, iter("abc"), channel="job"))
    assert end.type == "stream-end"
    ended = told.await_one("run_ended")
    assert ended.pop("seconds") >= 0
    assert ended == {
        "channel": "job",
        "reason": "completed",
        "events": 3,
        "bytes": sum(len(event.encode()) for event in events),
    }
    assert told.facts("run_started") == [{"channel": "job"}]
    assert told.names.index("run_started") < told.names.index("run_ended")
    assert told.facts("published") == []


def failing() -> Iterator[str]:
    yield "one"
    raise ZeroDivisionError


def test_a_run_that_fails_is_told_so(app: Flask, sse: SSE, told: Told) -> None:
    read_events(run_of(app, sse, failing()))
    assert told.await_one("run_ended")["reason"] == "error"


@pytest.mark.parametrize("reason", ["closed", "abandoned", "shutdown", "lost"])
def test_a_run_that_is_ended_early_says_why(
    app: Flask, sse: SSE, told: Told, reason: str
) -> None:
    gate = threading.Event()

    def wait() -> Iterator[str]:
        yield "begun"
        gate.wait(PATIENCE)
        yield "on"

    with ExitStack() as stack:
        stack.callback(gate.set)
        stream = stack.enter_context(run_of(app, sse, wait(), channel="job", linger=0))
        pieces = stream.iter_encoded()
        while b"begun" not in next(pieces):
            pass
        (run,) = current_hub()._audiences.timed
        if reason == "closed":
            with app.app_context():
                sse.close("job")
        elif reason == "shutdown":
            run.stop()
        elif reason == "lost":

            def fail(*arguments: object) -> None:
                raise BrokerUnavailable("It is away")

            app.extensions["sse"].broker.say = fail
            gate.set()
        else:
            lose_patience()  # No look can have seen that somebody has taken it.
            stream.close()
        assert told.await_one("run_ended")["reason"] == reason


# What it costs where nobody listens


def test_without_a_receiver_nothing_is_told_and_no_thread_starts(
    app: Flask, sse: SSE, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **facts: object) -> None:
        raise AssertionError("The courier is called")

    for name in ("tell", "stay_for", "leave"):
        monkeypatch.setattr(module.Courier, name, fail)
    read_events(run_of(app, sse, iter("abc")))
    with app.app_context():
        stream = app.test_client().get("/stream?channel=a")
        sse.publish("hello", channel="a")
        assert len(read_events(stream, count=1)) == 1
        assert app.test_client().get("/stream?channel=$run.a").status_code == 403
    assert module.THREAD not in {thread.name for thread in threading.enumerate()}


def test_a_receiver_of_one_application_starts_nothing_in_another(
    app: Flask, told: Told
) -> None:
    other = Flask("other")
    own = SSE()
    own.init_app(other)
    with other.app_context():
        own.publish("hello")
    await_signals(other, PATIENCE)
    assert told.names == []


def test_whoever_waits_for_a_receiver_that_hangs_is_told_so(
    app: Flask, sse: SSE
) -> None:
    gate = threading.Event()

    def hang(sender: Flask, **facts: Any) -> None:
        gate.wait(PATIENCE)

    with signals.published.connected_to(hang, app), app.app_context():
        sse.publish("hello")
        with pytest.raises(AssertionError, match=r"take more than 0\.1 s"):
            await_signals(app, 0.1)
        gate.set()
        await_signals(app, PATIENCE)


def test_the_request_is_not_the_context_of_a_receiver(app: Flask, sse: SSE) -> None:
    seen = []

    def look(sender: Flask, **facts: Any) -> None:
        seen.append(bool(request))

    @app.post("/say")
    def say() -> str:
        sse.publish("hello")
        return ""

    with signals.published.connected_to(look, app):
        app.test_client().post("/say")
        await_signals(app, PATIENCE)
    assert seen == [False]
