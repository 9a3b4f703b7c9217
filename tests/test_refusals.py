"""What is never handed off: connections that are not plain, and those of servers that
have no socket to give or would not let the hub live. The server then serves the stream
to its end, and says why. Of a stream that is handed off, nothing stays with the
server."""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import h2.config
import h2.connection
import h2.events
import pytest

from flask_sse_lite.servers.server import Reason, Refusal
from flask_sse_lite.servers.uwsgi import UWSGI

from .certificates import Certificate, issued
from .servers import HOST, PATIENCE, Client, Server, serve, until

#: Longer than any test waits.
NEVER = 4 * PATIENCE


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issued(tmp_path_factory.mktemp("certificate"))


def expect_iterated(server: Server, reason: str) -> None:
    """Check that a server serves a stream itself, to its end, for this reason."""
    with server.stream("room") as client:
        until(lambda: server.stats()["iterated"] == 1)
        # A stream is open soon after its way is noted.
        until(lambda: server.paths()["open"] == {"handed off": 0, "iterated": 1})
        paths = server.paths()
        assert paths["handed off"] == {}
        [noted] = paths["iterated"]
        assert reason in noted
        [code] = paths["reasons"]
        assert code in get_args(Reason)
        server.publish({"data": "x", "channel": "room"})
        server.close("room")
        types = [event.type for event in client.events]
        assert types == ["stream-open", None, "stream-end"]


def expect_iterated_alone(server: Server, reason: str) -> None:
    """As ``expect_iterated``, of a server that answers nobody else meanwhile, or in
    another process."""
    with server.stream("room") as client:
        assert next(client.events).type == "stream-open"
        assert client.read_exactly(6) == b":\n\n" * 2
        [noted] = re.findall("A stream is iterated: (.*)", server.log())
        assert reason in noted
        assert "handed off:" not in server.log()


# TLS that ends in the server

SSL_SOCKET = "no plain socket"


@pytest.mark.parametrize(
    ("server_kind", "options"),
    [
        ("gunicorn gthread", "--certfile {certificate} --keyfile {key}"),
        ("gunicorn gevent", "--certfile {certificate} --keyfile {key}"),
        ("gunicorn gevent_pywsgi", "--certfile {certificate} --keyfile {key}"),
        ("program", "pywsgi {certificate} {key}"),
        ("program", "cheroot-builtin {certificate} {key}"),
        ("program", "cheroot-pyopenssl {certificate} {key}"),
        ("werkzeug", "--cert {certificate} --key {key}"),
        ("werkzeug", "--cert adhoc"),
    ],
)
def test_a_connection_under_tls_stays_with_its_server(
    server_kind: str, options: str, certificate: Certificate
) -> None:
    tls = certificate.trust
    if "adhoc" in options:
        tls = ssl._create_unverified_context()
    with serve(
        server_kind,
        options=options.format(**certificate._asdict()),
        tls=tls,
        SSE_HEARTBEAT=NEVER,
    ) as server:
        expect_iterated(server, SSL_SOCKET)
        # An operator could do nothing about it.
        assert "cannot be handed off" not in server.log()


@pytest.mark.parametrize(
    ("server_kind", "options"),
    [
        ("gunicorn sync", "--certfile {certificate} --keyfile {key}"),
        ("program", "pywsgi-unpatched {certificate} {key}"),
    ],
)
def test_so_it_does_where_that_keeps_the_server_busy(
    server_kind: str, options: str, certificate: Certificate
) -> None:
    with serve(
        server_kind,
        app="tests.applications.talkative:app",
        options=options.format(**certificate._asdict()),
        tls=certificate.trust,
        SSE_HEARTBEAT=0.5,
    ) as server:
        expect_iterated_alone(server, SSL_SOCKET)


