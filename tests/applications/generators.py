"""Generators as streams: an application for tests that reach it by a socket. It is
configured by ``FLASK_…`` in the environment.

A generator does what its request says, step by step. It writes what happens to it into
a file of ``FOLDER``, and waits for other files there. So a test knows, and decides, how
far a generator is, whatever the server is busy with.
"""

from __future__ import annotations

import gc
import gzip
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import abort, current_app, g, has_request_context, request, session
from flask.ctx import AppContext, RequestContext
from flask.typing import ResponseReturnValue
from flask_compress import Compress

from flask_sse_lite import Event, EventStream, sse
from flask_sse_lite.history.revocations import REVOCATIONS
from flask_sse_lite.hub import current_hub

from .channels import app

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FOLDER = Path(app.config.get("FOLDER", os.environ["HOME"]))

#: A generator of many items makes a note after so many.
NOTED = 100

#: What happened to all generators of this process, in order.
happened: list[str] = []

app.secret_key = "a secret"


class OneLine(logging.Formatter):
    """The application logs an exception in one line. A traceback in the log is then a
    failure of the server's."""

    def formatException(self, ei: Any) -> str:
        return f"[{ei[0].__name__}: {ei[1]}]"


logging.getLogger().handlers[0].setFormatter(
    OneLine("[%(process)d] %(levelname)s %(name)s: %(message)s")
)


class Teapot(Exception):
    """An error for which the application has a handler."""


@dataclass
class Point:
    x: int
    y: int


@app.errorhandler(Teapot)
def teapot(error: Teapot) -> ResponseReturnValue:
    return {"error": str(error)}, 418


@app.teardown_request
def note_teardown(error: BaseException | None) -> None:
    if name := request.values.get("name"):
        if "slowly" in request.values:
            for _ in wait(f"{name}.torn down"):
                pass
        note(name, "teardown")


def note(name: str, what: str) -> None:
    happened.append(what)
    with (FOLDER / name).open("a") as file:
        file.write(f"{what}\n")


def gate(name: str) -> Path:
    """The file that a generator waits for."""
    return FOLDER / f"{name}.open"


def answer(name: str, steps: str) -> Iterator[Any]:
    """Do each step in its turn: wait, raise, yield."""
    note(name, "begin")
    try:
        for step in steps.split(","):
            verb, _, what = step.partition(":")
            if verb in STEPS:
                yield from STEPS[verb](what or name)
            else:
                yield step
    finally:
        note(name, "closed")


def every_kind(name: str) -> Iterator[Any]:
    yield from ["text", "two\nlines", b"bytes", {"a": 1}, [1, 2], Point(1, 2)]
    yield Event("event", "greeting", id="7", retry=50)


def wait(name: str) -> Iterator[Any]:
    while not gate(name).exists():
        time.sleep(0.01)
    yield from ()


def wait_for_event(name: str) -> Iterator[Any]:
    threading.Event().wait()
    yield


def wait_for_socket(name: str) -> Iterator[Any]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)
    yield


def sleep(name: str) -> Iterator[Any]:
    time.sleep(1000)
    yield


def fail(name: str) -> Iterator[Any]:
    raise RuntimeError(f"the failure of {name}")
    yield


def refuse(name: str) -> Iterator[Any]:
    raise Teapot(name)
    yield


def not_found(name: str) -> Iterator[Any]:
    abort(404)
    yield


def many(what: str) -> Iterator[Any]:
    for n in range(int(what)):
        yield str(n)


def crowd(name: str) -> Iterator[Any]:
    """A million items, as fast as they are taken."""
    for n in range(1_000_000):
        if n % NOTED == 0:
            note(name, str(n))
        yield f"{n} {'x' * 1000}"


def tick(name: str) -> Iterator[Any]:
    while True:
        time.sleep(0.01)
        yield "tick"


def large(what: str) -> Iterator[Any]:
    yield what[-1] * 300_000


def swallow(name: str) -> Iterator[Any]:
    """Ignore being closed, once."""
    try:
        yield from tick(name)
    except GeneratorExit:
        yield "more"


def linger(name: str) -> Iterator[Any]:
    """Yield once more while being closed."""
    try:
        yield from tick(name)
    finally:
        yield "more"


def fail_at_close(name: str) -> Iterator[Any]:
    try:
        yield from tick(name)
    finally:
        raise RuntimeError(f"the failure of {name}")


def clean_up(name: str) -> Iterator[Any]:
    """Wait, and take a while to be closed."""
    try:
        yield "waits"
        time.sleep(1000)
    finally:
        for _ in wait(f"{name}.cleaned"):
            pass
        note(name, "cleaned up")


def show_context(name: str) -> Iterator[Any]:
    if not has_request_context():
        yield f"{current_app.name}, no request"
        return
    g.steps = g.get("steps", 0) + 1
    yield f"{current_app.name} {request.values['name']} {session['user']} {g.steps}"


