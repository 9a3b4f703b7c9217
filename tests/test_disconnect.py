"""Who is disconnected gets nothing more, on any worker, until a view has let it in
anew; and nobody else loses anything."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Request, Response, abort, request
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_sse_lite import (
    SSE,
    BrokerUnavailable,
    Event,
    InvalidValue,
    Publisher,
    SetupError,
)
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.hub import current_hub
from flask_sse_lite.testing import read_events

from . import IS_LONG
from .members import Opened, World
from .patience import patient
from .redis_servers import redis_server
from .servers import Client, Server, process_of, serve, several, stopped, until

#: Random steps of a test on each broker.
STEPS = 10_000 if IS_LONG else 2_500

#: Applications on one store, each with a log and a follower of its own.
APPLICATIONS = 4


def application(**config: Any) -> tuple[Flask, SSE]:
    app = Flask("members")
    app.config.update(SSE_HEARTBEAT=patient(30), SSE_PUBLIC_CHANNELS=["*"], **config)
    sse = SSE()

    @sse.identity
    def who() -> str | None:
        return request.headers.get("X-User")

    @app.get("/room/<room>")
    def room(room: str) -> Response:
        return sse.stream(room)

    sse.init_app(app)
    return app, sse


@pytest.fixture
def app() -> Iterator[Flask]:
    app, _ = application()
    with app.app_context():
        yield app


@pytest.fixture
def sse(app: Flask) -> SSE:
    sse = app.blueprints["sse"]
    assert isinstance(sse, SSE)
    return sse


def ask(app: Flask, target: str, user: str | None = None) -> TestResponse:
    headers = {"X-User": user} if user else {}
    return app.test_client().get(target, headers=headers)


def data_of(response: TestResponse, timeout: float = patient(30)) -> list[str]:
    """The data of all events up to the stream's end, which must come."""
    (opening, *events) = read_events(response, timeout=timeout, bookkeeping=True)
    assert opening.type == "stream-open"
    assert not any(event.type == "stream-end" for event in events)
    return [event.data for event in events]


# Whose streams end


def test_the_streams_of_an_identity_end_and_no_others(app: Flask, sse: SSE) -> None:
    own = [ask(app, "/stream", "ann"), ask(app, "/room/x", "ann")]
    others = [ask(app, "/stream", "bob"), ask(app, "/stream")]
    opened = [[next(r.iter_encoded())] for r in (*own, *others)]
    assert all(opened)
    sse.disconnect(identity="ann")
    sse.publish("later")
    for response in own:
        assert b"".join(response.iter_encoded()) == b""
    for response in others:
        assert b"later" in next(response.iter_encoded())
        response.close()


@pytest.mark.parametrize(
    ("revoked", "ended"),
    [
        ({"channel": "x"}, ["ann in x", "bob in x"]),
        ({"identity": "ann", "channel": "x"}, ["ann in x"]),
        ({"identity": "ann"}, ["ann in sse", "ann in x"]),
        ({"identity": 7}, []),
    ],
)
def test_an_identity_a_channel_or_both(
    app: Flask, sse: SSE, revoked: dict[str, Any], ended: list[str]
) -> None:
    streams = {
        f"{user} in {channel}": ask(app, target, user)
        for user in ("ann", "bob")
        for channel, target in (("sse", "/stream"), ("x", "/room/x"))
    }
    for response in streams.values():
        next(response.iter_encoded())
    sse.disconnect(**revoked)
    sse.publish("later", channel=["sse", "x"])
    found = []
    for name, response in streams.items():
        if not next(response.iter_encoded(), b""):
            found.append(name)
        response.close()
    assert sorted(found) == ended


def test_a_view_of_its_own_says_whose_a_stream_is(app: Flask, sse: SSE) -> None:
    app.add_url_rule("/own", "own", lambda: sse.stream("x", identity=7))
    response = ask(app, "/own", "ann")
    next(response.iter_encoded())
    sse.disconnect(identity="7")
    assert next(response.iter_encoded(), b"") == b""


def test_a_token_says_whose_a_stream_is(app: Flask, sse: SSE) -> None:
    app.secret_key = "a key of the tests"
    token = sse.sign("x", identity="ann")
    headers = {"Authorization": f"Bearer {token}", "X-User": "bob"}
    response = app.test_client().get("/stream", headers=headers)
    next(response.iter_encoded())
    sse.disconnect(identity="ann")
    assert next(response.iter_encoded(), b"") == b""


