"""What is known of servers that keep their sockets: waitress and wsgiref, by their own
classes and stand-ins for what stands behind them."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from io import BytesIO
from types import SimpleNamespace
from wsgiref.simple_server import ServerHandler

import pytest
from waitress.task import WSGITask

from flask_sse_lite.servers import find_server, known_socket
from flask_sse_lite.servers.iterating import Waitress, Wsgiref, has_shut_down
from flask_sse_lite.servers.server import NothingSent, Refusal

from .patience import patient
from .stand_ins import environ_of

SOON = patient(10.0)


class TestWaitress:
    @pytest.fixture
    def task(self) -> WSGITask:
        channel = SimpleNamespace(server=SimpleNamespace(socket=None))
        return WSGITask(channel, SimpleNamespace(version="1.1"))

    def test_it_iterates_every_stream(self, task: WSGITask) -> None:
        server = find_server(environ_of(), task.write)
        assert server.name == "waitress"
        assert not server.lends_sockets
        assert known_socket(environ_of(), server) is None
        with pytest.raises(NothingSent):
            server.check(0)
        task.wrote_header = True
        with pytest.raises(Refusal) as caught:
            server.check(0)
        assert caught.value.code == "unsupported-server"
        assert "waitress" in caught.value.reason

    def test_it_has_stopped_when_it_no_longer_listens(self, task: WSGITask) -> None:
        program = find_server(environ_of(), task.write).program()
        assert program is task.channel.server
        with socket.socket() as listener:
            program = SimpleNamespace(socket=listener)
            assert not Waitress.has_stopped(program)
        assert Waitress.has_stopped(program)


class TestWsgiref:
    def test_it_iterates_every_stream(self) -> None:
        handler = ServerHandler(BytesIO(), BytesIO(), sys.stderr, {})
        server = find_server(environ_of(), handler.write)
        assert server.name == "wsgiref"
        assert not server.lends_sockets
        assert server.program() is None
        with pytest.raises(NothingSent):
            server.check(0)
        vars(handler)["headers_sent"] = True
        with pytest.raises(Refusal) as caught:
            server.check(0)
        assert caught.value.code == "unsupported-server"

    def test_its_program_is_the_one_that_listens(self) -> None:
        handler = ServerHandler(BytesIO(), BytesIO(), sys.stderr, {})
        program = SimpleNamespace()
        vars(handler)["request_handler"] = SimpleNamespace(server=program)
        assert find_server(environ_of(), handler.write).program() is program


class TestSocketServer:
    """What werkzeug's server and wsgiref's have in common."""

    def test_it_has_stopped_as_soon_as_that_is_asked_for(self) -> None:
        asked, seen = threading.Event(), []

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                seen.append(has_shut_down(self.server))
                stopping = threading.Thread(target=self.server.shutdown)
                stopping.start()
                asked.set()
                while not has_shut_down(self.server):
                    stopping.join(0.01)
                seen.append(has_shut_down(self.server))

        with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
            serving = threading.Thread(target=server.serve_forever, args=(0.01,))
            serving.start()
            with socket.create_connection(("127.0.0.1", server.server_address[1])):
                assert asked.wait(SOON)
                serving.join(SOON)
            assert has_shut_down(server)  # It is not asked any more, and has done it.
        assert seen == [False, True]
        assert Wsgiref.has_stopped(server)

    def test_one_that_is_closed_has_stopped(self) -> None:
        with socketserver.TCPServer(("127.0.0.1", 0), None) as server:  # type: ignore[arg-type]
            assert not has_shut_down(SimpleNamespace(socket=server.socket))
        assert has_shut_down(SimpleNamespace(socket=server.socket))
