"""Subscriptions: what each of the phases in which a stream begins leads to."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import Hub, subscription
from flask_sse_lite.hub.client import NOBODY, Client
from flask_sse_lite.hub.subscription import Phase, Subscription
from flask_sse_lite.servers.server import Refusal
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED

from .hub_parts import Story
from .patience import patient
from .servers import until
from .stand_ins import is_bounded


class StandIn:
    """A server that lends its connections."""

    name = "stand-in"

    def __init__(self) -> None:
        self.environ = {
            **{"SERVER_PROTOCOL": "HTTP/1.1", "REQUEST_METHOD": "GET"},
            "PATH_INFO": "/stream",
        }
        #: How often it was to close the connection behind the response.
        self.closes = 0

    def close_after(self) -> None:
        self.closes += 1


class Told(Story):
    """What is told of a subscription, as lists."""

    def __init__(self) -> None:
        super().__init__()
        self.path_reason: str | None = None
        self.began: list[str] = []
        self.refusals: list[str] = []

    def begin(self, path: str) -> None:
        self.began.append(path)

    def refuse(self, reason: str) -> None:
        self.refusals.append(reason)

    def end(self, why: str = "left", unsent: int = 0) -> None:
        super().end(why, unsent)


@pytest.fixture
def log() -> Log:
    return Log(history=9, age=9)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr(subscription, "current_hub", lambda: hub)
    yield hub
    hub.stop(patient(10))
    until(lambda: not hub.is_running, patient(10))
    hub.abandon()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Every response is this server's."""
    server = StandIn()
    monkeypatch.setattr(subscription, "find_server", lambda *_: server)
    monkeypatch.setattr(subscription, "program_of", lambda _: None)
    monkeypatch.setattr(subscription, "check_request", lambda _: None)
    monkeypatch.setattr(subscription, "known_socket", lambda *_: None)
    return server


def subscribe(
    log: Log, story: Any = None, client: Client = NOBODY, **settings: object
) -> Subscription:
    settings.setdefault("SSE_HEARTBEAT", 0.8)
    cursor = log.cursor(["a"])
    return Subscription(log, cursor, Settings.read(settings), client, story=story)


def phase_of(stream: Subscription) -> Phase:
    """A function's answer, so that the type checker expects it to change."""
    return stream.phase


def begin(stream: Subscription) -> list[Phase]:
    """Start the response, and take the opening."""
    phases = [stream.phase]
    stream.started({}, print)
    phases.append(stream.phase)
    assert b"stream-open" in next(stream)
    return [*phases, stream.phase]


def test_where_nobody_started_the_response_the_stream_is_iterated(
    log: Log, hub: Hub
) -> None:
    stream = subscribe(log)
    assert phase_of(stream) is Phase.UNSTARTED
    assert b"stream-open" in next(stream)
    phases = [stream.phase]
    assert hub.stats()["reasons"] == {"body-taken": 1}
    assert hub.stats()["iterated"] == {"something has taken the body to itself": 1}
    assert hub.stats()["open"] == {"handed off": 0, "iterated": 1}
    log.append("a", Event("1"))
    assert b"data: 1" in next(stream)
    stream.close()
    assert [*phases, stream.phase] == [Phase.ITERATED, Phase.OVER]
    assert next(stream, None) is None
    # The hub can be in the midst of a look.
    until(lambda: len(hub) == 0, patient(10))
    until(lambda: hub.stats()["open"] == {"handed off": 0, "iterated": 0}, patient(10))


@pytest.mark.usefixtures("server")
def test_where_no_handoff_is_wanted_the_stream_is_iterated(log: Log, hub: Hub) -> None:
    stream = subscribe(log, SSE_HANDOFF=False)
    assert begin(stream) == [Phase.UNSTARTED, Phase.STARTED, Phase.ITERATED]
    assert hub.stats()["reasons"] == {"switched-off": 1}
    stream.close()
    assert len(hub) == 0


