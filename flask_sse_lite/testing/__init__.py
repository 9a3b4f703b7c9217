"""Helpers for the tests of applications.

They read a stream that does not end, record what is published where no stream is
needed, and wait for the receivers of signals. Nothing here serves a stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..application import current_channels
from ..decoder import Decoder
from ..event import Event
from ..own_events import BOOKKEEPING

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.wrappers import Response


def read_events(
    response: Response,
    *,
    count: int | None = None,
    timeout: float = 5.0,
    bookkeeping: bool = False,
) -> list[Event]:
    """Read the events of a test client's response, as a client gets them, and then
    close the response::

        response = app.test_client().get("/stream")
        sse.publish("hello")
        (event,) = read_events(response, count=1)
        assert event.data == "hello"

    It returns the events that have come as soon as there are ``count``, the stream
    ends, or ``timeout`` seconds are over. An application's generator that blocks is not
    interrupted.

    :param count: events to wait for; None for all until the end or the timeout.
    :param timeout: seconds.
    :param bookkeeping: whether ``stream-open`` and ``stream-position`` count too.
    :raises AssertionError: where the response is no event stream.
    """
    if response.mimetype != "text/event-stream":
        raise AssertionError(f"No event stream: {response.status} {response.mimetype}")
    events: list[Event] = []
    timer = threading.Timer(timeout, _close, [response])
    timer.daemon = True
    timer.start()
    decoder = Decoder()
    try:
        chunks = response.iter_encoded()
        while count is None or len(events) < count:
            chunk = next(chunks, None)
            if chunk is None:
                break
            events += [
                event
                for event in decoder.feed(chunk)
                if bookkeeping or event.type not in BOOKKEEPING
            ]
    finally:
        timer.cancel()
        timer.join()
        response.close()
    return events if count is None else events[:count]


def _close(response: Response) -> None:
    """End another thread's wait for this response."""
    try:
        response.close()
    except ValueError:
        pass  # A generator that runs cannot be closed. The reader closes it later.


@contextmanager
def published(app: Flask) -> Iterator[list[Event]]:
    """Record what an application publishes, each event with its channel and id, in the
    order of publishing. Thread-safe::

        with published(app) as events:
            app.test_client().post("/say", data={"text": "hello"})
        assert [event.data for event in events] == ["hello"]
    """
    events: list[Event] = []
    with app.app_context():
        recorders = current_channels().recorders
    recorders.append(events.append)
    try:
        yield events
    finally:
        recorders.remove(events.append)


def await_signals(app: Flask, timeout: float = 5.0) -> None:
    """Wait until the receivers of signals were called for all that has happened so far.
    They are called a moment later, in a thread of their own::

        app.test_client().post("/say", data={"text": "hello"})
        await_signals(app)
        assert seen == ["hello"]

    A receiver must not call this: it would wait for itself.

    :param timeout: seconds to wait at most.
    :raises AssertionError: where receivers take longer.
    """
    with app.app_context():
        courier = current_channels().courier
    if courier and not courier.settle(timeout):
        raise AssertionError(f"Receivers of signals take more than {timeout:g} s")
