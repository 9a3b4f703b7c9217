"""What can go wrong, under one base class.

Here live the exceptions that this package raises to an application, and nothing
else. An error says what was wrong, with which value, and what to do about it.
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


class InvalidType(InvalidValue, TypeError):
    """The same, for a value whose type alone is wrong already."""


class BrokerUnavailable(SSEError):
    """The broker's store cannot be reached, or does not take what is published: it is
    down, full, locked, broken or not there. What was to be done was not done, as far
    as can be known. Open streams stay open meanwhile, and the broker is used again as
    soon as it is back::

        try:
            sse.publish("hello")
        except BrokerUnavailable:
            abort(503)
    """


class Reentered(BrokerUnavailable):
    """A signal handler, a ``__del__`` or a callback of the garbage collector has called
    the extension in the midst of such a call. The thread that was interrupted goes on
    only when the handler returns, so that the handler must not wait for it. What the
    handler wanted was not done."""

    def __init__(self) -> None:
        super().__init__(
            "This was called by code that has interrupted the same thread (a signal "
            "handler, a __del__) within a call of this extension, which goes on only "
            "behind it. Have the code note what it wants, and do that later"
        )


class NoApplication(SSEError, RuntimeError):
    """Nobody can tell which application is meant, or it never met an ``SSE``. Outside a
    request, say which one::

        with app.app_context():
            sse.publish("hello")
    """


class SetupError(SSEError, AssertionError):
    """Something was set on an ``SSE`` too late, or for an application that has another:
    it would hold for no application, or for the wrong one. Each application can have an
    instance of its own::

        def create_app():
            app, sse = Flask(__name__), SSE()
            sse.authorizer(lambda channel: channel == "news")
            sse.init_app(app)
            return app
    """


class UnsupportedServer(SSEError, RuntimeError):
    """The process is run by something that event streams cannot be served under."""
