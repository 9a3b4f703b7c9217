"""What is known of cheroot, by its own gateway and a stand-in for its request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from cheroot.wsgi import Gateway_10

from flask_sse_lite.servers import find_server
from flask_sse_lite.servers.cheroot import Cheroot
from flask_sse_lite.servers.server import NothingSent, Refusal, Server

from .stand_ins import environ_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def request(**attributes: Any) -> SimpleNamespace:
    known = {
        "sent_headers": True,
        "status": b"200 OK",
        "outheaders": [(b"Content-Type", b"text/event-stream")],
        "chunked_write": False,
        "close_connection": False,
        "server": SimpleNamespace(protocol="HTTP/1.1"),
        "conn": SimpleNamespace(
            socket="the socket", wfile=SimpleNamespace(bytes_written=1000)
        ),
    }
    return SimpleNamespace(**known | attributes)


def server_of(req: SimpleNamespace) -> Server:
    gateway = Gateway_10.__new__(Gateway_10)
    gateway.req = req
    return find_server(environ_of(), gateway.write)


def test_it_is_found_by_its_gateway() -> None:
    server = server_of(request())
    assert server.name == "cheroot"
    assert server.socket() == "the socket"
    assert not server.is_chunked()
    assert server_of(request(chunked_write=True)).is_chunked()


def test_before_the_head_is_sent_nothing_is() -> None:
    with pytest.raises(NothingSent):
        server_of(request(sent_headers=False)).check(0)


@pytest.mark.parametrize(
    ("is_chunked", "body"), [(False, b"hello, world"), (True, b"c\r\nhello, world\r\n")]
)
def test_its_count_is_of_the_head_the_framing_and_earlier_responses_too(
    is_chunked: bool, body: bytes
) -> None:
    req = request(chunked_write=is_chunked)
    server = server_of(req)
    req.conn.wfile.bytes_written += len(HEAD + body)
    server.check(12)
    for wrong in (11, 13):
        with pytest.raises(Refusal) as caught:
            server.check(wrong)
        assert caught.value.code == "body-changed"


def test_under_tls_it_counts_nothing() -> None:
    req = request()
    del req.conn.wfile.bytes_written
    with pytest.raises(Refusal) as caught:
        server_of(req).check(12)
    assert caught.value.code == "body-changed"


def test_it_can_be_told_to_close_the_connection() -> None:
    req = request()
    server_of(req).close_after()
    assert req.close_connection


def test_its_program_is_the_one_that_listens() -> None:
    program = SimpleNamespace(ready=True, shutdown_timeout=3)
    server = server_of(request(server=program))
    assert server.program() is program
    assert not Cheroot.has_stopped(program)
    assert Cheroot.grace(program) == 3.0
    program.ready = False
    assert Cheroot.has_stopped(program)