def test_a_run_goes_on_when_its_reader_is_disconnected(app: Flask, sse: SSE) -> None:
    go_on = threading.Event()

    def answer() -> Iterator[str]:
        yield "first"
        go_on.wait()
        yield "second"

    app.add_url_rule("/run", "run", lambda: sse.run(answer()))
    response = ask(app, "/run", "ann")
    assert b"first" in b"".join(next(response.iter_encoded()) for _ in range(2))
    sse.disconnect(identity="ann")
    assert next(response.iter_encoded(), b"") == b""
    go_on.set()
    again = ask(app, response.headers["Content-Location"], "ann")
    events = read_events(again, timeout=patient(30))
    assert [event.data for event in events[:2]] == ["first", "second"]


# When it counts


def test_a_request_that_began_before_is_not_let_in(app: Flask, sse: SSE) -> None:
    """The view has decided, and the client is disconnected before its stream begins."""

    @app.get("/slow")
    def slow() -> Response:
        sse.disconnect(identity="ann")
        return sse.stream("x")

    response = ask(app, "/slow", "ann")
    next(response.iter_encoded())
    sse.publish("later", channel="x")
    assert b"".join(response.iter_encoded()) == b""


def test_the_authorizer_is_of_the_same_request(app: Flask, sse: SSE) -> None:
    @sse.authorizer
    def may_listen(channel: str) -> bool:
        sse.disconnect(identity="ann")
        return True

    assert data_of(ask(app, "/stream?channel=x", "ann")) == []


def test_who_is_let_in_anew_goes_on_where_it_was(app: Flask, sse: SSE) -> None:
    response = ask(app, "/stream", "ann")
    next(response.iter_encoded())
    first = sse.publish("first")
    assert b"first" in next(response.iter_encoded())
    sse.disconnect(identity="ann")
    sse.publish("second")
    assert next(response.iter_encoded(), b"") == b""
    again = ask(app, f"/stream?last_event_id={first.id}", "ann")
    assert [event.data for event in read_events(again, count=1)] == ["second"]


def test_a_session_that_is_read_before_counts_as_let_in_before(
    app: Flask, sse: SSE
) -> None:
    """Flask reads the session before it calls anything of the application's."""

    class Slow(SecureCookieSessionInterface):
        def open_session(self, app: Flask, request: Request) -> Any:
            opened = super().open_session(app, request)
            sse.disconnect(identity="ann")  # By another request, meanwhile.
            return opened

    app.secret_key = "a key of the tests"
    app.session_interface = Slow()
    assert data_of(ask(app, "/stream", "ann")) == []


def test_a_channel_that_was_long_unused_hears_of_revocations(tmp_path: Path) -> None:
    app, sse = application(SSE_URL=f"sqlite:///{tmp_path}/events.db", SSE_HISTORY_AGE=1)
    with app.app_context():
        ask(app, "/stream").close()
        response = ask(app, "/stream", "ann")
        log = app.extensions["sse"].log
        log._clock = lambda: time.monotonic() + 60
        for _ in range(3):
            sse.publish("touches the channel")
        until(lambda: log.sequence >= 3)
        sse.disconnect(identity="ann")
        sse.publish("later")
        until(lambda: log.sequence >= 5)
        assert "later" not in data_of(response)
        app.extensions["sse"].close()


def test_another_sse_of_the_application_knows_who_the_client_is(
    app: Flask, sse: SSE
) -> None:
    ready = SSE("ready")
    ready.init_app(app, url_prefix=None)
    app.add_url_rule("/ready", "ready", lambda: ready.stream("x"))
    response = ask(app, "/ready", "ann")
    next(response.iter_encoded())
    sse.disconnect(identity="ann")
    assert next(response.iter_encoded(), b"") == b""


@pytest.mark.parametrize("user", ["", "x" * 513])
def test_an_identity_that_a_client_chose_badly_is_the_client_s_fault(
    app: Flask, user: str
) -> None:
    headers = {"X-User": user}
    response = app.test_client().get("/stream", headers=headers)
    assert response.status_code == 400


def test_an_application_that_is_gone_is_not_kept(app: Flask, sse: SSE) -> None:
    with ask(app, "/stream") as kept:
        next(kept.iter_encoded())
        hub = current_hub()
        other, _ = application()
        with ask(other, "/stream") as response:
            next(response.iter_encoded())
            assert len(hub._revoking._seen) == 2
        until(lambda: len(hub._revoking._seen) == 1)


def test_a_stream_that_nobody_reads_yet_sends_nothing(app: Flask, sse: SSE) -> None:
    since = sse.position()
    sse.publish("before")
    response = ask(app, f"/stream?last_event_id={since}", "ann")
    sse.disconnect(identity="ann")
    assert data_of(response) == []