@pytest.mark.usefixtures("server")
def test_where_the_handoff_is_refused_the_stream_is_iterated(
    log: Log, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_connection(*_: object, trusted: bool) -> tuple[int, bool]:
        raise Refusal("the connection is no plain socket", "tls")

    monkeypatch.setattr(subscription, "take_connection", take_connection)
    stream = subscribe(log)
    assert begin(stream) == [Phase.UNSTARTED, Phase.STARTED, Phase.OPENED]
    log.append("a", Event("1"))
    assert b"data: 1" in next(stream)
    assert phase_of(stream) is Phase.ITERATED
    assert hub.stats()["reasons"] == {"tls": 1}
    log.end("a")
    assert b"stream-end" in next(stream)
    assert phase_of(stream) is Phase.OVER
    assert next(stream, None) is None
    assert len(hub) == 0  # It does not wait for the server to close it.
    stream.close()


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
@pytest.mark.usefixtures("server")
def test_a_stream_that_is_handed_off_is_the_hub_s(
    log: Log, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, served = socket.socketpair()
    served.setblocking(False)
    client.settimeout(patient(10))

    def take_connection(*_: Any, trusted: bool) -> tuple[int, bool]:
        return served.detach(), False

    monkeypatch.setattr(subscription, "take_connection", take_connection)
    stream = subscribe(log)
    begin(stream)
    assert next(stream, None) is None
    assert phase_of(stream) is Phase.HANDED_OFF
    assert next(stream, None) is None
    stream.close()
    stream.close()
    assert phase_of(stream) is Phase.OVER
    assert (
        len(hub) == 1
    )  # The hub has its place, which the server's close leaves alone.
    log.append("a", Event("1"))
    received = b""
    while b"data: 1" not in received:
        piece = client.recv(1 << 10)
        assert piece
        received += piece
    client.close()
    until(lambda: len(hub) == 0, patient(10))


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
@pytest.mark.usefixtures("server")
def test_a_connection_that_the_hub_cannot_adopt_holds_no_place(
    log: Log, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, served = socket.socketpair()

    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(
        subscription, "take_connection", lambda *_, trusted: (served.detach(), False)
    )
    monkeypatch.setattr(hub._poller, "start", start)
    stream = subscribe(log)
    begin(stream)
    with pytest.raises(RuntimeError):
        next(stream)
    assert next(stream, None) is None
    stream.close()
    assert len(hub) == 0
    assert client.recv(1) == b""
    client.close()


def test_past_the_limit_a_stream_only_says_when_to_come_back(
    log: Log, hub: Hub
) -> None:
    first, second = (subscribe(log, SSE_MAX_CONNECTIONS=1) for _ in range(2))
    next(first)
    assert next(second).startswith(b"retry: ")
    assert phase_of(second) is Phase.REFUSED
    assert next(second, None) is None
    second.close()
    assert phase_of(second) is Phase.OVER
    assert len(hub) == 1
    first.close()


def test_a_stream_that_is_closed_before_it_begins_never_begins(
    log: Log, hub: Hub
) -> None:
    stream = subscribe(log)
    closed: list[None] = []
    stream.on_close = lambda: closed.append(None)
    for _ in range(2):
        stream.close()
    assert phase_of(stream) is Phase.OVER
    assert closed == [None]
    assert next(stream, None) is None
    assert len(hub) == 0


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("handoff", [False, "auto"])
def test_a_stream_that_is_closed_in_the_moment_in_which_it_begins_holds_no_place(
    log: Log, hub: Hub, monkeypatch: pytest.MonkeyPatch, handoff: object
) -> None:
    stream = subscribe(log, SSE_HANDOFF=handoff)
    arrive = hub.arrive

    def close_and_arrive(*arguments: Any) -> Any:
        stream.close()  # As another thread does.
        return arrive(*arguments)

    monkeypatch.setattr(hub, "arrive", close_and_arrive)
    begin(stream)
    assert next(stream, None) is None
    assert len(hub) == 0


def test_a_stream_that_is_closed_before_its_handoff_is_not_handed_off(
    log: Log, hub: Hub, server: StandIn
) -> None:
    stream = subscribe(log)
    begin(stream)
    assert len(hub) == 1
    stream.close()
    assert len(hub) == 0
    assert next(stream, None) is None
    assert phase_of(stream) is Phase.OVER


# What servers are asked, and what they say


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, int]]]:
    """Every connection is taken.

    :returns: whether each was to be taken without a check, and how many bytes its
        server was given before.
    """
    asked: list[tuple[bool, int]] = []
    clients: list[socket.socket] = []

    def take_connection(_: Any, given: int, *, trusted: bool) -> tuple[int, bool]:
        asked.append((trusted, given))
        client, served = socket.socketpair()
        clients.append(client)
        served.setblocking(False)
        return served.detach(), False

    monkeypatch.setattr(subscription, "take_connection", take_connection)
    yield asked
    for client in clients:
        client.close()


def raising(refusal: Refusal) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise refusal

    return refuse


TLS = Refusal("the connection is no plain socket", "tls")


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
@pytest.mark.parametrize(("handoff", "trusts"), [("auto", False), (True, True)])
def test_a_server_is_trusted_where_that_is_set(
    log: Log,
    hub: Hub,
    server: StandIn,
    lent: list[tuple[bool, int]],
    handoff: object,
    trusts: bool,
) -> None:
    stream = subscribe(log, SSE_HANDOFF=handoff)
    stream.started({}, print)
    assert server.closes == 1
    given = len(next(stream))
    assert next(stream, None) is None
    assert lent == [(trusts, given)]
    assert hub.stats()["handed off"] == {"stand-in": 1}


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
@pytest.mark.usefixtures("server", "lent")
@pytest.mark.parametrize("is_wanted", [False, True])
def test_a_line_of_the_access_log_is_written_where_that_is_set(
    log: Log, hub: Hub, caplog: pytest.LogCaptureFixture, is_wanted: bool
) -> None:
    stream = subscribe(log, SSE_ACCESS_LOG=is_wanted)
    begin(stream)
    with caplog.at_level(logging.INFO, "flask_sse_lite.access"):
        assert next(stream, None) is None
    assert [record.getMessage().count("GET /stream") for record in caplog.records] == (
        [1] if is_wanted else []
    )


