"""EventStream: a Flask response that is an event stream.

Here lives what makes a response an event stream: its headers, and how the WSGI server
gets its body. The body is made elsewhere: by a subscription, or from an iterable of the
application's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import (
    Response,
    current_app,
    has_request_context,
    request,
    stream_with_context,
)
from werkzeug.exceptions import InternalServerError
from werkzeug.wsgi import ClosingIterator

from .client_faults import query, require
from .errors import UnsupportedServer
from .generators.items import Items, check_type
from .hub.keepalive import Pulse
from .hub.subscription import Subscription
from .log_messages import UNSUPPORTED_SERVER
from .own_events import END_ID
from .settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MIMETYPE = "text/event-stream"

#: A browser must not take the text of an event for a page or a script, whatever stands
#: in the event. The answers that keep a client away (204) carry this header too.
NOSNIFF = {"X-Content-Type-Options": "nosniff"}

#: The headers of a 204, which keeps a client away for good. A cache must not send it to
#: another client: the answer depends on cookies and on a token.
AWAY = {"Cache-Control": "no-store", **NOSNIFF}

#: These headers keep caches and proxies from holding events back or rewriting them.
#: nginx has one of its own.
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    **NOSNIFF,
}

#: The name of the query parameter in which a page puts the id that it resumes from.
LAST_ID_PARAMETER = "last_event_id"

#: The names that clients give that parameter, without regard to capitals, hyphens and
#: underscores:
#: ``lastEventId`` (event-source-polyfill, reconnecting-eventsource, better-sse),
#: ``lastEventID`` and ``Last-Event-ID`` (Mercure), ``evs_last_event_id`` (amvtek's
#: polyfill).
LAST_ID_NAMES = frozenset({"lasteventid", "evslasteventid"})

_NO_SEPARATORS = str.maketrans("", "", "-_")


class EventStream(Response):
    """A response that sends an iterable's items as events, as they come::

        @app.get("/words")
        def words():
            def split():
                for word in request.args.get("text", "one two").split():
                    yield {"word": word}

            return EventStream(split(), type="word")

    Items are text, ``Event``, or what the application's JSON provider takes. The
    iterable runs within the request's context, on the server's thread or greenlet. It
    makes an item only when the client has taken the one before; while it is silent,
    comments keep the connection alive. When the client leaves, the iterable is closed
    at its next item; under gevent, at once.

    An error before the first item is an ordinary error of the view, unless a comment
    was sent meanwhile. Later errors are logged; the client gets ``stream-error``,
    without details. Behind the last item comes an event ``stream-end``; a browser that
    then reconnects gets 204: it stays away, and the iterable does not run twice.

    :param type: the type of items that are no ``Event``.
    :param final: one item more, after the last: the ``"[DONE]"`` of some formats.
    :param own_events: whether clients get ids and the extension's own events. The
        clients of other formats would take those for events of the format.
    :param on_error: what to tell the client of an exception: it returns a message, as
        text or JSON, or an ``Event`` that is sent instead of ``stream-error``. Without
        own events what it returns is sent as an item; without this function, nothing.
    :raises InvalidType: when given one text, bytes or dict instead of an iterable of
        items.
    :raises InvalidValue: for a type that cannot be one. For a type that the current
        request has brought, Flask answers 400.
    """

    default_mimetype = MIMETYPE
    implicit_sequence_conversion = False
    automatically_set_content_length = False

    def __init__(
        self,
        iterable: Iterable[Any],
        *,
        type: str | None = None,
        final: Any = None,
        own_events: bool = True,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> None:
        self._items: Items | None = None
        self._frames: InRequest | None = None
        if isinstance(iterable, Subscription):
            super().__init__(iterable, headers=HEADERS)
            return
        require(check_type, type)
        self._items = Items(iterable, type, final, own_events, on_error)
        if own_events and has_request_context() and last_event_id() == END_ID:
            super().__init__(status=204, headers=AWAY)
            self._items.close()
            return
        self._frames = InRequest(self._items.frames())
        super().__init__(self._frames, headers=HEADERS)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """The WSGI application that a response is."""
        if environ["REQUEST_METHOD"] != "HEAD":
            if self._frames:
                self._frames.enter()
            if isinstance(self.response, Subscription):
                return self._subscribe(self.response, environ, start_response)
            if self._frames and self.response is self._frames:
                return self._begin(self._frames, environ, start_response)
        # Something (flask-compress, say) has put another iterable into the response:
        # werkzeug serves that as any other body.
        return super().__call__(environ, start_response)

    def close(self) -> None:
        """End the stream. The server calls this last; a second call does nothing. A
        test calls it to leave before the stream ends::

            response = EventStream(["one", "two"])
            response.close()
        """
        try:
            super().close()
        finally:
            if self._items:
                self._items.close()  # The frames close it only once they have begun.

    def _subscribe(
        self,
        subscription: Subscription,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Give the server the subscription itself. (werkzeug's layers would cost time
        for every event, and cannot be closed while they wait.) The subscription gets
        the server's ``write``, and finds its connection through it."""
        _, status, headers = self.get_wsgi_response(environ)
        write = start_response(status, headers)
        subscription.started(environ, write)
        subscription.on_close = self.close
        return subscription

    def _begin(
        self,
        frames: Iterator[bytes],
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Wait for the iterable's first item: until then, Flask can answer an error of
        the iterable as it answers a view's."""
        assert self._items
        items = self._items
        _, status, headers = self.get_wsgi_response(environ)
        items.may_raise = True
        pulse = Pulse(
            frames,
            environ,
            lambda: start_response(status, headers),
            _settings(),
            lambda: items.is_over,
            items.interruption if items.can_tell else None,
        )
        try:
            pulse.begin()
        except Exception as error:
            if pulse.is_started:
                pulse.go_on_with(items.failure(error))
            else:
                pulse.close()
                self.close()
                return _ordinary_error(error)(environ, start_response)
        except BaseException:
            pulse.close()
            self.close()
            raise
        return ClosingIterator(pulse, [pulse.close, self.close])


class InRequest(Iterator[bytes]):
    """Frames that are made within the request's context.

    The frames take the context when the server asks for the response, not in the view:
    an ``async`` view runs in a context of its own, and a generator that began there
    cannot go on in the server's (Flask before 3.1.2 raises ValueError).
    """

    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames
        self._is_entered = False

    def enter(self) -> None:
        """Take the context of the request that is served now. A second call does
        nothing, and neither does a call outside a request."""
        if not self._is_entered:
            self._is_entered = True
            if has_request_context():
                self._frames = stream_with_context(self._frames)

    def __next__(self) -> bytes:
        self.enter()
        return next(self._frames)

    def close(self) -> None:
        """Close the frames, and let go of the context. A second call does nothing."""
        if close := getattr(self._frames, "close", None):
            close()


def last_event_id() -> str:
    """The id that the request resumes from, or nothing.

    The header goes before the query: a browser that reconnects repeats the query of the
    page, and only the header is up to date. A client that cannot set a header appends
    the id to the page's query, under a name of its own. So a client's name goes before
    the page's, and the last of several before the others.
    """
    header: str = request.environ.get("HTTP_LAST_EVENT_ID", "")
    if not header:
        return _last_id_in_query()
    try:
        # WSGI shows bytes as latin-1, and what the client sent is UTF-8.
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header  # A test client's header was never bytes.


def _last_id_in_query() -> str:
    pages, clients = "", ""
    for name, value in query().items(multi=True):
        if name == LAST_ID_PARAMETER:
            pages = value or pages
        elif name.lower().translate(_NO_SEPARATORS) in LAST_ID_NAMES:
            clients = value or clients
    return clients or pages


def _settings() -> Settings:
    """The settings of the application. It need have no channels to have these."""
    if channels := current_app.extensions.get("sse"):
        settings: Settings = channels.settings
        return settings
    return Settings.read(current_app.config)


def _ordinary_error(error: Exception) -> Response:
    """What Flask answers when a view raises an error.

    :raises Exception: the error, where Flask would raise it to the server.
    """
    if not has_request_context():
        raise error
    app = current_app
    if isinstance(error, UnsupportedServer):
        UNSUPPORTED_SERVER.log(error, to=app.logger)
        error = InternalServerError()  # Flask logs no traceback of this one.
    try:
        return app.finalize_request(app.handle_user_exception(error))
    except Exception as unhandled:
        return app.handle_exception(unhandled)