# What is refused


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"identity": ""},
        {"identity": "x" * 513},
        {"identity": b"ann"},
        {"identity": True},
        {"channel": "two\nlines"},
        {"channel": "$revocations"},
    ],
)
def test_what_is_no_identity_and_no_channel_is_an_error(
    app: Flask, sse: SSE, named: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValue):
        sse.disconnect(**named)


def test_who_is_held_off_is_sent_off_by_a_server_that_iterates_too(
    app: Flask, sse: SSE
) -> None:
    sse.disconnect(identity="ann", hold_off=60)
    sse.publish("later")
    assert data_of(ask(app, "/stream", "ann")) == []
    other = ask(app, "/stream", "bob")
    next(other.iter_encoded())
    sse.publish("for bob")
    assert b"for bob" in next(other.iter_encoded())
    other.close()


@pytest.mark.parametrize("hold_off", [-0.1, 60.1, float("nan"), "5", None])
def test_nobody_is_held_off_for_what_is_no_time(
    app: Flask, sse: SSE, hold_off: Any
) -> None:
    before = sse.position()
    with pytest.raises(InvalidValue, match="hold_off is up to 60 seconds"):
        sse.disconnect(identity="ann", hold_off=hold_off)
    assert sse.position() == before


@pytest.mark.parametrize(
    "target", ["/stream?channel=$revocations", "/room/$revocations"]
)
def test_nobody_can_listen_to_revocations(app: Flask, target: str) -> None:
    assert ask(app, target).status_code in (400, 403)


def test_an_application_has_one_identity_function(app: Flask, sse: SSE) -> None:
    with pytest.raises(SetupError, match="identity function"):
        sse.identity(lambda: "somebody else")


def test_where_the_broker_is_away_nobody_is_disconnected(tmp_path: Path) -> None:
    with redis_server() as server:
        app, sse = application(SSE_URL=server.url)
        with app.app_context():
            sse.disconnect(identity="ann")
            server.stop()
            with pytest.raises(BrokerUnavailable):
                sse.disconnect(identity="ann")
            app.extensions["sse"].close()


# Limits


def test_a_client_has_so_many_streams_and_no_more() -> None:
    app, _ = application(SSE_MAX_PER_CLIENT=2)
    with ExitStack() as stack:

        def status(user: str | None) -> int:
            response = stack.enter_context(ask(app, "/stream", user))
            if response.status_code == 200:
                next(response.iter_encoded())
            return response.status_code

        for user in ("ann", "bob", None):
            assert [status(user) for _ in range(4)] == [200, 200, 503, 503]
    with ask(app, "/stream", "ann") as response:
        assert response.status_code == 200


def test_strangers_name_so_many_channels_and_no_more() -> None:
    app, sse = application(SSE_MAX_CHANNELS=4)
    app.add_url_rule(
        "/rooms/<rooms>", view_func=lambda rooms: sse.stream(*rooms.split("+"))
    )
    with ExitStack() as stack:

        def status(*names: str) -> int:
            response = stack.enter_context(ask(app, f"/rooms/{'+'.join(names)}"))
            if response.status_code == 200:
                next(response.iter_encoded())
            return response.status_code

        assert status("a", "b", "c") == 200
        assert status("a", "d", "e") == 503
        assert status("a", "d") == 200
        assert status("e") == 503
        assert status("d", "c", "b", "a") == 200
        with app.app_context():
            assert sse.publish("nobody listens", channel="f").id
        stack.close()
        # The hub can still be busy with a stream that has just been closed.
        until(lambda: status("e", "f", "g", "h") == 200)


def test_a_browser_past_its_limit_is_told_to_come_back() -> None:
    app, _ = application(SSE_MAX_PER_CLIENT=1)
    client: FlaskClient = app.test_client()
    with client.get("/stream") as first:
        next(first.iter_encoded())
        second = client.get("/stream", headers={"Accept": "text/event-stream"})
        assert (second.status_code, second.text[:7]) == (200, "retry: ")


# By chance


