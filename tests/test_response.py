"""An EventStream as a server iterates it: where its items go, what is sent while its
iterable is silent, and how it ends where its client has left or takes nothing, or its
server stops. gunicorn's own response serves it, on a connection of this process.

Which events an EventStream is made of stands in test_event_stream.py.
"""

from __future__ import annotations

import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from flask_sse_lite import SSE, EventStream
from flask_sse_lite.system.poller import IS_SUPPORTED

from .patience import patient
from .servers import until
from .stand_ins import (
    Response,
    code_of,
    connection,
    environ_of,
    gunicorn_response,
    is_bounded,
)

SOON = patient(10.0)

#: Seconds between heartbeats, where they must come; and longer than any test waits.
SHORT = 0.2
NEVER = 4 * SOON

HEARTBEAT = b"3\r\n:\n\n\r\n"

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="nothing is sent past a server but on Linux"
)

#: Serves a request as gunicorn's workers do.
serve_in_gunicorn = code_of(
    "gunicorn.workers.sync",
    """
def run(app, environ, resp):
    respiter = app(environ, resp.start_response)
    try:
        for piece in respiter:
            resp.write(piece)
        resp.close()
    finally:
        if hasattr(respiter, "close"):
            respiter.close()
""",
)


class Script:
    """An iterable that makes each item when the test says so."""

    def __init__(self) -> None:
        self._turn = threading.Semaphore(0)
        self._items: list[Any] = []
        self.is_closed = threading.Event()

    def say(self, *items: Any) -> None:
        """Have these made, an exception by raising it. None is the end."""
        for item in items:
            self._items.append(item)
            self._turn.release()

    def run(self) -> Iterator[Any]:
        try:
            while True:
                assert self._turn.acquire(timeout=SOON)
                item = self._items.pop(0)
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.is_closed.set()


class Exchange:
    """A request that a thread serves, and the client's end of its connection."""

    def __init__(
        self, server: socket.socket, client: socket.socket, app: Flask, sse: SSE
    ) -> None:
        self.server, self.client = server, client
        self.response: Response = gunicorn_response(server)
        self._app, self._sse = app, sse
        self._heard = b""
        self._place = 0

    def hear(self, mark: bytes) -> bytes:
        """What the client gets up to a mark, from the mark before on."""
        while (at := self._heard.find(mark, self._place)) < 0:
            piece = self.client.recv(65536)
            assert piece, self._heard
            self._heard += piece
        began, self._place = self._place, at + len(mark)
        return self._heard[began : self._place]

    def leave(self) -> None:
        """Have the client leave, and still take what it is sent."""
        self.client.shutdown(socket.SHUT_WR)

    def end_streams(self) -> None:
        with self._app.app_context():
            self._sse.end_streams()

    def is_counted(self) -> bool:
        """Whether the server has counted the body as the client got it: in chunks
        behind the head. (The server counts what it has sent already.)"""
        while select.select([self.client], [], [], 0)[0]:
            piece = self.client.recv(65536)
            assert piece, self._heard
            self._heard += piece
        size, rest = 0, self._heard.partition(b"\r\n\r\n")[2]
        while chunk := re.match(rb"([0-9a-fA-F]+)\r\n", rest):
            size += int(chunk[1], 16)
            rest = rest[chunk.end() + int(chunk[1], 16) + 2 :]
        return not rest and bool(self.response.sent == size)

    def serve(self, app: Any) -> None:
        try:
            serve_in_gunicorn(app, environ_of(self.server), self.response)
        except OSError:
            pass  # The client has left, and gunicorn logs that.
        finally:
            self.server.shutdown(socket.SHUT_WR)


@contextmanager
def exchange(
    script: Script,
    *,
    middleware: Callable[[Any], Any] = lambda app: app,
    **config: Any,
) -> Iterator[Exchange]:
    """A request that is answered by an ``EventStream`` of this script."""
    app = Flask("application")
    app.config.update({"SSE_HEARTBEAT": NEVER, **config})
    sse = SSE()
    app.register_blueprint(sse)

    @app.get("/")
    def view() -> EventStream:
        return EventStream(script.run())

    with connection() as (server, client):
        made = Exchange(server, client, app, sse)
        serving = threading.Thread(target=made.serve, args=(middleware(app.wsgi_app),))
        serving.start()
        try:
            yield made
        except BaseException:
            script.say(None)
            raise
        finally:
            serving.join(SOON)
        assert not serving.is_alive()


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    assert script.is_closed.wait(SOON)


def wrapping(source: str) -> Callable[[Any], Any]:
    """A middleware whose function ``run`` is given the body."""
    run = code_of("compressing.middleware", source)
    return lambda app: lambda environ, start_response: run(app(environ, start_response))


# Items


def test_items_go_past_the_server_which_counts_them(script: Script) -> None:
    with exchange(script) as made:
        for item in ("one", "two", "three"):
            script.say(item)
            made.hear(f"data: {item}\n\n\r\n".encode())
        until(made.is_counted, SOON)
        # The server is given the first, which shows that it sends what it is given.
        assert b"".join(made.response.written).count(b"data:") == 1
        script.say(None)
        assert made.hear(b"0\r\n\r\n").count(b"event: stream-end") == 1


