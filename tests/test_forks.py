"""Applications that fork while streams are open: the parent's clients notice nothing. A
child has a copy of all that its parent has, also of connections and, under gevent, of
greenlets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from flask_sse_lite import Event

from .servers import PATIENCE, Client, Server, serve, until

FORKING = "tests.applications.forking:app"

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

CLIENTS = 20

#: More than the buffers of a connection hold.
LARGE = "x" * 8_000_000


@pytest.fixture(
    scope="module", params=["gunicorn sync", "gunicorn gthread", "gunicorn gevent"]
)
def forking(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(
        request.param,
        app=FORKING,
        SSE_HEARTBEAT=NEVER,
        SSE_HISTORY=1000,  # On a busy machine the hub can be late.
        SSE_MAX_EVENT_BYTES=len(LARGE),
    ) as server:
        yield server


@pytest.fixture
def server(forking: Server) -> Iterator[Server]:
    with forking.watched():
        yield forking


def events_of(channel: str, first: int, last: int) -> list[dict[str, str]]:
    return [{"data": str(n), "channel": channel} for n in range(first, last)]


def texts(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def start_child(
    server: Server,
    way: str,
    channel: str = "",
    before: list[dict[str, str]] | None = None,
    after: list[dict[str, str]] | None = None,
) -> int:
    body = {"channel": channel, "before": before or [], "after": after or []}
    answer = server.request("POST", f"/fork/{way}".replace(" ", "%20"), body)
    assert answer.status == 200
    return int(answer.body)


def end_child(server: Server, child: int) -> None:
    """End a child. Its exit status shows that it lived until now."""
    assert server.request("POST", f"/end/{child}").body == b"-9"


ways = pytest.mark.parametrize(
    "way", ["fork", "fork, and publish", "multiprocessing", "subprocess"]
)


@ways
def test_who_listens_while_the_application_forks_loses_nothing(
    server: Server, way: str
) -> None:
    with server.channel() as channel, ExitStack() as stack:
        clients = [stack.enter_context(server.stream(channel)) for _ in range(CLIENTS)]
        server.publish(*events_of(channel, 0, 10))
        child = start_child(
            server, way, channel, events_of(channel, 10, 20), events_of(channel, 20, 30)
        )
        for n in range(30, 50):
            server.publish(*events_of(channel, n, n + 1))
        newcomer = stack.enter_context(server.stream(channel))
        server.publish(*events_of(channel, 50, 60))
        for client in clients:
            assert texts(client.take(60)) == [str(n) for n in range(60)]
        end_child(server, child)
        server.publish(*events_of(channel, 60, 70))
        for client in clients:
            assert texts(client.take(10)) == [str(n) for n in range(60, 70)]
        assert texts(newcomer.take(20)) == [str(n) for n in range(50, 70)]


@ways
def test_a_closed_stream_ends_for_its_client_while_the_child_lives(
    server: Server, way: str
) -> None:
    with server.channel() as channel, ExitStack() as stack:
        clients = [stack.enter_context(server.stream(channel)) for _ in range(CLIENTS)]
        child = start_child(server, way, channel, events_of(channel, 0, 1))
        server.close(channel)
        for client in clients:
            data, end = client.take(2)
            assert data.data == "0"
            assert end.type == "stream-end"
            assert list(client.events) == []
            assert client.socket.recv(1) == b""
        end_child(server, child)


@ways
def test_a_client_that_leaves_while_the_child_lives_is_forgotten(
    server: Server, way: str
) -> None:
    with server.channel() as channel, ExitStack() as stack:
        leaving = [stack.enter_context(server.stream(channel)) for _ in range(CLIENTS)]
        staying = stack.enter_context(server.stream(channel))
        until(lambda: server.stats()["streams"] == CLIENTS + 1)
        child = start_child(server, way, channel)
        for number, client in enumerate(leaving):
            (Client.reset if number % 2 else Client.leave)(client)
        until(lambda: server.stats()["streams"] == 1)
        server.publish(*events_of(channel, 0, 10))
        assert texts(staying.take(10)) == [str(n) for n in range(10)]
        end_child(server, child)


@ways
def test_a_frame_that_is_on_its_way_when_the_application_forks_arrives_whole(
    server: Server, way: str
) -> None:
    with server.channel() as channel, ExitStack() as stack:
        slow = stack.enter_context(server.stream(channel, receive_buffer=2**16))
        witness = stack.enter_context(server.stream(channel))
        server.publish({"data": LARGE, "channel": channel})
        assert texts(witness.take(1)) == [LARGE]
        child = start_child(server, way, channel, after=events_of(channel, 0, 10))
        expected = [LARGE, *map(str, range(10))]
        assert texts(slow.take(11)) == expected
        assert texts(witness.take(10)) == expected[1:]
        end_child(server, child)


def test_a_child_can_publish_whatever_its_parent_was_about(server: Server) -> None:
    """The child can be made while other threads hold locks; it must not wait for
    them."""
    children, publishers, lots = 20, 3, 20
    with server.channel() as channel, server.stream(channel) as client:

        def publish(_: int) -> None:
            for n in range(lots):
                server.publish(*events_of(channel, n * 10, n * 10 + 10))

        with ThreadPoolExecutor(publishers) as pool:
            publishing = pool.map(publish, range(publishers))
            target = f"/fork-and-publish?channel={channel}"
            for _ in range(children):
                answer = server.request("POST", target)
                assert json.loads(answer.body) == 0
            list(publishing)
        seen = texts(client.take(publishers * lots * 10))
        assert sorted(seen) == sorted([str(n) for n in range(lots * 10)] * publishers)
        server.close(channel)
        (end,) = client.events
        assert end.type == "stream-end"