class Applications:
    """Applications on one store: see ``members.Service``."""

    def __init__(self, url: str, count: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._forbidden: set[str] = set()
        self._applications = [self._application(url) for _ in range(count)]

    def _application(self, url: str) -> tuple[Flask, SSE]:
        app, sse = application(SSE_URL=url, SSE_HISTORY=100_000)

        @app.before_request
        def refuse() -> None:
            if request.headers["X-User"] in self._forbidden:
                abort(403)

        return app, sse

    def _any(self) -> tuple[Flask, SSE]:
        return self._random.choice(self._applications)

    def publish(self, text: str) -> str | None:
        app, sse = self._any()
        with app.app_context():
            return sse.publish(text, channel="room").id

    def listen(self, user: str, since: str) -> Opened | None:
        app, _ = self._any()
        target = f"/room/room?last_event_id={since}" if since else "/room/room"
        response = ask(app, target, user)
        if response.status_code == 403:
            return None
        assert response.status_code == 200
        return Opened(events_of(response), response.close)

    def disconnect(self, user: str, text: str) -> str | None:
        app, sse = self._any()
        with app.app_context():
            sse.disconnect(identity=user)
            return sse.publish(text, channel="room").id

    def forbid(self, user: str) -> None:
        self._forbidden.add(user)

    def admit(self, user: str) -> None:
        self._forbidden.discard(user)

    def close(self) -> None:
        for app, _ in self._applications:
            app.extensions["sse"].close()


def events_of(response: TestResponse) -> Iterator[Event]:
    decoder = Decoder()
    for piece in response.iter_encoded():
        yield from decoder.feed(piece)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_whatever_happens_who_is_out_gets_nothing_and_others_everything(
    kind: str, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    with ExitStack() as stack:
        url, count = "memory://", 1
        if kind == "sqlite":
            url, count = f"sqlite:///{tmp_path}/events.db", APPLICATIONS
        elif kind == "redis":
            url, count = stack.enter_context(redis_server()).url, APPLICATIONS
        applications = Applications(url, count, seed)
        stack.callback(applications.close)
        world = World(applications, seed)
        stack.callback(world.close)
        world.run(STEPS)
        world.end()
        world.check()


# Real workers

WORKERS = 2


@pytest.fixture(params=["gunicorn sync", "gunicorn gthread", "gunicorn gevent"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with serve(
        request.param,
        app="tests.applications.members:app",
        options=several(request.param, WORKERS),
        SSE_URL=f"sqlite:///{tmp_path}/events.db",
        BANS=str(tmp_path),
    ) as server:
        yield server


def members(server: Server, stack: ExitStack, user: str, count: int) -> list[Client]:
    """Streams of a user, which all workers serve."""
    streams: list[Client] = []
    served: set[int] = set()
    while len(served) < WORKERS or len(streams) < count:
        with stopped(served if len(served) < WORKERS else ()):
            stream = stack.enter_context(Client(server.port))
            stream.request("/room/a", headers={"X-User": user})
        assert stream.status == 200
        streams.append(stream)
        served.add(process_of(stream))
    return streams


def test_all_workers_throw_out_who_is_banned(server: Server) -> None:
    with ExitStack() as stack:
        banned = members(server, stack, "ann", 4)
        others = members(server, stack, "bob", 4)
        server.publish({"data": "before", "channel": "a"})
        for stream in (*banned, *others):
            assert [event.data for event in stream.take(1)] == ["before"]
        assert server.request("POST", "/ban/ann").status == 204
        server.publish({"data": "after", "channel": "a"})
        for stream in banned:
            assert list(stream.take(9)) == []
        for stream in others:
            assert [event.data for event in stream.take(1)] == ["after"]
        with Client(server.port) as again:
            again.request("/room/a", headers={"X-User": "ann"})
            assert again.status == 403


def test_who_is_held_off_gets_nothing_though_a_view_lets_them_in(
    server: Server,
) -> None:
    """A logout takes a cookie away by its response: a stream that comes back before
    that is let in."""
    with ExitStack() as stack:
        left = members(server, stack, "ann", 2)
        assert server.request("POST", "/leave/ann?hold_off=60").status == 204
        back = members(server, stack, "ann", 2)
        others = members(server, stack, "bob", 2)
        server.publish({"data": "after", "channel": "a"})
        for stream in (*left, *back):
            assert list(stream.take(9)) == []
        for stream in others:
            assert [event.data for event in stream.take(1)] == ["after"]


def test_who_was_held_off_is_let_in_when_that_is_over(server: Server) -> None:
    with ExitStack() as stack:
        assert server.request("POST", "/leave/ann?hold_off=0.5").status == 204
        (position,) = server.publish({"data": "after", "channel": "a"})
        before = position.rpartition("-")[0] + "-0"

        def got() -> list[str]:
            stream = stack.enter_context(Client(server.port))
            headers = {"X-User": "ann", "Last-Event-ID": before}
            stream.request("/room/a", headers=headers)
            return [event.data for event in stream.take(1)]

        assert until(got) == ["after"]


def test_a_channel_is_emptied_from_outside(server: Server, tmp_path: Path) -> None:
    with ExitStack() as stack:
        streams = members(server, stack, "ann", 2)
        url = f"sqlite:///{tmp_path}/events.db"
        publisher = stack.enter_context(Publisher.from_url(url))
        publisher.disconnect(channel="a")
        publisher.publish("after", channel="a")
        for stream in streams:
            assert list(stream.take(9)) == []
