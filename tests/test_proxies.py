"""Behind nginx, HAProxy, Apache httpd and Caddy as the documentation sets them up: what
a page in a browser sees of an application that goes away and comes back."""

from __future__ import annotations

import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import h11
import pytest
from playwright.sync_api import Browser

from flask_sse_lite import Publisher
from flask_sse_lite.decoder import Decoder

from .browsers import Listener, blank_page, chromium, stream_of
from .proxies import DEPLOY, NGINX_CONNECTIONS, PROGRAMS, block, proxy, replaced
from .servers import HOST, PATIENCE, ROOT, Client, Response, Server, serve

#: The statuses that a proxy itself answers to a request for a page.
ERRORS = (500, 502, 503, 504)

#: Seconds for which a proxy waits for a silent application, where a test waits for that
#: too.
SHORT = 2

#: Events whose delay is measured, one after the other.
MEASURED = 10

_numbers = count()


@pytest.fixture(scope="module", params=PROGRAMS)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if PROGRAMS[name] is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def ask(server: Server, method: str, accept: str) -> Response:
    """A proxy's answer to a request for a stream."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=PATIENCE)
    try:
        connection.request(method, "/stream", headers={"Accept": accept})
        answer = connection.getresponse()
        return Response(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()


# An application that is there


@pytest.fixture(scope="module")
def application() -> Iterator[Server]:
    app = "tests.applications.generators:app"
    with serve("gunicorn gevent", app=app, SSE_HEARTBEAT=PATIENCE) as application:
        yield application


def test_events_come_through_at_once(name: str, application: Server) -> None:
    """Each event is awaited before the next is published."""
    with (
        proxy(name, application.port) as front,
        application.channel() as channel,
        front.stream(channel) as client,
    ):
        assert next(client.events).type == "stream-open"
        for text in ("one", "two\nlines", "x" * 2**20):
            (id,) = application.publish({"data": text, "channel": channel})
            (event,) = client.take(1)
            assert (event.data, event.id) == (text, id)


def test_a_run_that_was_posted_can_be_resumed(name: str, application: Server) -> None:
    target = f"/run?name=run{next(_numbers)}&steps=one,two"
    with proxy(name, application.port) as front:
        with Client(front.port) as client:
            client.request(target, "POST", {"Accept": "text/event-stream"})
            (first,) = client.take(1)
            address = client.headers["location"]
            assert first.id
        with Client(front.port) as client:
            client.request(address, headers={"Last-Event-ID": first.id})
            assert [event.data for event in client.take(1)] == ["two"]
            assert [event.type for event in client.events] == ["stream-end"]


@pytest.mark.skipif(PROGRAMS["haproxy"] is None, reason="haproxy is not installed")
def test_haproxy_holds_events_back_unless_it_is_told_not_to(
    application: Server,
) -> None:
    def delay(front: Server) -> float:
        """The median of the seconds that an event takes."""
        delays = []
        with application.channel() as channel, front.stream(channel) as client:
            next(client.events)
            for number in range(MEASURED):
                began = time.monotonic()
                application.publish({"data": str(number), "channel": channel})
                client.take(1)
                delays.append(time.monotonic() - began)
        return statistics.median(delays)

    def without(block: str) -> str:
        return replaced(block, "option http-no-delay\n", "\n")

    with proxy("haproxy", application.port) as front:
        documented = delay(front)
    with proxy("haproxy", application.port, change=without) as front:
        held_back = delay(front)
    print(f"{documented:.4f} s as it is documented, {held_back:.4f} s without")
    assert held_back > 0.15
    assert documented < held_back / 2


# An application that goes away and comes back


def test_a_page_comes_back_behind_an_application_that_was_away(
    name: str, browser: Browser, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with (
        serve("gunicorn gevent", SSE_URL=url, SSE_RETRY=100) as application,
        proxy(name, application.port) as front,
        blank_page(browser) as page,
        Publisher.from_url(url) as publisher,
    ):
        page.goto(f"{front.url}/page")
        listener = Listener(page, stream_of("room"), ["open"])
        seen = {event.type for event in listener.take(2)}
        assert seen == {"open", "stream-open"}
        application.stop()
        # The proxy has answered twice for the application.
        assert [event.type for event in listener.take(2)] == ["open", "open"]
        publisher.publish("missed", channel="room")
        application.start()
        while (event := listener.take(1)[0]).type in ("open", "stream-open"):
            pass
        assert (event.type, event.data) == ("message", "missed")
        # Apache would otherwise wait for the stream, which nobody reads now.
        application.stop()


class Upstream:
    """An application that listens, but gives no useful answer."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self._connections.append(connection)
            connection.settimeout(PATIENCE)
            if not connection.recv(65536):
                return
            if self._answer is not None:
                connection.sendall(self._answer)
                connection.close()

    def end(self) -> None:
        """Stop it, by a connection that sends nothing."""
        with socket.create_connection((HOST, self.port)) as client:
            client.shutdown(socket.SHUT_WR)
            self._thread.join(PATIENCE)
        for connection in (*self._connections, self._listener):
            connection.close()


