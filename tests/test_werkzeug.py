"""What is known of werkzeug's development server: its own handler serves one request,
on a connection of this process, for a stand-in server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler

from flask_sse_lite.servers import find_server
from flask_sse_lite.servers.below import find_below
from flask_sse_lite.servers.server import NothingSent, Refusal, Server
from flask_sse_lite.servers.werkzeug import Werkzeug

from .stand_ins import connection, read

Application = Callable[..., Iterable[bytes]]


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Write no log."""


def serve(app: Application, **more: Any) -> bytes:
    """Serve a request by an application.

    :returns: what the client gets.
    """

    def checked(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except AssertionError as error:
            failures.append(error)  # The handler would answer 500.
            return []

    failures: list[AssertionError] = []
    program = SimpleNamespace(
        app=checked,
        ssl_context=None,
        multithread=False,
        multiprocess=False,
        passthrough_errors=True,
        server_address=("127.0.0.1", 1),
        **more,
    )
    with connection() as (server, client):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        Handler(server, client.getsockname(), program)  # type: ignore[arg-type]
        server.shutdown(socket.SHUT_WR)
        answer = read(client, 1 << 20)
    assert failures == []
    return answer


def test_its_state_is_found_behind_its_write() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/event-stream")])
        server = find_server(environ, write)
        assert server.name == "werkzeug"
        assert server.socket() is environ["werkzeug.socket"]
        assert ("Content-Type", "text/event-stream") in server.headers()
        with pytest.raises(NothingSent):
            server.check(0)
        server.send(b"first")
        server.check(5)
        assert server.is_chunked()
        program = server.program()
        assert isinstance(program, SimpleNamespace)
        assert program.app
        return []

    assert b"5\r\nfirst\r\n" in serve(app)


def test_with_a_length_the_body_goes_as_it_is() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "5")])
        server = find_server(environ, write)
        server.send(b"first")
        assert not server.is_chunked()
        return []

    assert serve(app).endswith(b"\r\n\r\nfirst")


def test_a_process_for_each_request_is_no_place_for_a_stream() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.multiprocess"] = True
        write = start_response("200 OK", [])
        write(b"first")
        with pytest.raises(Refusal) as caught:
            find_server(environ, write).check(5)
        assert caught.value.code == "forking-server"
        return []

    serve(app)


def test_where_a_middleware_hides_it_it_is_found_below() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        found: Server | None = find_below(environ, (Werkzeug,), "some.middleware")
        assert found
        assert found.hidden_by == "some.middleware"
        assert list(found.headers()) == []
        assert find_below({"wsgi.input": object()}, (Werkzeug,), "other") is None
        start_response("200 OK", [])
        return []

    serve(app)


def test_a_function_of_another_module_is_not_its_write() -> None:
    assert not Werkzeug.is_behind(lambda data: None)
    assert not Werkzeug.is_behind(WSGIRequestHandler.log)