# uWSGI that does TLS, or runs without threads. uWSGI from PyPI can do neither, so a
# stand-in is tested.


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for the module that uWSGI gives to Python."""
    module: Any = ModuleType("uwsgi")
    module.has_threads = 1
    module.connection_fd = lambda: 5
    module.opt = {"http-socket": b"127.0.0.1:8000", "enable-threads": True}
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return module


def uwsgi_write(data: bytes) -> None:
    """A stand-in for uWSGI's ``write``; only its name counts."""


def test_uwsgi_hands_over_what_is_plain(uwsgi: Any) -> None:
    assert UWSGI.is_behind(uwsgi_write)
    UWSGI({}, uwsgi_write).check(0)


def test_uwsgi_without_threads_hands_nothing_over(uwsgi: Any) -> None:
    """The hub would stand still while there is no request."""
    del uwsgi.has_threads
    with pytest.raises(Refusal, match="--enable-threads") as caught:
        UWSGI({}, uwsgi_write).check(0)
    assert caught.value.is_remediable
    assert caught.value.code == "no-threads"


@pytest.mark.parametrize("option", ["https-socket", "ssl-socket", "suwsgi-socket"])
def test_uwsgi_hands_nothing_over_where_a_socket_of_its_own_does_tls(
    uwsgi: Any, option: str
) -> None:
    uwsgi.opt[option] = b"127.0.0.1:8443,certificate.pem,key.pem"
    with pytest.raises(Refusal, match="TLS"):
        UWSGI({}, uwsgi_write).check(0)


def test_uwsgi_behind_a_router_that_does_tls_hands_over_what_is_plain(
    uwsgi: Any,
) -> None:
    uwsgi.opt["https"] = b"127.0.0.1:8443,certificate.pem,key.pem"
    UWSGI({}, uwsgi_write).check(0)


# HTTP/2


