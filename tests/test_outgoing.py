"""What the system tells of the bytes that a client has or has not taken."""

from __future__ import annotations

import os
import socket
import time

import pytest

from flask_sse_lite.system.outgoing import (
    bytes_acknowledged,
    bytes_waiting,
    seconds_since_acknowledged,
)

from .patience import patient
from .servers import until
from .stand_ins import connection, fill

SOON = patient(10.0)


def test_what_the_client_has_taken_is_acknowledged() -> None:
    with connection() as (server, client):
        before = bytes_acknowledged(server)
        assert before is not None
        server.sendall(b"hello")
        assert client.recv(5) == b"hello"
        client.sendall(b"!")  # The acknowledgement arrives before this.
        assert server.recv(1) == b"!"
        assert bytes_acknowledged(server) == before + 5
        assert bytes_waiting(server.fileno()) == 0


def test_a_descriptor_is_asked_and_stays_open() -> None:
    with connection() as (server, _):
        assert bytes_acknowledged(server.fileno()) == bytes_acknowledged(server)
        os.fstat(server.fileno())


def test_what_the_client_does_not_take_waits() -> None:
    with connection() as (server, _):
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            fill(server.send)
        assert bytes_waiting(server.fileno()) > 0


def test_how_long_ago_the_client_acknowledged_anything_is_told() -> None:
    began = time.monotonic()
    with connection() as (server, _):
        until(lambda: (seconds_since_acknowledged(server.fileno()) or 0) > 0.1, SOON)
        silence = seconds_since_acknowledged(server)
        assert silence is not None
        assert silence <= time.monotonic() - began + 0.05
        sent_at = time.monotonic()
        server.sendall(b"!")
        until(lambda: bytes_waiting(server.fileno()) == 0, SOON)
        silence = seconds_since_acknowledged(server)
        assert silence is not None
        # The system counts in steps of some milliseconds.
        assert silence <= time.monotonic() - sent_at + 0.05


def test_what_is_no_connection_of_tcp_acknowledges_nothing() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert bytes_acknowledged(one) is None
        assert bytes_acknowledged(one.fileno()) is None
        assert seconds_since_acknowledged(one) is None
    read_end, write_end = os.pipe()
    assert bytes_acknowledged(read_end) is None
    os.close(read_end)
    os.close(write_end)
