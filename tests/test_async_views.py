"""``async`` views that return streams, under three Flasks: the oldest, the last whose
streams could not leave an ``async`` view by themselves, and the newest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .servers import Client, Server, serve, until
from .versions import Environment, Layer, install, running_python

FLASKS = {
    "3.0.0": ("Flask==3.0.0", "Werkzeug==3.0.0", "asgiref"),
    "3.1.1": ("Flask==3.1.1", "asgiref"),
    "newest": ("Flask", "asgiref"),
}


@pytest.fixture(scope="module", params=FLASKS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    python = running_python()
    layers = (Layer(FLASKS[request.param], python), Layer(("gunicorn",), python))
    environment = Environment(python, layers)
    install([environment])
    with serve(
        "gunicorn gthread",
        app="tests.applications.asynchronous:app",
        python=environment.command,
    ) as server:
        yield server


def texts(server: Server, target: str) -> list[str]:
    with Client(server.port) as client:
        client.request(target)
        assert client.status == 200
        return [event.data for event in client.events if event.type is None]


@pytest.mark.parametrize("path", ["/words", "/listed", "/run"])
def test_an_async_view_returns_a_generator_s_stream(server: Server, path: str) -> None:
    for mark in "!?":
        expected = [word + mark for word in ("one", "two", "three")]
        assert texts(server, f"{path}?mark={mark}") == expected
    assert "Traceback" not in server.log()


def test_an_async_view_returns_a_stream_of_channels(server: Server) -> None:
    with Client(server.port) as client:
        client.request("/channel")
        until(lambda: server.stats()["streams"] == 1)
        assert server.stats()["iterated"] == 0
        server.publish({"data": "x", "channel": "room"})
        assert [event.data for event in client.take(1)] == ["x"]


@pytest.mark.parametrize("verb", ["EventStream", "run"])
def test_an_asynchronous_generator_is_refused_by_a_clear_error(
    server: Server, verb: str
) -> None:
    answer = server.request("GET", f"/asynchronous/{verb}")
    assert answer.status == 400
    assert answer.body.startswith(b"'async_generator' is asynchronous")
