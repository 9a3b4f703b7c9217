"""Other versions: what holds on the newest of everything must hold on each release that
an application may run on. A handoff relies on attributes that nobody promised to keep.

One test per server goes through everything, as a start costs more than the rest.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder

from .servers import (
    HOST,
    PATIENCE,
    Client,
    Response,
    Server,
    serve,
    sockets_of,
    until,
)
from .versions import Environment, Layer, Python, install, pythons, running_python

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: More than a client is sent in one write.
LARGE = "äöü" * 50_000

GUNICORNS: tuple[str, ...] = ("gunicorn sync", "gunicorn gthread", "gunicorn gevent")
WITH_PYWSGI = (*GUNICORNS, "gunicorn gevent_pywsgi")
WITHOUT_GEVENT = ("gunicorn sync", "gunicorn gthread")

#: No connected client is dropped before a test is over.
STAYS = "--keep-alive 75 --graceful-timeout 30"

#: Servers that a signal ends at once, with their streams.
ABRUPT = ("cheroot", "werkzeug")

#: Packages that are installed in their newest releases.
NEWEST = ("Flask", "cheroot", "gevent", "gunicorn", "packaging")

#: The packages for an interpreter that gevent is not released for.
NEWEST_PLAIN = ("Flask", "gunicorn")

#: The oldest Flask and Werkzeug that pyproject.toml allows, and of the others the first
#: release for Python 3.10.
OLDEST = ("Flask==3.0.0", "Werkzeug==3.0.0", "cheroot==10.0.0", "gevent==21.12.0")

#: Older gunicorns, to lie above the newest one. The oldest needs a part of setuptools
#: that newer setuptools lack.
GUNICORN_20 = Layer(("gunicorn==20.1.0", "setuptools==80.9.0"))
GUNICORN_23 = Layer(("gunicorn==23.0.0",))

#: The minor versions of Python on which the oldest gunicorn was seen to run. It is
#: older than all of them.
KNOWN_TO_GUNICORN_20 = range(10, 14)


#: Prints Python's version and those of the packages that are named.
TELL_VERSIONS = """
import sys
from importlib.metadata import PackageNotFoundError, version
print(sys.version.split()[0])
for package in sys.argv[1:]:
    try:
        print(version(package))
    except PackageNotFoundError:
        print(None)
"""


class Case(NamedTuple):
    """A server in an environment."""

    server: str
    #: What is not the newest in the environment.
    but: str
    environment: Environment
    options: str = ""

    def __str__(self) -> str:
        return f"{self.server}, {self.environment.python}, {self.but}"


def newest(
    python: Python, *above: Layer, packages: tuple[str, ...] = NEWEST
) -> Environment:
    """The newest packages for an interpreter, below the given layers."""
    return Environment(python, (*above, Layer(packages, python)))


def cases() -> Iterator[Case]:
    """Each Python with the oldest gunicorn and with the newest, and all else on one
    Python only."""
    chosen: list[tuple[str, Environment, tuple[str, ...]]] = []
    ours, oldest = running_python(), pythons()[0]
    for python in pythons():
        if python.is_free_threaded:
            plain = newest(python, packages=NEWEST_PLAIN)
            chosen.append(("all newest", plain, WITHOUT_GEVENT))
            continue
        chosen.append(("all newest", newest(python), GUNICORNS))
        if python.version[1] in KNOWN_TO_GUNICORN_20:
            chosen.append(("gunicorn 20", newest(python, GUNICORN_20), GUNICORNS))
    chosen.append(("gunicorn 23", newest(ours, GUNICORN_23), WITH_PYWSGI))
    plain = newest(ours, packages=NEWEST_PLAIN)
    chosen.append(("no gevent", plain, WITHOUT_GEVENT))
    libuv = newest(ours, Layer(("cffi",), ours))
    libuv = libuv._replace(variables=("GEVENT_LOOP=libuv",))
    chosen.append(("libuv", libuv, ("gunicorn gevent", "gevent.pywsgi")))
    if oldest.version[1] in KNOWN_TO_GUNICORN_20:
        others = ("gevent.pywsgi", "cheroot", "werkzeug")
        old = Environment(oldest, (GUNICORN_20, Layer(OLDEST, oldest)))
        chosen.append(("all oldest", old, (*WITH_PYWSGI, *others)))
    for but, environment, servers in chosen:
        for server in servers:
            options = STAYS if server.startswith("gunicorn") else ""
            yield Case(server, but, environment, options)


CASES = [*cases()]

#: Servers behind nginx's uwsgi_pass. (gunicorn 24 to 26 chunk even there.)
BEHIND_UWSGI_PASS = [
    Case(server, "all newest", newest(running_python()), "--protocol uwsgi")
    for server in GUNICORNS
]

#: One case of each environment, by its name.
ENVIRONMENTS = {f"{case.environment.python}, {case.but}": case for case in CASES}


@pytest.fixture(scope="module", autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    """Install what the chosen tests need, several layers at a time."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [value for call in calls if call for value in call.params.values()]
    install(value.environment for value in chosen if isinstance(value, Case))


