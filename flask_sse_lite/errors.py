"""The exceptions that this package raises to an application, under one base class.

Here live the classes, and nothing else. The text of an error says what was wrong, with
which value, and what to do about it.
"""

from __future__ import annotations


class SSEError(Exception):
    """The base of every error that this package raises, so that one clause catches
    them all::

        try:
            sse.publish("hello", channel="room.1")
        except SSEError as error:
            app.logger.warning("Nobody was told: %s", error)
    """


class InvalidValue(SSEError, ValueError):
    """A value that cannot stand where it was given: in an event, a channel's name
    or the configuration::

        try:
            sse.publish("hello", type="two\\nlines")
        except InvalidValue as error:
            app.logger.warning("Not published: %s", error)
    """


class EventTooLarge(InvalidValue):
    """An event with more bytes than ``SSE_MAX_EVENT_BYTES``. Every process keeps an
    event for those who come back, and every client gets it as one piece. Publish where
    the data can be had instead::

        try:
            sse.publish("x" * 2_000_000, channel="reports")
        except EventTooLarge:
            sse.publish({"href": "/reports/7"}, channel="reports")

    Where the current request has brought that much, Flask answers 413.

    :param size: the event's bytes.
    """

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class InvalidType(InvalidValue, TypeError):
    """A value whose type is wrong, so that it cannot stand where it was given."""


class BrokerUnavailable(SSEError):
    """The broker's store cannot be reached, or refuses what is published: it is down,
    full, locked, broken or missing. As far as can be known, the call did nothing. Open
    streams stay open meanwhile. The broker uses the store again as soon as it is
    back::

        try:
            sse.publish("hello")
        except BrokerUnavailable:
            abort(503)
    """


class Reentered(BrokerUnavailable):
    """A signal handler, a ``__del__`` or a callback of the garbage collector
    interrupted a call of this extension, and made a call that must wait for the
    interrupted one. The interrupted call goes on only when the handler has returned, so
    waiting would never end. The handler's call did nothing."""

    def __init__(self) -> None:
        super().__init__(
            "This was called by code that has interrupted the same thread (a signal "
            "handler, a __del__) within a call of this extension, which goes on only "
            "behind it. Have the code note what it wants, and do that later"
        )


class Unsupported(SSEError, NotImplementedError):
    """The application's own broker cannot do what was asked of it. (The brokers of this
    package can do all.) ::

        try:
            names = list(sse.present("room.1"))
        except Unsupported:
            names = []
    """


class NoApplication(SSEError, RuntimeError):
    """It is unclear which application is meant, or no ``SSE`` was set up on it. Outside
    a request, say which one::

        with app.app_context():
            sse.publish("hello")
    """


class SetupError(SSEError, AssertionError):
    """A hook or an authorizer was set on an ``SSE`` too late, or for an application
    that has another already. It would hold for no application, or for the wrong one.
    Each application can have an instance of its own::

        def create_app():
            app, sse = Flask(__name__), SSE()
            sse.authorizer(lambda channel: channel == "news")
            sse.init_app(app)
            return app
    """


class UnsupportedServer(SSEError, RuntimeError):
    """Event streams cannot be served under what runs this process (eventlet)."""
