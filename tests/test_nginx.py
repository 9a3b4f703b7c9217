"""Behind a real nginx. It buffers what it is not asked to pass on at once, and keeps
connections to use them again."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import pytest

from .servers import HOST, NGINX, PATIENCE, Server, nginx, serve, until

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: Requests that are made while streams end, and the clients that make them.
REQUESTS = 2000
ASKING = 4

#: Clients whose streams end meanwhile, one stream after the other.
STREAMING = 4

#: gunicorn keeps idle connections longer than nginx does, so that it closes none that
#: nginx has just chosen.
_GUNICORN = "--keep-alive 75"

_HTTP_1_1 = "proxy_http_version 1.1; proxy_set_header Connection '';"

#: The part of nginx's own file uwsgi_params that an application needs.
_UWSGI_PARAMETERS = {
    "REQUEST_METHOD": "$request_method",
    "REQUEST_URI": "$request_uri",
    "PATH_INFO": "$document_uri",
    "QUERY_STRING": "$query_string",
    "CONTENT_TYPE": "$content_type",
    "CONTENT_LENGTH": "$content_length",
    "SERVER_PROTOCOL": "$server_protocol",
    "REMOTE_ADDR": "$remote_addr",
    "SERVER_NAME": "$server_name",
    "SERVER_PORT": "$server_port",
}
_UWSGI = "".join(f"uwsgi_param {n} {v}; " for n, v in _UWSGI_PARAMETERS.items())

#: How nginx passes requests on, by protocol.
LOCATIONS = {
    "HTTP/1.0": "proxy_pass http://application; proxy_http_version 1.0;",
    "HTTP/1.1": f"proxy_pass http://application; {_HTTP_1_1}",
    "uwsgi": f"uwsgi_pass application; {_UWSGI}",
}

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Way(NamedTuple):
    """A server, and the protocol that nginx speaks to it."""

    server: str
    protocol: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.server} by {self.protocol}"


#: Servers that keep connections for nginx, or say that they do not. (gevent.pywsgi is
#: left out: it is the same as gunicorn's, but takes some 40 ms for each request here.)
KEPT_ALIVE = [
    Way("gunicorn sync", "HTTP/1.1", _GUNICORN),
    Way("gunicorn gthread", "HTTP/1.1", _GUNICORN),
    Way("gunicorn gevent", "HTTP/1.1", _GUNICORN),
    Way("gunicorn gevent_pywsgi", "HTTP/1.1", _GUNICORN),
    Way("cheroot", "HTTP/1.1"),
]
WAYS = [
    *KEPT_ALIVE,
    Way("gunicorn sync", "HTTP/1.0"),
    Way("gunicorn gthread", "HTTP/1.0"),
    Way("gunicorn gevent", "HTTP/1.0"),
    Way("uWSGI", "uwsgi", "--socket {socket}"),
]


@pytest.fixture(scope="module", params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    way: Way = request.param
    return way


@pytest.fixture(scope="module")
def pair(
    way: Way, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """nginx, and the server behind it."""
    socket = tmp_path_factory.mktemp("uwsgi") / "socket"
    options = way.options.format(socket=socket)
    with serve(way.server, options=options, SSE_HEARTBEAT=NEVER) as server:
        upstream = f"{HOST}:{server.port}"
        if way.protocol == "uwsgi":
            upstream = f"unix:{socket}"
        with nginx(upstream, LOCATIONS[way.protocol]) as front:
            yield front, server


@pytest.fixture
def front(pair: tuple[Server, Server]) -> Iterator[Server]:
    with pair[0].watched():
        yield pair[0]


@pytest.fixture
def server(pair: tuple[Server, Server]) -> Iterator[Server]:
    until(lambda: pair[1].stats()["streams"] == 0)
    with pair[1].watched():
        yield pair[1]


def test_events_come_through_at_once(front: Server, server: Server) -> None:
    """Each event is awaited before the next is published."""
    with server.channel() as channel:
        with front.stream(channel) as client:
            assert next(client.events).type == "stream-open"
            for text in ("one", "two\nlines", "x" * 2**20):
                (id,) = server.publish({"data": text, "channel": channel})
                (event,) = client.take(1)
                assert (event.data, event.id) == (text, id)
            server.close(channel)
            assert [event.type for event in client.events] == ["stream-end"]
        assert server.stats()["iterated"] == 0


def test_who_comes_back_gets_what_it_missed(front: Server, server: Server) -> None:
    with server.channel() as channel:
        with front.stream(channel) as client:
            seen = next(client.events)
            assert seen.id
        server.publish({"data": "missed", "channel": channel})
        with front.stream(channel, since=seen.id) as client:
            assert [event.data for event in client.take(1)] == ["missed"]


def test_a_client_that_leaves_is_noticed(front: Server, server: Server) -> None:
    with server.channel() as channel:
        with front.stream(channel):
            until(lambda: server.stats()["streams"] == 1)
        until(lambda: server.stats()["streams"] == 0)


@pytest.mark.parametrize("way", KEPT_ALIVE, ids=str, indirect=True)
def test_no_request_is_lost_while_streams_end_beside_it(
    front: Server, server: Server
) -> None:
    """nginx uses a connection again when its response is at its end, unless nginx knows
    by then that it is closed. The requests are of a kind that nginx does not repeat by
    itself when they are lost."""
    is_over = threading.Event()
    rooms = count()
    ends: Counter[tuple[str | None, ...]] = Counter()

    def stream_again_and_again() -> None:
        while not is_over.is_set():
            room = f"brief.{next(rooms)}"
            with front.stream(room) as client:
                opening = next(client.events)
                server.close(room)
                types = [event.type for event in (opening, *client.events)]
                ends[tuple(types)] += 1

    def ask() -> Counter[int]:
        connection = http.client.HTTPConnection(HOST, front.port, timeout=PATIENCE)
        statuses: Counter[int] = Counter()
        fields = {"Content-Type": "application/json"}
        try:
            for _ in range(REQUESTS // ASKING):
                connection.request("POST", "/publish", "[]", fields)
                response = connection.getresponse()
                response.read()
                statuses[response.status] += 1
        finally:
            connection.close()
        return statuses

    before = len(front.log())
    with ThreadPoolExecutor(ASKING + STREAMING) as pool:
        streaming = [pool.submit(stream_again_and_again) for _ in range(STREAMING)]
        try:
            asking = [pool.submit(ask) for _ in range(ASKING)]
            statuses = sum((answers.result() for answers in asking), Counter[int]())
        finally:
            is_over.set()
        for streams in streaming:
            streams.result()
    assert statuses == {200: REQUESTS}
    assert set(ends) == {("stream-open", "stream-end")}
    assert "[error]" not in front.log()[before:]