def test_where_nothing_is_to_go_past_the_server_it_is_given_all(script: Script) -> None:
    with exchange(script, SSE_HANDOFF=False) as made:
        script.say("one", "two", "three", None)
        made.hear(b"stream-end")
        assert b"".join(made.response.written).count(b"data:") == 4


def test_behind_a_middleware_that_iterates_the_items_go_through_it(
    script: Script,
) -> None:
    upper = wrapping(
        "def run(body):\n    for piece in body:\n        yield piece.upper()"
    )
    with exchange(script, middleware=upper) as made:
        script.say("one", "two", None)
        made.hear(b"DATA: ONE")
        made.hear(b"DATA: TWO")
        made.hear(b"STREAM-END")


def test_an_error_before_anything_is_sent_is_the_views(script: Script) -> None:
    with exchange(script) as made:
        script.say(ValueError())
        made.hear(b"HTTP/1.1 500 ")


# Signs of life


def test_while_the_iterable_is_silent_there_are_signs_of_life(script: Script) -> None:
    with exchange(script, SSE_HEARTBEAT=SHORT) as made:
        script.say("one")
        made.hear(b"data: one\n\n\r\n")
        for _ in range(2):
            assert made.hear(HEARTBEAT) == HEARTBEAT
        script.say("two")
        made.hear(b"data: two\n\n\r\n")
        until(made.is_counted, SOON)
        script.say(None)
        made.hear(b"0\r\n\r\n")


def test_before_the_first_item_a_sign_of_life_begins_the_response(
    script: Script,
) -> None:
    with exchange(script, SSE_HEARTBEAT=SHORT) as made:
        assert b"HTTP/1.1 200 OK" in made.hear(HEARTBEAT)
        script.say("one")
        made.hear(b"data: one\n\n\r\n")
        made.hear(HEARTBEAT)
        script.say(None)
        made.hear(b"0\r\n\r\n")


def test_behind_a_sign_of_life_an_error_is_told_in_the_response(
    script: Script,
) -> None:
    with exchange(script, SSE_HEARTBEAT=SHORT) as made:
        made.hear(HEARTBEAT)
        script.say(ValueError())
        made.hear(b"stream-error")
        made.hear(b"stream-end")


def test_where_the_body_is_changed_on_its_way_there_are_none(script: Script) -> None:
    twice = wrapping("def run(body):\n    for piece in body:\n        yield piece * 2")
    with exchange(script, middleware=twice, SSE_HEARTBEAT=SHORT) as made:
        script.say("one")
        made.hear(b"data: one\n\ndata: one\n\n\r\n")
        made.client.settimeout(2 * SHORT)
        with pytest.raises(TimeoutError):
            made.client.recv(1)
        made.client.settimeout(SOON)
        script.say(None)
        made.hear(b"stream-end")


def test_where_the_body_is_kept_back_a_warning_says_who_keeps_it(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    collect = wrapping("def run(body):\n    return [b''.join(body)]")
    with exchange(script, middleware=collect) as made:
        script.say("one", "two", None)
        made.hear(b"stream-end")
    assert "compressing.middleware.run" in caplog.text


# Ends


def test_the_iterable_of_a_client_that_has_left_is_closed_at_its_next_item(
    script: Script,
) -> None:
    with exchange(script, SSE_HEARTBEAT=SHORT) as made:
        script.say("one")
        made.hear(b"data: one")
        made.leave()

        def is_closed() -> bool:
            script.say("more")
            return script.is_closed.wait(SHORT)

        # The client still takes items: no failure of a send ends the response.
        until(is_closed, SOON)


def test_a_client_that_takes_nothing_is_cut(script: Script) -> None:
    with exchange(script, SSE_HEARTBEAT=SHORT, SSE_MAX_STALL=2 * SHORT) as made:
        script.say("one")
        made.hear(b"data: one")
        script.say("x" * 20_000_000)
        assert script.is_closed.wait(SOON)


def test_when_its_server_stops_the_client_is_told_that_this_is_not_all(
    script: Script,
) -> None:
    with exchange(script, SSE_HEARTBEAT=SHORT) as made:
        script.say("one")
        made.hear(b"data: one")
        made.end_streams()

        def is_closed() -> bool:
            script.say("more")
            return script.is_closed.wait(SHORT)

        until(is_closed, SOON)
        told = made.hear(b"0\r\n\r\n")
        assert b"event: stream-error" in told
        assert b'"shutdown"' in told
        assert b"stream-end" not in told


def test_the_systems_buffer_is_bounded_for_no_longer_than_the_response(
    script: Script,
) -> None:
    with exchange(script) as made:
        script.say("one")
        made.hear(b"data: one")
        assert is_bounded(made.server)
        script.say(None)
        made.hear(b"0\r\n\r\n")
        until(lambda: not is_bounded(made.server), SOON)