@pytest.mark.parametrize("asked", ["find_server", "check_request"])
def test_what_a_server_or_a_request_refuses_is_counted_before_the_stream_begins(
    log: Log,
    hub: Hub,
    server: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
) -> None:
    monkeypatch.setattr(subscription, asked, raising(TLS))
    story = Told()
    stream = subscribe(log, story)
    stream.started({}, print)
    assert hub.stats()["iterated"] == {"the connection is no plain socket": 1}
    next(stream)
    assert (phase_of(stream), story.path_reason) == (Phase.ITERATED, "tls")
    shown = hub.open_streams(log, 9)
    assert [stream.reason for stream in shown] == ["tls"]
    stream.close()


def test_where_no_handoff_is_wanted_no_refusal_is_counted(
    log: Log, hub: Hub, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "check_request", raising(TLS))
    stream = subscribe(log, SSE_HANDOFF=False)
    stream.started({}, print)
    assert hub.stats()["iterated"] == {"SSE_HANDOFF is False": 1}


@pytest.mark.usefixtures("hub")
def test_the_code_that_takes_the_body_is_looked_at_where_nothing_is_handed_off(
    log: Log, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    monkeypatch.setattr(subscription, "warn_of_reader", lambda: looks.append(None))
    opened, iterated = subscribe(log), subscribe(log, SSE_HANDOFF=False)
    begin(opened)
    assert looks == []
    begin(iterated)
    assert looks == [None]
    for stream in (opened, iterated):
        stream.close()


@pytest.mark.usefixtures("hub", "server")
def test_what_the_system_holds_for_the_client_is_bounded(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = socket.socketpair()
    with one, other:
        monkeypatch.setattr(subscription, "known_socket", lambda *_: one)
        assert not is_bounded(one)
        stream = subscribe(log)
        stream.started({}, print)
        assert is_bounded(one)


def test_a_newcomer_s_stream_is_shareable_only_where_that_is_said(log: Log) -> None:
    settings, openings = Settings.read({}), []
    for stream in (
        Subscription(log, log.cursor(["a"]), settings),
        Subscription(log, log.cursor(["a"]), settings, shareable=True),
    ):
        openings.append(next(stream))
        stream.close()
    assert [b"shareable" in opening for opening in openings] == [False, True]


@pytest.mark.usefixtures("hub")
def test_it_is_its_own_iterator(log: Log) -> None:
    stream = subscribe(log)
    assert iter(stream) is stream


def test_whoever_closes_it_is_told_once(log: Log, hub: Hub) -> None:
    stream = subscribe(log)
    next(stream)
    closed: list[Phase] = []
    stream.on_close = lambda: closed.append(stream.phase)
    for _ in range(2):
        stream.close()
    assert closed == [Phase.OVER]


# What is told


def test_a_stream_that_is_iterated_is_told_from_beginning_to_end(
    log: Log, hub: Hub
) -> None:
    story = Told()
    stream = subscribe(log, story)
    opening = next(stream)
    assert (story.began, story.path_reason) == (["iterated"], "body-taken")
    assert story.sent == [(0, len(opening))]
    log.append("a", Event("1"))
    next(stream)
    assert [events for events, _ in story.sent] == [0, 1]
    stream.close()
    assert story.ends == ["left"]


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
@pytest.mark.usefixtures("server", "lent")
def test_the_end_of_one_that_is_handed_off_is_the_hub_s_to_tell(
    log: Log, hub: Hub
) -> None:
    story = Told()
    stream = subscribe(log, story)
    begin(stream)
    assert next(stream, None) is None
    stream.close()
    assert (story.began, story.ends) == (["handed off"], [])
    log.end("a")
    until(lambda: story.ends, patient(10))
    assert story.ends == ["ended"]


@pytest.mark.skipif(not IS_SUPPORTED, reason="connections are taken over on Linux only")
@pytest.mark.usefixtures("server", "lent")
def test_one_that_the_hub_cannot_adopt_has_failed(
    log: Log, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub._poller, "start", raising(TLS))
    story = Told()
    stream = subscribe(log, story)
    begin(stream)
    with pytest.raises(Refusal):
        next(stream)
    assert (story.began, story.ends) == (["handed off"], ["failed"])
    assert hub.stats()["handed off"] == {}


def test_a_refusal_is_told_with_its_reason(log: Log, hub: Hub) -> None:
    settings: dict[str, object] = {"SSE_MAX_CONNECTIONS": 2, "SSE_MAX_PER_CLIENT": 1}
    ann, bob = Client("ann", None, 0.0), Client("bob", None, 0.0)
    stories = [Told() for _ in range(4)]
    streams = [
        subscribe(log, story, client, **settings)
        for story, client in zip(stories, (ann, ann, bob, bob), strict=True)
    ]
    own = Settings.read(settings)
    for stream in streams:
        stream._settings = own  # They are of one application.
        next(stream)
    assert [story.refusals for story in stories] == [
        *([], ["client-full"], [], ["full"]),
    ]
    assert [story.began for story in stories] == [["iterated"], [], ["iterated"], []]
    for stream in streams:
        stream.close()