class Http2Client:
    """One request of HTTP/2, and its response."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._http = h2.connection.H2Connection(h2.config.H2Configuration())
        self._pending: list[h2.events.Event] = []

    def request(self, target: str) -> None:
        self._http.initiate_connection()
        fields = {
            ":method": "GET",
            ":path": target,
            ":scheme": "https" if isinstance(self._socket, ssl.SSLSocket) else "http",
            ":authority": HOST,
        }
        self._http.send_headers(1, list(fields.items()), end_stream=True)
        self._flush()

    def upgrade(self, target: str) -> None:
        """As ``request``, by an upgrade of HTTP/1.1."""
        settings = self._http.initiate_upgrade_connection()
        assert settings is not None
        self._socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n"
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            f"HTTP2-Settings: {settings.decode()}\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._socket.recv(65536)
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        self._flush()
        self._pending += self._http.receive_data(rest)

    def body(self) -> Iterator[bytes]:
        while True:
            for event in self._pending:
                if isinstance(event, h2.events.ResponseReceived):
                    assert (b":status", b"200") in event.headers
                elif isinstance(event, h2.events.DataReceived):
                    yield event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return
                assert not isinstance(event, h2.events.StreamReset)
            self._flush()
            received = self._socket.recv(65536)
            assert received, "the connection ended before the stream"
            self._pending = self._http.receive_data(received)

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())


@pytest.mark.parametrize("server_kind", ["gunicorn gthread", "gunicorn gevent"])
@pytest.mark.parametrize("way", ["tls", "prior knowledge", "upgrade"])
def test_http_2_is_not_handed_off(
    server_kind: str, way: str, certificate: Certificate
) -> None:
    """This holds also where the connection is a plain socket."""
    options = "--http-protocols h2,h1 "
    if way == "tls":
        options += f"--certfile {certificate.certificate} --keyfile {certificate.key}"
    else:
        options += "--http2-cleartext both"
    with (
        serve(
            server_kind,
            options=options,
            tls=certificate.trust if way == "tls" else None,
            SSE_HEARTBEAT=NEVER,
        ) as server,
        ExitStack() as stack,
    ):
        connection = stack.enter_context(
            socket.create_connection((HOST, server.port), timeout=PATIENCE)
        )
        if way == "tls":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            connection = stack.enter_context(context.wrap_socket(connection))
        client = Http2Client(connection)
        (client.upgrade if way == "upgrade" else client.request)("/stream?channel=room")
        until(lambda: server.stats()["iterated"] == 1)
        paths = server.paths()
        assert paths["handed off"] == {}
        assert paths["iterated"] == {"the request is not of HTTP/1.x": 1}
        server.publish({"data": "x", "channel": "room"})
        server.close("room")
        body = b"".join(client.body())
        assert body.startswith(b"event: stream-open\n")
        assert body.count(b"data: x\n") == 1
        assert b"event: stream-end\n" in body


@pytest.mark.parametrize(
    "server_kind", ["gunicorn sync", "gunicorn gthread", "gevent.pywsgi", "werkzeug"]
)
def test_a_header_that_is_called_version_is_no_version_of_http(
    server_kind: str,
) -> None:
    with (
        serve(server_kind, SSE_HEARTBEAT=NEVER) as server,
        Client(server.port) as client,
    ):
        client.request("/stream?channel=room", headers={"Version": "HTTP/2.0"})
        until(lambda: server.stats()["handed_off"] == 1)
        server.close("room")
        assert [event.type for event in client.events] == ["stream-open", "stream-end"]


# Servers that have no socket to give, or would not let the hub live


def test_waitress_serves_its_streams_itself() -> None:
    with serve("waitress", SSE_HEARTBEAT=NEVER) as server:
        expect_iterated(server, "waitress")
        assert "cannot be handed off" not in server.log()


def test_werkzeug_with_processes_serves_its_streams_itself() -> None:
    with serve(
        "program",
        app="tests.applications.talkative:app",
        options="werkzeug-processes",
        SSE_HEARTBEAT=0.5,
    ) as server:
        expect_iterated_alone(server, "forks a process")


# What stays with the server

STREAMS = 20


@pytest.mark.parametrize(
    ("server_kind", "options"),
    [
        ("gunicorn sync", ""),
        ("gunicorn gthread", "--threads 2"),
        ("gunicorn gevent", ""),
    ],
)
def test_nothing_of_a_request_stays_while_its_stream_is_open(
    server_kind: str, options: str, tmp_path: Path
) -> None:
    """This includes its database session; the application's pool has two
    connections."""

    def orders() -> dict[str, Any]:
        answer = server.request("GET", "/orders")
        assert answer.status == 200
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def orders_when_all_is_closed() -> dict[str, Any]:
        """As ``orders``, once the server has closed what it has handed off; nothing
        before that."""
        found = orders()
        is_closed = found["calls"]["closed"] == STREAMS
        is_left = any(found[kind] > before[kind] for kind in kinds)
        return found if is_closed and not is_left else {}

    kinds = ("requests", "responses", "contexts")
    with (
        serve(
            server_kind,
            app="tests.applications.with_database:app",
            options=options,
            SSE_HEARTBEAT=NEVER,
            DATABASE=str(tmp_path / "orders.db"),
        ) as server,
        ExitStack() as stack,
    ):
        orders()
        before = orders()
        clients = [stack.enter_context(Client(server.port)) for _ in range(STREAMS)]
        for client in clients:
            client.request("/orders/stream")
            assert client.status == 200
        asked = 1
        until(lambda: server.stats()["handed_off"] == STREAMS)
        after = until(orders_when_all_is_closed)
        assert after["answer"] == 42
        assert after["connections"] == before["connections"] == 1

        calls, calls_before = after["calls"], before["calls"]
        others = calls["after"] - calls_before["after"] - STREAMS
        assert others >= asked
        for name in ("request torn down", "context torn down"):
            assert calls[name] - calls_before[name] == STREAMS + others, name
        assert calls["streamed"] == calls["closed"] == STREAMS
        assert calls["errors"] == 0

        server.publish({"data": "x", "channel": "orders"})
        server.close("orders")
        for client in clients:
            types = [event.type for event in client.events]
            assert types == ["stream-open", None, "stream-end"]
        assert orders()["calls"]["closed"] == STREAMS
