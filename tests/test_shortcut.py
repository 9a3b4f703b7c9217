"""How an iterable's pieces go past the server that keeps their connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flask_sse_lite.hub.shortcut import shortcut
from flask_sse_lite.servers import find_server
from flask_sse_lite.servers.server import Refusal

from .patience import patient
from .stand_ins import (
    body_of,
    code_of,
    connection,
    environ_of,
    gunicorn_response,
    iterate_in_gunicorn,
    read,
)

SOON = patient(10.0)


class Answer:
    """An answer of gunicorn's on a connection."""

    def __init__(
        self,
        server: socket.socket,
        client: socket.socket,
        version: tuple[int, int] = (1, 1),
    ) -> None:
        self.theirs, self.client = server, client
        self.response = gunicorn_response(server, version)
        self.response.start_response("200 OK", [])
        self.server = find_server(environ_of(server), self.response.write)

    def shortcut(
        self, behind: Callable[[Any], Any] = lambda body: body
    ) -> Callable[[bytes], None]:
        send: Callable[[bytes], None] = iterate_in_gunicorn(
            behind(body_of(shortcut, self.server))
        )
        return send


@pytest.fixture
def answer() -> Iterator[Answer]:
    with connection() as (server, client):
        yield Answer(server, client)


def test_a_piece_is_framed_and_counted_as_the_server_does(answer: Answer) -> None:
    answer.shortcut()(b"token")
    assert answer.client.recv(99) == b"5\r\ntoken\r\n"
    assert answer.response.sent == 5


def test_to_an_old_client_it_goes_as_it_is() -> None:
    with connection() as (server, client):
        answer = Answer(server, client, (1, 0))
        answer.shortcut()(b"token")
        assert client.recv(99) == b"token"
        assert answer.response.sent == 5


def test_a_client_that_reads_late_is_waited_for_and_gets_all(answer: Answer) -> None:
    size = 8_000_000
    answer.theirs.settimeout(SOON)  # Then send sends only what fits.
    send = answer.shortcut()
    sending = threading.Thread(target=send, args=(b"x" * size,))
    sending.start()
    frame = b"%x\r\n%b\r\n" % (size, b"x" * size)
    assert read(answer.client, len(frame)) == frame
    sending.join(SOON)
    assert answer.response.sent == size


def test_a_client_that_is_gone_is_an_error_and_not_counted(answer: Answer) -> None:
    send = answer.shortcut()
    answer.theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenPipeError):
        send(b"token")
    assert answer.response.sent == 0


def test_through_tls_the_pieces_go_the_servers_way(answer: Answer) -> None:
    class Encrypting(socket.socket):
        pass

    with Encrypting() as wrapped:
        answer.response.sock = wrapped
        with pytest.raises(Refusal) as caught:
            answer.shortcut()
    assert caught.value.code == "tls"


def test_behind_what_may_change_them_the_pieces_go_the_servers_way(
    answer: Answer,
) -> None:
    middleware = code_of(
        "compressing.middleware", "def run(body):\n    yield from body\n"
    )
    with pytest.raises(Refusal) as caught:
        answer.shortcut(behind=middleware)
    assert caught.value.code == "middleware-iterates"
