"""Clients that do odd things with a connection that was handed off. They get their
stream all the same, or its end, and no other client is harmed."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flask_sse_lite.hub.connection import MAX_JUNK

from .servers import HANDED_OFF, HOST, PATIENCE, Kind, Server, until

#: Longer than any test waits: no heartbeat hides a missing wake.
NEVER = 4 * PATIENCE

#: Far more bytes than the hub reads of a client, than the system holds for a client
#: that is not read, and than a router or a server can hold.
ENDLESS = 64 * MAX_JUNK

#: Bytes by which a server may grow while it is sent that.
LITTLE = 8 * MAX_JUNK

#: A request whose answer would be seen among a stream's events.
PING = f"GET /ping HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


@pytest.fixture(scope="module", params=HANDED_OFF, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture(scope="module")
def shared_server(kind: Kind) -> Iterator[Server]:
    with kind.serve(heartbeat=NEVER) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A server of each kind, without streams."""
    until(lambda: shared_server.stats()["streams"] == 0)
    with shared_server.watched():
        yield shared_server


@pytest.fixture
def channel(server: Server) -> Iterator[str]:
    with server.channel() as name:
        yield name


def head(channel: str, *fields: str) -> bytes:
    lines = [f"GET /stream?channel={channel} HTTP/1.1", f"Host: {HOST}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def connected(server: Server, request: bytes) -> Iterator[socket.socket]:
    """A client that has sent a request, and reads nothing."""
    with socket.create_connection((HOST, server.port), timeout=PATIENCE) as client:
        client.sendall(request)
        yield client


def receive_until(client: socket.socket, mark: bytes) -> bytes:
    received = b""
    while mark not in received:
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received


def receive_all(client: socket.socket) -> bytes:
    """All that comes until the end, or until a reset: the system sends one when a
    connection is closed before all was read."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def assert_gets_its_stream(server: Server, channel: str, client: socket.socket) -> None:
    """Check that a client gets the whole stream, and nothing else."""
    received = receive_until(client, b"\n\n")
    (id,) = server.publish({"data": "x", "channel": channel})
    received += receive_until(client, f"data: x\nid: {id}\n\n".encode())
    server.close(channel)
    received += receive_all(client)
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"event: stream-end\n" in received
    assert b"pong" not in received


# What comes with the request


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (["Content-Length: 4"], b"body"),
        (["Content-Length: 1000"], b"not all of it"),
        (["Transfer-Encoding: chunked"], b"4\r\nbody\r\n0\r\n\r\n"),
    ],
    ids=["whole", "in part", "in chunks"],
)
def test_a_body_that_nobody_reads_is_in_nobodys_way(
    server: Server, channel: str, fields: list[str], body: bytes
) -> None:
    with connected(server, head(channel, *fields) + body) as client:
        assert_gets_its_stream(server, channel, client)


def test_a_body_that_comes_after_the_stream_began_is_thrown_away(
    server: Server, channel: str
) -> None:
    size = MAX_JUNK // 2
    request = head(channel, f"Content-Length: {size}")
    with connected(server, request) as client:
        client.sendall(b"x" * size)
        assert_gets_its_stream(server, channel, client)


def test_who_waits_to_be_told_to_go_on_is_told_so_before_the_stream_or_never(
    server: Server, channel: str
) -> None:
    request = head(channel, "Content-Length: 4", "Expect: 100-continue")
    with connected(server, request) as client:
        received = receive_until(client, b"\n\n")
        client.sendall(b"body")
        server.close(channel)
        received += receive_all(client)
    *told, answer = received.split(b"HTTP/1.1 ")[1:]
    assert answer.startswith(b"200 OK\r\n")
    assert b"event: stream-end\n" in answer
    assert all(piece.startswith(b"100 Continue\r\n") for piece in told)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_requests_behind_that_for_a_stream_are_not_served(
    server: Server, channel: str, when: str
) -> None:
    event = f'[{{"data": "pipelined", "channel": "{channel}"}}]'.encode()
    publishing = (
        f"POST /publish HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(event)}\r\n\r\n"
    ).encode() + event
    behind = PING + publishing + PING
    with connected(server, head(channel) + behind * (when == "at once")) as client:
        received = receive_until(client, b"\n\n")
        client.sendall(behind * (when == "later"))
        until(lambda: server.stats()["streams"] == 1)
        server.close(channel)
        received += receive_all(client)
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"event: stream-end\n" in received
    assert b"pipelined" not in received


# What comes after it


@pytest.mark.parametrize(
    "kind", [kind for kind in HANDED_OFF if kind.hears], ids=str, indirect=True
)
def test_who_talks_without_end_is_sent_off(server: Server, channel: str) -> None:
    with (
        server.stream(channel) as witness,
        connected(server, head(channel)) as client,
    ):
        receive_until(client, b"\n\n")
        until(lambda: server.stats()["streams"] == 2)
        before = server.stats()["peak_memory"]
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.sendall(b"x" * ENDLESS)
        until(lambda: server.stats()["streams"] == 1)
        assert server.stats()["peak_memory"] - before < LITTLE
        server.publish({"data": "x", "channel": channel})
        assert [event.data for event in witness.take(1)] == ["x"]


def test_who_says_at_once_that_nothing_more_will_come_gets_its_end(
    server: Server, channel: str
) -> None:
    with connected(server, head(channel)) as client:
        client.shutdown(socket.SHUT_WR)
        receive_all(client)
    until(lambda: server.stats()["streams"] == 0)


@pytest.mark.parametrize("linger", [False, True], ids=["closes", "resets"])
def test_who_asks_and_does_not_wait_for_the_answer_leaves_nothing_behind(
    server: Server, channel: str, linger: bool
) -> None:
    before = server.stats()
    for _ in range(20):
        with connected(server, head(channel)) as client:
            if linger:
                reset = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    until(lambda: server.stats()["streams"] == 0)
    until(lambda: server.stats()["descriptors"] <= before["descriptors"])
