"""Which server is behind a response, what rules its connection out, and which socket
it shows. (test_servers.py runs the servers themselves.)"""

from __future__ import annotations

import logging
from collections.abc import Callable
from io import BufferedReader
from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite import servers
from flask_sse_lite.servers import SOCKETS, check_request, find_server, known_socket
from flask_sse_lite.servers.server import NothingSent, Refusal, Server, name_of

from .stand_ins import code_of, connection, environ_of, gunicorn_response


class TestFinding:
    def test_a_server_that_is_not_known_is_named(self) -> None:
        class Unknown:
            def __call__(self, data: bytes) -> None:
                """Write."""

        writes: list[tuple[Callable[..., Any], str]] = [
            (Unknown(), "Unknown"),
            (Unknown().__call__, "__call__"),
        ]
        for write, name in writes:
            with pytest.raises(Refusal) as caught:
                find_server(environ_of(), write)
            assert caught.value.code == "unsupported-server"
            assert __name__ in caught.value.reason
            assert name in caught.value.reason

    def test_a_server_whose_write_is_hidden_is_found_below(self) -> None:
        environ, response = environ_of(), gunicorn_response(None)
        handle = code_of(
            "gunicorn.workers.sync", "def run(call, environ, resp): return call()"
        )

        def write(data: bytes) -> None:
            """Hide the server's."""

        server = handle(lambda: find_server(environ, write), environ, response)
        assert server.name == "gunicorn"
        assert server.hidden_by == name_of(write)

    def test_hazards_are_logged_once_in_each_process(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        monkeypatch.setattr(servers, "_warned", set())
        monkeypatch.setattr(servers.gunicorn, "hazards", lambda: ["one hazard"])
        monkeypatch.setattr(servers.uwsgi, "hazards", lambda: ["another"])
        write = gunicorn_response(None).write
        for _ in range(2):
            find_server(environ_of(), write)
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ["SSE-W14: one hazard", "SSE-W14: another"]
        monkeypatch.setattr("os.getpid", lambda: -1)
        find_server(environ_of(), write)
        assert len(caplog.records) == 4


class TestRequest:
    def test_one_of_http_1_is_fine(self) -> None:
        for protocol in ("HTTP/1.0", "HTTP/1.1"):
            check_request(environ_of(SERVER_PROTOCOL=protocol))

    @pytest.mark.parametrize("protocol", ["HTTP/2.0", "HTTP/2", "", "HTTP/0.9"])
    def test_one_of_another_protocol_is_not(self, protocol: str) -> None:
        with pytest.raises(Refusal) as caught:
            check_request(environ_of(SERVER_PROTOCOL=protocol))
        assert caught.value.code == "http-version"

    def test_without_epoll_none_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(servers, "IS_SUPPORTED", False)
        with pytest.raises(Refusal) as caught:
            check_request(environ_of())
        assert caught.value.code == "unsupported-system"


class TestSocket:
    def test_a_server_that_lends_it_is_asked(self) -> None:
        server = find_server(environ_of(), gunicorn_response("theirs").write)
        assert known_socket(environ_of("another"), server) == "theirs"

    @pytest.mark.parametrize("key", SOCKETS)
    def test_otherwise_the_environ_can_hold_it(self, key: str) -> None:
        assert known_socket(environ_of(**{key: "theirs"}), None) == "theirs"

    @pytest.mark.parametrize("layers", [1, 2])
    def test_otherwise_the_request_can_be_read_from_it(self, layers: int) -> None:
        with connection() as (server, _), server.makefile("rb") as file:
            assert isinstance(file, BufferedReader)
            body: Any = file
            for _ in range(layers):
                body = SimpleNamespace(rfile=body)
            assert known_socket(environ_of(**{"wsgi.input": body}), None) is server

    def test_otherwise_it_is_not_known(self) -> None:
        assert known_socket(environ_of(), None) is None
        assert known_socket({}, None) is None


class TestRefusals:
    def test_who_keeps_the_body_back_is_named_where_that_is_known(self) -> None:
        assert NothingSent("a.middleware").reason.endswith("from it: a.middleware")
        assert NothingSent().reason.endswith("from it")
        assert NothingSent().code == "nothing-sent"

    def test_each_server_says_how_it_is_asked(self) -> None:
        server = Server({}, lambda data: None)
        for ask in (server.socket, server.is_chunked, lambda: server.check_sent(0)):
            with pytest.raises(NotImplementedError):
                ask()
