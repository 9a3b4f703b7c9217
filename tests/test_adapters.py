"""What is no WSGI server, or none that can serve streams: adapters of ASGI, which never
tell that a client has left; Tornado, which collects every response; and eventlet."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import pytest

from .servers import HOST, PATIENCE, Client, Server, serve, until
from .versions import Environment, Layer, install, running_python

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

PACKAGES = ("a2wsgi", "asgiref", "hypercorn", "tornado", "uvicorn")

ADAPTERS = ["a2wsgi", "uvicorn", "asgiref", "hypercorn"]

#: More clients than any of these adapters has threads by default.
MANY = 12

#: Seconds within which the log names the cause.
SOON = 10.0


def environment(*layers: Layer) -> Environment:
    made = Environment(running_python(), layers)
    install([made])
    return made


@pytest.fixture(scope="module")
def adapted() -> Environment:
    return environment(Layer((*PACKAGES, "Flask"), running_python()))


@pytest.fixture(params=ADAPTERS)
def server(request: pytest.FixtureRequest, adapted: Environment) -> Iterator[Server]:
    with serve(
        "adapter",
        options=request.param,
        python=adapted.command,
        SSE_HEARTBEAT=0.3,
        SSE_MAX_AGE=1,
    ) as server:
        yield server


def ask(server: Server) -> socket.socket:
    client = socket.create_connection((HOST, server.port), PATIENCE)
    target = "/stream?channel=room"
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    return client


def warnings(server: Server) -> list[str]:
    return re.findall(r"WARNING flask_sse_lite: (.*)", server.log())


def test_an_adapter_of_asgi_is_warned_of_once_and_what_is_advised_helps(
    server: Server,
) -> None:
    """Where no server notices that clients leave, the age of their streams makes room
    again."""
    for _ in range(MANY):
        ask(server).close()
    assert server.request("GET", "/ping").body == b"pong"
    with Client(server.port) as client:
        client.request("/stream?channel=room")
        assert next(client.events).type == "stream-open"
    said = warnings(server)
    (adapter,) = [text for text in said if "An adapter of ASGI" in text]
    assert "SSE_MAX_AGE" in adapter
    # The adapters say so in any case: the processes are not counted.
    (several,) = [text for text in said if "SSE_URL" in text]
    assert "may run several" in several
    assert "several worker" not in several


def test_a_server_that_collects_every_response_is_named(adapted: Environment) -> None:
    with serve(
        "adapter", options="tornado", python=adapted.command, SSE_HEARTBEAT=NEVER
    ) as server:
        began = time.monotonic()
        with ask(server), ask(server):
            until(lambda: "do not reach their clients" in server.log(), SOON)
        print(f"said within {time.monotonic() - began:.1f} s")
        said = [text for text in warnings(server) if "do not reach" in text]
        assert len(said) == 1
        assert "tornado" in said[0]


def test_under_eventlet_one_sentence_says_what_to_do() -> None:
    python = running_python()
    with serve(
        "gunicorn eventlet",
        python=environment(
            Layer(("gunicorn==23.0.0", "eventlet", "Flask"), python)
        ).command,
    ) as server:
        assert server.request("GET", "/stream?channel=room").status == 500
        said = re.findall(r"A stream could not begin: (.*)", server.log())
        assert len(said) == 1
        assert "eventlet" in said[0]
        assert "gevent" in said[0]
