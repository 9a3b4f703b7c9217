"""A server that answers what a test tells it to, to the byte, for pages of its origin.

What is answered, and what a browser makes of it, stands in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import NamedTuple
from urllib.parse import urlsplit

from flask_sse_lite.browser_module import module

from .servers import HOST, PATIENCE
from .serving import serving

PAGE = b"<!doctype html><title>A page</title><link rel=icon href=data:>"

#: What a page is made of: nobody is told that it was asked for.
FOR_THE_PAGE = ("/page", "/stream/sse.js")

EVENT_STREAM = {"Content-Type": "text/event-stream"}


class Answer(NamedTuple):
    """An answer, after which the connection ends. Without a status, it ends at once."""

    body: bytes = b""
    status: int | None = 200
    headers: Mapping[str, str] = EVENT_STREAM
    #: What the body waits for. The head does not.
    body_waits_for: Event | None = None


#: Says that no more is to come.
OVER = Answer(status=204, headers={})


class Asked(NamedTuple):
    """What a client asked for."""

    target: str
    accept: str | None
    last_event_id: str | None


class Scripted(ThreadingHTTPServer):
    """Answers each path with its answers, one after the other, and then with 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self.asked: list[Asked] = []
        self._answers: dict[str, list[Answer]] = {}

    def script(self, path: str, answers: Sequence[Answer]) -> None:
        """Set the answers of a path, and forget what was asked."""
        self._answers[path] = list(answers)
        self.asked = []

    def answer(self, path: str) -> Answer:
        if path == "/page":
            return Answer(PAGE, headers={"Content-Type": "text/html"})
        if path == "/stream/sse.js":
            return Answer(module().text, headers={"Content-Type": "text/javascript"})
        answers = self._answers.get(path)
        return answers.pop(0) if answers else OVER


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        fields = (self.headers["Accept"], self.headers["Last-Event-ID"])
        if path not in FOR_THE_PAGE:
            self.server.asked.append(Asked(self.path, *fields))
        answer = self.server.answer(path)
        self.close_connection = True
        if answer.status is None:
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if answer.body_waits_for is not None:
            assert answer.body_waits_for.wait(PATIENCE)
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        pass  # What was asked is in ``Scripted.asked``.


@contextmanager
def scripted() -> Iterator[Scripted]:
    with serving(Scripted()) as server:
        yield server