STEPS: dict[str, Callable[[str], Iterator[Any]]] = {
    "kinds": every_kind,
    "wait": wait,
    "event": wait_for_event,
    "socket": wait_for_socket,
    "sleep": sleep,
    "fail": fail,
    "refuse": refuse,
    "404": not_found,
    "many": many,
    "crowd": crowd,
    "tick": tick,
    "large": large,
    "swallow": swallow,
    "linger": linger,
    "fail at close": fail_at_close,
    "clean up": clean_up,
    "context": show_context,
}


class Answer:
    """An iterable that is no generator, and must be closed all the same."""

    def __init__(self, name: str, steps: str) -> None:
        self._name = name
        self._steps = steps

    def __iter__(self) -> Iterator[Any]:
        return answer(self._name, self._steps)

    def close(self) -> None:
        note(self._name, "iterable closed")


def asked() -> Iterable[Any]:
    name, steps = request.values.get("name", "nobody"), request.values["steps"]
    note(name, f"asked by {request.method}")
    session["user"] = "somebody"
    return Answer(name, steps) if "iterable" in request.values else answer(name, steps)


@app.route("/ask", methods=["GET", "POST"])
def ask() -> ResponseReturnValue:
    return EventStream(asked(), on_error=str if "told" in request.values else None)


@app.route("/run", methods=["GET", "POST"])
def run() -> ResponseReturnValue:
    return sse.run(
        asked(),
        channel=request.values.get("channel"),
        linger=float(request.values.get("linger", "30")),
    )


@app.post("/open")
def open_gate() -> ResponseReturnValue:
    gate(request.args["gate"]).touch()
    return "", 204


@app.get("/happened")
def what_happened() -> ResponseReturnValue:
    return happened


@app.get("/notes")
def notes() -> ResponseReturnValue:
    """What happened to the generators of a name, in any process."""
    return (FOLDER / request.args["name"]).read_text().splitlines()


@app.get("/subscribers")
def subscribers() -> ResponseReturnValue:
    return str(sse.subscribers(request.args["channel"]))


@app.get("/fork")
def fork() -> ResponseReturnValue:
    """Have a forked child open a gate, and live for a while beside the runs."""
    child = os.fork()
    if not child:
        gate(request.args["gate"]).touch()
        time.sleep(0.3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return str(os.waitstatus_to_exitcode(status))


@app.get("/left")
def left() -> ResponseReturnValue:
    """What exists for generators and streams while this is asked."""
    gc.collect()
    hub = current_hub()
    channels = app.extensions["sse"]
    channels.log.unwatch((), str)  # Removes watchers that left meanwhile.
    # (Each process listens for revocations, as long as it lives.)
    kept = [c for name, c in channels.log._channels.items() if name != REVOCATIONS]
    contexts = (AppContext, RequestContext)
    return {
        "timed": len(hub._audiences.timed),
        "listeners": len(hub._listeners),
        "watchers": sum(len(channel.watchers) for channel in kept),
        "runs": len(channels.runs),
        "streams": len(hub),
        "contexts": sum(type(thing) in contexts for thing in gc.get_objects()) - 2,
    }


class Gzip:
    """A middleware that compresses item by item, and passes on the server's own
    ``write``."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            fields = [*headers, ("Content-Encoding", "gzip")]
            return start_response(status, fields, *args)

        if environ["PATH_INFO"] != "/ask":
            return self._app(environ, start_response)
        return self._compressed(self._app(environ, start))

    def _compressed(self, body: Iterable[bytes]) -> Iterator[bytes]:
        try:
            yield from map(gzip.compress, body)
        finally:
            body.close()  # type: ignore[attr-defined]


class Hide:
    """A middleware that hides the server's ``write``."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        def start(*args: Any) -> Any:
            write = start_response(*args)
            return lambda data: write(data)

        return self._app(environ, start)


class Shout:
    """A middleware that passes on the first pieces, and changes later ones."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        body = self._app(environ, start_response)
        if environ["PATH_INFO"] != "/ask":
            return body
        return self._loud(body)

    def _loud(self, body: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for number, piece in enumerate(body):
                yield piece.upper() if number > 1 else piece
        finally:
            body.close()  # type: ignore[attr-defined]


if app.config.get("COMPRESS"):
    app.config["COMPRESS_ALGORITHM_STREAMING"] = ["gzip"]
    app.config["COMPRESS_MIMETYPES"] = ["text/event-stream"]
    Compress(app)
if app.config.get("GZIP"):
    app.wsgi_app = Gzip(app.wsgi_app)  # type: ignore[method-assign]
if app.config.get("SHOUT"):
    app.wsgi_app = Shout(app.wsgi_app)  # type: ignore[method-assign]
if app.config.get("HIDE"):
    app.wsgi_app = Hide(app.wsgi_app)  # type: ignore[method-assign]
