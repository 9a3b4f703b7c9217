"""What the frames below a call tell of the server, the middleware and the reader."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flask_sse_lite.servers.below import find_below, is_in, reader
from flask_sse_lite.servers.gunicorn import Gunicorn
from flask_sse_lite.servers.pywsgi import GeventPywsgi
from flask_sse_lite.servers.server import Server

from .stand_ins import body_of, code_of, environ_of, gunicorn_response

#: The frame of gunicorn's in which an application is called.
handle = code_of(
    "gunicorn.workers.sync",
    """
def run(call, environ, resp):
    return call()
""",
)

SERVERS: tuple[type[Server], ...] = (GeventPywsgi, Gunicorn)


def find(environ: dict[str, Any]) -> Server | None:
    return find_below(environ, SERVERS, "some.middleware")


class TestServer:
    def test_it_is_found_where_it_calls_the_application(self) -> None:
        environ, response = environ_of(), gunicorn_response(None)
        server = handle(lambda: find(environ), environ, response)
        assert isinstance(server, Gunicorn)
        assert server.write == response.write
        assert server.hidden_by == "some.middleware"

    def test_nobody_else_is_taken_for_it(self) -> None:
        environ, response = environ_of(), gunicorn_response(None)
        assert find(environ) is None
        other = code_of("gunicornish", "def run(call, environ, resp): return call()")
        assert other(lambda: find(environ), environ, response) is None
        assert handle(lambda: find(environ), environ, "no response") is None

    def test_a_request_within_another_does_not_get_the_others(self) -> None:
        outer, inner = environ_of(), environ_of()
        assert handle(lambda: find(inner), outer, gunicorn_response(None)) is None
        del outer["wsgi.input"], inner["wsgi.input"]
        assert handle(lambda: find(inner), outer, gunicorn_response(None)) is None

    def test_a_request_without_a_body_is_known_by_its_environ(self) -> None:
        environ: dict[str, Any] = {}
        assert handle(lambda: find(environ), environ, gunicorn_response(None))

    def test_a_middleware_can_copy_the_environ(self) -> None:
        environ = environ_of()
        copied = {**environ, "middleware": "was here"}
        assert handle(lambda: find(copied), environ, gunicorn_response(None))

    @pytest.mark.parametrize("name", ["environ", "env"])
    def test_a_handler_can_keep_the_environ(self, name: str) -> None:
        environ, response = environ_of(), gunicorn_response(None)
        method = code_of("gunicorn.http", "def run(self, call, resp): return call()")
        handler = SimpleNamespace(**{name: environ})
        assert method(handler, lambda: find(environ), response)


class TestReader:
    def test_it_is_the_next_that_does_not_only_pass_the_body_on(self) -> None:
        iterate = code_of("adapter.body", "def run(body):\n    return next(body)")
        passing = code_of("werkzeug.wsgi", "def run(body):\n    yield from body")
        assert iterate(passing(body_of(reader))) == "adapter.body.run"
        assert reader().endswith(
            ".test_it_is_the_next_that_does_not_only_pass_the_body_on"
        )


@pytest.mark.parametrize(
    ("module", "is_one"),
    [
        ("flask", True),
        ("flask.app", True),
        ("flask_sse", False),
        ("", False),
        ("werkzeug.wsgi", True),
        ("werkzeug", False),
    ],
)
def test_a_package_is_itself_and_what_is_inside_it(module: str, is_one: bool) -> None:
    assert is_in(module, ("flask", "werkzeug.wsgi")) is is_one
