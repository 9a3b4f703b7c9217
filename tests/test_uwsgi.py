"""What is known of uWSGI, by a stand-in for the module that it brings."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite.servers import find_server, known_socket, uwsgi
from flask_sse_lite.servers.server import ENOUGH_REQUESTS, NothingSent, Refusal, Server

from .stand_ins import connection, environ_of


def uwsgi_write(data: bytes) -> None:
    """uWSGI's own is a built-in function of this name."""


@pytest.fixture
def run_uwsgi(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimpleNamespace]:
    """Have uWSGI's module be there, with these options."""

    def run_uwsgi(**options: Any) -> SimpleNamespace:
        opt = {name.replace("_", "-"): value for name, value in options.items()}
        module = SimpleNamespace(opt=opt, has_threads=True, numproc=2)
        monkeypatch.setitem(sys.modules, "uwsgi", module)
        return module

    return run_uwsgi


Running = tuple[SimpleNamespace, socket.socket, socket.socket]


@pytest.fixture
def running(run_uwsgi: Callable[..., SimpleNamespace]) -> Iterator[Running]:
    """uWSGI's module, and both ends of the connection that it serves."""
    module = run_uwsgi()
    with connection() as (server, client):
        module.connection_fd = server.fileno
        yield module, server, client


def found() -> Server:
    return find_server(environ_of(), uwsgi_write)


class TestResponse:
    def test_it_is_known_by_its_module(self, running: Running) -> None:
        _, ours, client = running
        server = found()
        assert server.name == "uWSGI"
        assert server.socket() == ours.fileno()
        assert known_socket(environ_of(), None) == ours.fileno()
        assert not server.is_chunked()
        server.send(b"first")
        assert client.recv(9) == b"first"

    def test_without_its_module_it_is_not_there(self) -> None:
        with pytest.raises(Refusal):
            found()

    def test_that_it_has_sent_is_seen_at_its_connection(self, running: Running) -> None:
        _, ours, client = running
        server = found()
        assert server.is_sure
        with pytest.raises(NothingSent):
            server.check(0)
        ours.sendall(b"head")
        assert client.recv(9) == b"head"
        server.check(0)

    def test_what_the_client_has_not_taken_counts_as_sent(
        self, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = found()
        monkeypatch.setattr(uwsgi, "bytes_waiting", lambda _: 4)
        server.check(0)

    def test_on_a_unix_socket_nobody_knows(
        self, run_uwsgi: Callable[..., SimpleNamespace]
    ) -> None:
        ours, client = socket.socketpair()
        with ours, client:
            run_uwsgi().connection_fd = ours.fileno
            server = found()
            assert not server.is_sure
            server.check(0)

    def test_without_threads_nothing_can_be_sent_later(self, running: Running) -> None:
        module, ours, _ = running
        server = found()
        ours.sendall(b"head")
        module.has_threads = False
        with pytest.raises(Refusal) as caught:
            server.check(0)
        assert caught.value.code == "no-threads"
        assert caught.value.is_remediable

    @pytest.mark.parametrize("option", ["https-socket", "ssl-socket", "suwsgi-socket"])
    def test_where_it_does_tls_itself_its_socket_is_not_for_us(
        self, running: Running, option: str
    ) -> None:
        module, ours, _ = running
        server = found()
        ours.sendall(b"head")
        module.opt[option] = b":443"
        with pytest.raises(Refusal) as caught:
            server.check(0)
        assert caught.value.code == "tls"


class TestHazards:
    def test_without_options_there_is_none(
        self, run_uwsgi: Callable[..., SimpleNamespace]
    ) -> None:
        assert list(uwsgi.hazards()) == []
        run_uwsgi()
        assert list(uwsgi.hazards()) == []

    @pytest.mark.parametrize("option", ["cheaper", "idle"])
    def test_what_ends_workers_that_look_idle_is_one(
        self, run_uwsgi: Callable[..., SimpleNamespace], option: str
    ) -> None:
        run_uwsgi(**{option: b"60"})
        (warning,) = uwsgi.hazards()
        assert f"--{option} 60" in warning

    @pytest.mark.parametrize(
        ("limit", "is_one"),
        [
            (b"0", False),
            (b"1", True),
            (str(ENOUGH_REQUESTS - 1).encode(), True),
            (str(ENOUGH_REQUESTS).encode(), False),
            ([b"0", b"5"], True),
            (True, False),
        ],
    )
    def test_a_worker_that_is_replaced_soon_is_one(
        self, run_uwsgi: Callable[..., SimpleNamespace], limit: Any, is_one: bool
    ) -> None:
        run_uwsgi(max_requests=limit)
        assert len(list(uwsgi.hazards())) == is_one
