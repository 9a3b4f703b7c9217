"""Subscriptions: what each of the phases in which a stream begins leads to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub import Hub, subscription
from flask_sse_lite.hub.subscription import Phase, Subscription
from flask_sse_lite.servers.server import Refusal
from flask_sse_lite.settings import Settings
from flask_sse_lite.system.poller import IS_SUPPORTED

from .patience import patient
from .servers import until


class StandIn:
    """A server that lends its connections."""

    name = "stand-in"

    def __init__(self) -> None:
        self.environ = {"SERVER_PROTOCOL": "HTTP/1.1"}

    def close_after(self) -> None:
        """Nobody reads the head."""


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


def subscribe(log: Log, **settings: object) -> Subscription:
    settings.setdefault("SSE_HEARTBEAT", 0.8)
    return Subscription(log, log.cursor(["a"]), Settings.read(settings))


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
    assert hub.stats()["open"] == {"handed off": 0, "iterated": 1}
    log.append("a", Event("1"))
    assert b"data: 1" in next(stream)
    stream.close()
    assert [*phases, stream.phase] == [Phase.ITERATED, Phase.OVER]
    assert next(stream, None) is None
    assert len(hub) == 0
    assert hub.stats()["open"] == {"handed off": 0, "iterated": 0}


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
    assert b"data: 1" in client.recv(1 << 10)
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
