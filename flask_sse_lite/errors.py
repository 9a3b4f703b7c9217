"""What can go wrong, under one base class.

Here live the exceptions that this package raises to an application, and nothing
else. An error says what was wrong, with which value, and what to do about it.
"""

from __future__ import annotations


class SSEError(Exception):
    """The base of every error that this package raises."""


class InvalidValue(SSEError, ValueError):
    """A value that cannot stand where it was given: in an event, a channel's name
    or the configuration."""


class InvalidType(InvalidValue, TypeError):
    """The same, for a value whose type alone is wrong already."""


class BrokerUnavailable(SSEError):
    """The broker's store cannot be reached, or does not take what is published: it is
    down, full, locked, broken or not there. What was to be done was not done, as far
    as can be known. Open streams stay open meanwhile, and it is used again as soon as
    it is back."""


class Reentered(BrokerUnavailable):
    """A signal handler, a ``__del__`` or a callback of the garbage collector asked for
    something in the midst of the same: the thread that it interrupted goes on only
    behind it, so to wait would be to wait for ever. It was not done."""

    def __init__(self) -> None:
        super().__init__(
            "This was called by code that has interrupted the same thread (a signal "
            "handler, a __del__) within a call of this extension, which goes on only "
            "behind it. Have the code note what it wants, and do that later"
        )


class NoApplication(SSEError, RuntimeError):
    """There is no telling which application is meant, or it never met an ``SSE``."""


class SetupError(SSEError, AssertionError):
    """Something was set on an ``SSE`` too late, or for an application that has another:
    it would hold for none, or for the wrong one."""


class UnsupportedServer(SSEError, RuntimeError):
    """The process is run by something that event streams cannot be served under."""