def texts(events: list[Event]) -> list[str]:
    return [event.data for event in events]


@pytest.mark.parametrize("case", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_an_environment_has_what_it_is_to_have_and_no_more(case: Case) -> None:
    environment = case.environment
    wanted = [word for layer in environment.layers for word in layer.requirements]
    packages = [word.partition("==")[0] for word in wanted]
    done = subprocess.run(
        [*environment.command, "-c", TELL_VERSIONS, *packages, "gevent", "h11"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    python, *versions, gevent, h11 = done.stdout.split()
    assert f"Python {python}" == str(environment.python).rstrip("t")
    for word, version in zip(wanted, versions, strict=True):
        assert version == word.partition("==")[2] or "==" not in word
        assert version != "None"
    # Packages of the interpreter itself must not be found.
    assert h11 == "None"
    assert (gevent == "None") == (environment.layers[-1].requirements == NEWEST_PLAIN)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_that_a_stream_does_it_does_on_this_release(case: Case) -> None:
    with (
        serve(
            case.server,
            options=case.options,
            python=case.environment.command,
            SSE_HEARTBEAT=NEVER,
        ) as server,
        ExitStack() as stack,
    ):
        a_stream_begins_alone_and_ends_with_its_channel(server)
        who_speaks_http_1_0_gets_no_chunks(server)
        events_arrive_as_they_were_published(server)
        who_comes_back_misses_nothing(server)
        a_connection_that_is_kept_can_become_a_stream(server)
        who_leaves_is_gone(server)
        who_is_done_sending_gets_its_end(server)

        staying = [stack.enter_context(server.stream("room")) for _ in range(5)]
        until(lambda: server.stats()["streams"] == 5)
        assert server.stats()["iterated"] == 0
        # A worker that stops waits for its connections; its streams must not.
        idle = stack.enter_context(Client(server.port))
        idle.request("/ping")
        # Browsers open connections ahead of need. A sync worker waits for this one.
        worker = server.stats()["process"]
        before = sockets_of(worker)
        silent = socket.create_connection((HOST, server.port), PATIENCE)
        stack.enter_context(silent)
        until(lambda: sockets_of(worker) - before)
        server.signal(signal.SIGTERM)
        if case.server not in ABRUPT:
            for client in staying:
                assert [event.type for event in client.events] == ["stream-open"]
        idle.leave()
        silent.close()
        server.stop()


def a_stream_begins_alone_and_ends_with_its_channel(server: Server) -> None:
    with server.stream("short") as client:
        assert client.status == 200
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.headers["cache-control"] == "no-cache, no-transform"
        assert "content-length" not in client.headers
        assert next(client.events).type == "stream-open"
        until(lambda: server.stats()["handed_off"] == 1)
        assert server.request("GET", "/ping").body == b"pong"
        server.close("short")
        assert [event.type for event in client.events] == ["stream-end"]


def who_speaks_http_1_0_gets_no_chunks(server: Server) -> None:
    with socket.create_connection((HOST, server.port), timeout=PATIENCE) as client:
        client.sendall(b"GET /stream?channel=old HTTP/1.0\r\n\r\n")
        received = b""
        while b"\n\n" not in received.partition(b"\r\n\r\n")[2]:
            received += client.recv(65536)
        (id,) = server.publish({"data": "x", "channel": "old"})
        server.close("old")
        while piece := client.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    if b"Server: Werkzeug" in head:
        # werkzeug looks at its own version of HTTP, not at the client's.
        return
    assert b"chunked" not in head
    opening, event, end, rest = body.split(b"\n\n")
    assert opening.startswith(b"event: stream-open\n")
    assert event == f"data: x\nid: {id}".encode()
    assert end.startswith(b"event: stream-end\n")
    assert rest == b""


def events_arrive_as_they_were_published(server: Server) -> None:
    published = ["one\ntwo", LARGE, "", "last"]
    with ExitStack() as stack:
        clients = [stack.enter_context(server.stream("room")) for _ in range(3)]
        for data in published:
            server.publish({"data": data, "channel": "room"})
        for client in clients:
            assert texts(client.take(len(published))) == published


def who_comes_back_misses_nothing(server: Server) -> None:
    with server.stream("room") as client:
        server.publish({"data": "seen", "channel": "room"})
        (seen,) = client.take(1)
    missed = [str(n) for n in range(20)]
    server.publish(*({"data": data, "channel": "room"} for data in missed))
    with server.stream("room", since=str(seen.id)) as client:
        assert texts(client.take(len(missed))) == missed
        server.publish({"data": "next", "channel": "room"})
        assert texts(client.take(1)) == ["next"]


def a_connection_that_is_kept_can_become_a_stream(server: Server) -> None:
    with Client(server.port) as client:
        client.request("/ping")
        assert client.read() == b"pong"
        assert client.read() == b""
        if client.headers.get("connection", "").lower() == "close":
            return
        client.request("/stream?channel=room")
        server.publish({"data": "x", "channel": "room"})
        assert texts(client.take(1)) == ["x"]


def who_leaves_is_gone(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.stream("room")) for _ in range(4)]
        until(lambda: server.stats()["streams"] == 4)
        clients[0].leave()
        clients[1].reset()
        until(lambda: server.stats()["streams"] == 2)
        server.publish({"data": "x", "channel": "room"})
        for client in clients[2:]:
            assert texts(client.take(1)) == ["x"]
    until(lambda: server.stats()["streams"] == 0)


def who_is_done_sending_gets_its_end(server: Server) -> None:
    with server.stream("room") as client:
        assert next(client.events).type == "stream-open"
        client.socket.shutdown(socket.SHUT_WR)
        assert list(client.events) == []


# The uwsgi protocol


class Uwsgi(Server):
    """A server that is asked in the uwsgi protocol, as nginx's ``uwsgi_pass`` does."""

    def ask(
        self, method: str, target: str, content: bytes = b"", **more: str
    ) -> socket.socket:
        """Send a request (https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html).

        :returns: its connection.
        """
        url = urlsplit(target)
        variables = {
            "REQUEST_METHOD": method,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": HOST,
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(content)),
            **more,
        }
        words = [word.encode() for pair in variables.items() for word in pair]
        packet = b"".join(len(word).to_bytes(2, "little") + word for word in words)
        connection = socket.create_connection((HOST, self.port), timeout=PATIENCE)
        size = len(packet).to_bytes(2, "little")
        connection.sendall(b"\0" + size + b"\0" + packet + content)
        return connection

    def request(self, method: str, target: str, body: Any = None) -> Response:
        content = json.dumps(body).encode()
        # gunicorn takes the end of a kept connection for an error.
        with (
            self.ask(method, target, content, HTTP_CONNECTION="close") as connection,
            HTTPResponse(connection, method=method) as answer,
        ):
            answer.begin()
            return Response(answer.status, dict(answer.headers), answer.read())


@pytest.mark.parametrize("case", BEHIND_UWSGI_PASS, ids=str)
def test_a_stream_behind_uwsgi_pass_is_handed_off_and_has_no_chunks(case: Case) -> None:
    with serve(
        case.server,
        options=case.options,
        python=case.environment.command,
        speaking=Uwsgi,
        SSE_HEARTBEAT=NEVER,
    ) as server:
        assert isinstance(server, Uwsgi)
        with server.ask("GET", "/stream?channel=room") as connection:
            until(lambda: server.stats()["handed_off"] == 1)
            server.publish({"data": LARGE, "channel": "room"})
            server.close("room")
            with HTTPResponse(connection) as stream:
                stream.begin()
                assert stream.status == 200
                assert "Transfer-Encoding" not in stream.headers
                body = stream.read()
        # The size of a chunk would be read as an unknown field.
        fields = {line.partition(b":")[0] for line in body.splitlines()}
        assert fields == {b"event", b"data", b"id", b"retry", b""}
        assert [(event.type, event.data) for event in Decoder().feed(body)] == [
            ("stream-open", ""),
            (None, LARGE),
            ("stream-end", ""),
        ]
