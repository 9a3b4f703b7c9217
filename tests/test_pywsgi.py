"""What is known of gevent.pywsgi, by a stand-in for its handler: its own class needs
gevent in this process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite.servers import find_server
from flask_sse_lite.servers.pywsgi import GeventPywsgi
from flask_sse_lite.servers.server import NothingSent, Refusal, Server

from .stand_ins import code_of, environ_of, instance_of

HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream\r\n"
    b"Connection: keep-alive\r\n"
    b"\r\n"
)


def handler(**attributes: Any) -> Any:
    known = {
        "headers_sent": True,
        "status": b"200 OK",
        "response_headers": [
            (b"Content-Type", b"text/event-stream"),
            (b"Connection", b"keep-alive"),
        ],
        "response_length": len(HEAD),
        "response_use_chunked": False,
        "close_connection": False,
        "socket": "the socket",
    }
    return instance_of(("gevent.pywsgi", "WSGIHandler"), **known | attributes)


def server_of(behind: Any) -> Server:
    return find_server(environ_of(), behind.write)


def test_it_is_found_by_its_handler() -> None:
    server = server_of(handler())
    assert server.name == "gevent.pywsgi"
    assert server.socket() == "the socket"
    assert not server.is_chunked()
    assert server_of(handler(response_use_chunked=True)).is_chunked()


def test_before_the_head_is_sent_nothing_is() -> None:
    with pytest.raises(NothingSent):
        server_of(handler(headers_sent=False)).check(0)


@pytest.mark.parametrize(
    ("is_chunked", "body"), [(False, b"hello, world"), (True, b"c\r\nhello, world\r\n")]
)
def test_its_length_is_of_the_head_and_the_framing_too(
    is_chunked: bool, body: bytes
) -> None:
    server = server_of(
        handler(response_use_chunked=is_chunked, response_length=len(HEAD + body))
    )
    server.check(12)
    for wrong in (11, 13):
        with pytest.raises(Refusal) as caught:
            server.check(wrong)
        assert caught.value.code == "body-changed"


def test_what_goes_past_it_is_counted_with_its_framing() -> None:
    behind = handler()
    server_of(behind).note_sent(5, 10)
    assert behind.response_length == len(HEAD) + 10


def test_a_body_of_another_encoding_is_not_for_us() -> None:
    headers = [(b"Content-Encoding", b"gzip")]
    with pytest.raises(Refusal) as caught:
        server_of(handler(response_headers=headers)).check_headers()
    assert caught.value.code == "content-encoding"


def test_before_the_response_is_started_it_has_no_headers() -> None:
    assert list(server_of(handler(response_headers=None)).headers()) == []


def test_it_can_be_told_to_close_the_connection() -> None:
    behind = handler()
    server = server_of(behind)
    server.close_after()
    assert behind.close_connection
    assert behind.response_headers == [
        (b"Content-Type", b"text/event-stream"),
        (b"Connection", b"close"),
    ]


def test_behind_a_middleware_its_head_is_left_alone() -> None:
    behind = handler(response_headers=None)
    server = server_of(behind)
    server.hidden_by = "some.middleware"
    server.close_after()
    assert behind.response_headers is None
    assert not behind.close_connection


def test_the_body_that_it_iterates_is_known() -> None:
    behind = handler(result=["the body"])
    frame = code_of(
        "gevent.pywsgi", "import sys\ndef run():\n    return sys._getframe()"
    )
    assert server_of(behind).body(frame()) == ["the body"]


def test_its_program_is_the_one_that_listens() -> None:
    assert server_of(handler()).program() is None
    program = SimpleNamespace(closed=False, stop_timeout=3)
    server = server_of(handler(server=program))
    assert server.program() is program
    assert not GeventPywsgi.has_stopped(program)
    assert GeventPywsgi.grace(program) == 3.0
    program.closed = True
    assert GeventPywsgi.has_stopped(program)
