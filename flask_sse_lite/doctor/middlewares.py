"""Middlewares: whether what surrounds an application passes a stream on as it is.

Here lives a request that this very process makes of the application, without a server.
A hook that goes before all others answers it, so that no login is asked for, and the
answer goes through every hook and middleware that answers go through.
"""

from __future__ import annotations

import io
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Flask, Response, request

from ..response import HEADERS, MIMETYPE
from .report import Report

#: The key of the environ by which the doctor's own request is known.
_KEY = "flask_sse_lite.doctor"

#: Seconds within which a piece comes through. No network is on its way, but a busy
#: machine can pause.
PATIENCE = 10.0

#: The pieces of the stream. A middleware that waits for more of it waits for the
#: second, which is made only when the first has come through.
FIRST, SECOND = b"data: one\n\n", b"data: two\n\n"


def examine(app: Flask, report: Report) -> None:
    """Send a stream through an application's hooks and middlewares."""
    trial = _Trial(app)
    first = trial.next()
    trial.go_on.set()
    rest = []
    while not trial.is_over and (piece := trial.next()):
        rest.append(piece)
    trial.thread.join(PATIENCE)
    _judge(report, trial, first, rest)


def _judge(
    report: Report, trial: _Trial, first: bytes | None, rest: list[bytes]
) -> None:
    how = "This command sent a stream through the application itself."
    body = b"".join([first or b"", *rest])
    if trial.error:
        report.unknown("middleware", f"the application raises {trial.error}.")
    elif not trial.status.startswith("200"):
        report.unknown("middleware", f"the application answers {trial.status}.")
    elif encoding := trial.headers.get("content-encoding"):
        report.wrong(
            "middleware",
            "A middleware or a hook compresses streams, and holds events back.",
            f"{how} It got the Content-Encoding {encoding}.",
        )
    elif first is None:
        report.wrong(
            "middleware",
            "A middleware or a hook collects the whole body before it passes any of it "
            "on: no client gets an event.",
            f"{how} Its first event came only at the stream's end.",
        )
    elif body != FIRST + SECOND:
        report.wrong(
            "middleware",
            "A middleware or a hook changes the body.",
            f"{how} {FIRST + SECOND!r} became {body[:60]!r}.",
        )
    else:
        report.ok("middleware", "The application passes each event on at once.")


class _Trial:
    """One such request, which runs in a thread: a middleware can hold it."""

    def __init__(self, app: Flask) -> None:
        self.go_on = threading.Event()
        self.status = ""
        self.headers: dict[str, str] = {}
        self.error = ""
        #: Whether the last piece was taken.
        self.is_over = False
        self._app = app
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=self._run, name="flask_sse_lite.trial", daemon=True
        )
        hooks = app.before_request_funcs.setdefault(None, [])
        hooks.insert(0, self._answer)
        self.thread.start()

    def next(self) -> bytes | None:
        """The next piece; None where none comes."""
        try:
            piece = self._pieces.get(timeout=PATIENCE)
        except queue.Empty:
            return None
        self.is_over = piece is None
        return piece

    def _answer(self) -> Response | None:
        if request.environ.get(_KEY) is not self:
            return None
        return Response(self._frames(), mimetype=MIMETYPE, headers=HEADERS)

    def _frames(self) -> Iterator[bytes]:
        yield FIRST
        self.go_on.wait(4 * PATIENCE)
        yield SECOND

    def _run(self) -> None:
        body: Iterable[bytes] = ()
        try:
            body = self._app(self._environ(), self._start)
            for piece in body:
                if piece:
                    self._pieces.put(piece)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            if hasattr(body, "close"):
                body.close()
            self._app.before_request_funcs[None].remove(self._answer)
            self._pieces.put(None)

    def _start(self, status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        return self._pieces.put

    def _environ(self) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/stream",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "HTTP_ACCEPT": MIMETYPE,
            "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            _KEY: self,
        }