@contextmanager
def upstream(answer: bytes | None) -> Iterator[Upstream]:
    """An application that listens, until the end of the block.

    :param answer: what each request gets; None for nothing at all.
    """
    made = Upstream(answer)
    try:
        yield made
    finally:
        made.end()


#: The answers of an application that fails, by the way in which it fails.
FAILURES = {"hangs up": b"", "is cut in the head": b"HTTP/1.1 200 OK\r\nA: b\r\n"}


def check_that_only_streams_are_told_to_come_back(front: Server) -> None:
    answer = ask(front, "GET", "text/event-stream")
    assert answer.status == 200
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert headers["content-type"] == "text/event-stream"
    decoder = Decoder()
    assert list(decoder.feed(answer.body)) == []
    assert decoder.retry == 3000
    # Other clients must see that the application is away, and those that sent a
    # question must see that it was not answered.
    assert ask(front, "GET", "text/html, */*;q=0.8").status in ERRORS
    assert ask(front, "POST", "text/event-stream").status in ERRORS


@pytest.mark.parametrize("failure", FAILURES)
def test_only_streams_are_told_to_come_back(name: str, failure: str) -> None:
    answer = FAILURES[failure]
    with upstream(answer) as application, proxy(name, application.port) as front:
        check_that_only_streams_are_told_to_come_back(front)


def test_streams_of_a_silent_application_are_told_to_come_back(name: str) -> None:
    if name == "caddy":
        return  # Caddy has no timeout for an answer.
    with (
        upstream(None) as application,
        proxy(name, application.port, timeout=SHORT) as front,
    ):
        check_that_only_streams_are_told_to_come_back(front)


def last_answer(front: Server, others: int) -> bytes:
    """What a client gets when nginx has no connection left for one more stream.

    :param others: connections beside the streams. Each has begun a request, as nginx
        closes idle ones to make room.
    """
    with ExitStack() as stack:
        for _ in range(others):
            other = stack.enter_context(socket.create_connection((HOST, front.port)))
            other.sendall(b"GET ")
        for _ in range(NGINX_CONNECTIONS):
            client = stack.enter_context(Client(front.port))
            try:
                client.request("/stream", headers={"Accept": "text/event-stream"})
            except (OSError, h11.RemoteProtocolError):
                return b""  # The client itself got no connection.
            assert client.status == 200
            if b"stream-open" not in (answer := client.read()):
                return answer
    raise AssertionError("nginx has more connections than it was given")


@pytest.mark.skipif(PROGRAMS["nginx"] is None, reason="nginx is not installed")
def test_streams_that_nginx_has_no_connection_for_are_told_to_come_back(
    application: Server,
) -> None:
    """nginx takes the client with its last connection, needs one more, and answers 500.
    A stream takes two: whether one is left depends on one more connection beside
    them."""
    answers = set()
    for others in (0, 1):
        with proxy("nginx", application.port) as front:
            answers.add(last_answer(front, others))
    assert answers == {b"", b"retry: 3000\n\n"}


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_the_applications_own_errors_come_through(name: str, status: int) -> None:
    """After them an EventSource must give up, unless the application says otherwise."""
    answer = (
        f"HTTP/1.1 {status} No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nwhy"
    )
    with (
        upstream(answer.encode()) as application,
        proxy(name, application.port) as front,
    ):
        for accept in ("text/event-stream", "text/html"):
            got = ask(front, "GET", accept)
            assert (got.status, got.body) == (status, b"why")


def test_the_readmes_block_for_nginx_is_the_documentations() -> None:
    readme = block("nginx", ROOT / "README.rst")
    assert readme == block("nginx")


def test_the_documented_answer_for_apache_is_the_deployed_one() -> None:
    assert (DEPLOY / "away.asis").read_text("utf-8") == block("http")
