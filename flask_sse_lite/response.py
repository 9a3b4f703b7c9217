"""EventStream: a Flask response that is an event stream.

Here lives what makes a response one: its headers, and its way to the WSGI server. What
it streams comes from elsewhere: a subscription's bytes, or an application's iterable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import (
    Response,
    current_app,
    has_request_context,
    request,
    stream_with_context,
)

from .errors import InvalidType
from .event import Event, own_event, to_text
from .subscription import Subscription

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MIMETYPE = "text/event-stream"

#: Against those who would hold events back, or rewrite them: caches, proxies that
#: compress, and (in its own words) nginx.
HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

#: The id of the end of an application's iterable. Who brings it has seen everything.
END_ID = "stream-end"


class EventStream(Response):
    """A response that sends an iterable's items as events, as they come.

    Items are text, ``Event``, or what the application's JSON provider takes. The
    iterable runs within the request's context, on the server's thread or greenlet; a
    generator is closed when the client has left. Behind its last item comes an event
    ``stream-end``; a browser that then reconnects gets 204, which keeps it away and
    the generator from running twice.

    An error in the iterable is logged, and told to the client as ``stream-error``,
    without its details.

    :raises InvalidType: when given one text, bytes or dict instead of an iterable of
        items.
    """

    default_mimetype = MIMETYPE
    implicit_sequence_conversion = False
    automatically_set_content_length = False

    def __init__(self, iterable: Iterable[Any]) -> None:
        if isinstance(iterable, Subscription):
            super().__init__(iterable, headers=HEADERS)
            return
        is_one = isinstance(iterable, (str, bytes, dict))
        if is_one or not isinstance(iterable, Iterable):
            raise InvalidType(
                "EventStream takes an iterable of items, such as a generator, not one "
                f"{type(iterable).__name__!r}"
            )
        if has_request_context() and last_event_id() == END_ID:
            super().__init__(status=204)
            if hasattr(iterable, "close"):
                iterable.close()
            return
        frames = _frames(iterable)
        if has_request_context():
            frames = stream_with_context(frames)
        super().__init__(frames, headers=HEADERS)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """The WSGI application that a response is. A subscription gets to know what
        its server answered: through that it finds its connection."""
        app_iter, status, headers = self.get_wsgi_response(environ)
        write = start_response(status, headers)
        if isinstance(self.response, Subscription):
            self.response.started(environ, write)
        return app_iter

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        """What the server iterates. A subscription is given to it as it is: werkzeug's
        layers would cost time for every event, and could not be closed while they
        wait. What others put in its place (flask-compress, say) goes its usual way."""
        if isinstance(self.response, Subscription):
            if environ["REQUEST_METHOD"] != "HEAD":
                self.response.on_close = self.close
                return self.response
        return super().get_app_iter(environ)


def last_event_id() -> str:
    """The id that the request resumes from, or nothing. The header goes before the
    query: on a reconnect a browser repeats the query of the page's making, and the
    header alone is up to date."""
    header = request.headers.get("Last-Event-ID", "")
    try:
        # WSGI shows bytes as latin-1, and what the client sent is UTF-8.
        header = header.encode("latin-1").decode()
    except UnicodeError:
        pass  # A test client's, which was never bytes.
    return header or request.args.get("last_event_id", "")


def _frames(items: Iterable[Any]) -> Iterator[bytes]:
    try:
        for item in items:
            yield _as_event(item).encode()
    except Exception:
        current_app.logger.exception("An event stream's iterable failed")
        yield own_event("error", '{"reason": "error"}').encode()
    finally:
        if hasattr(items, "close"):
            items.close()
    yield own_event("end", id=END_ID).encode()


def _as_event(item: Any) -> Event:
    if isinstance(item, Event):
        return item
    return Event(to_text(item, current_app.json.dumps))
