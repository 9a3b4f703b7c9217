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


class NoApplication(SSEError, RuntimeError):
    """There is no telling which application is meant, or it never met an ``SSE``."""
