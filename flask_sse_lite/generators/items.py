"""From an application's iterable to the frames of a response.

Here lives what an item can be, and what follows the last item: the end, or an error.
How a response begins, and what is sent while the iterable is silent, is unknown here:
see ``response.py``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import (
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, TypeVar

from flask import current_app

from ..errors import InvalidType, SSEError
from ..event import Event, check_size, encode_text, to_text
from ..log_messages import ITERABLE_FAILED, ITERABLE_NOT_CLOSED, ON_ERROR_FAILED
from ..own_events import END_ID, FAILED, SHUTDOWN, end, failure
from ..type_names import warn_of_type

_END = end(END_ID)

T = TypeVar("T")

logger = logging.getLogger("flask_sse_lite")


def check_type(type: str | None) -> None:
    """Check that items can have a type.

    :raises InvalidValue: where they cannot.
    """
    if type is not None:
        Event("", type)


class Items:
    """An iterable's items as events or frames. See ``EventStream`` for the
    parameters."""

    def __init__(
        self,
        iterable: Iterable[Any],
        type: str | None = None,
        final: Any = None,
        own_events: bool = True,
        on_error: Callable[[Exception], Any] | None = None,
    ) -> None:
        if isinstance(iterable, (AsyncIterable, Awaitable)):
            raise InvalidType(
                f"{iterable.__class__.__name__!r} is asynchronous, and a WSGI server "
                "has no event loop to run it in: give EventStream and sse.run an "
                "ordinary iterable, such as a generator made by def with yield (the "
                "view itself can be async)"
            )
        is_one = isinstance(iterable, (str, bytes, dict))
        if is_one or not isinstance(iterable, Iterable):
            raise InvalidType(
                "EventStream takes an iterable of items, such as a generator, not one "
                f"{iterable.__class__.__name__!r}"
            )
        if type is not None:
            type = Event("", type).type  # Refuse a wrong type before the head.
            if type and own_events:
                warn_of_type(type)
        self._iterable = iterable
        self._type = type
        self._final = final
        self._own_events = own_events
        self._on_error = on_error
        self._dumps: Callable[[Any], str] = json.dumps
        #: Whether an error is raised to the caller instead of told to the client. The
        #: caller sets it; the first item clears it.
        self.may_raise = False
        #: Bytes that an event can have; None where nobody keeps it.
        self.max_bytes: int | None = None
        #: Whether the iterable has had its last step. Its closing must not be
        #: interrupted.
        self.is_over = False
        #: Whether the iterable has raised, or what it gave cannot be sent.
        self.has_failed = False

    def frames(self) -> Iterator[bytes]:
        """The items as frames, and then the end. Must be iterated in an application
        context."""
        yield from self._walk(self._frame)
        if self._own_events:
            yield _END.encode()

    def events(self) -> Generator[Event, None, None]:
        """The items as events, and after an error the event that tells of it. Must be
        iterated in an application context."""
        return self._walk(self._event)

    def _walk(
        self, make: Callable[[Any, Callable[[Any], str]], T]
    ) -> Generator[T, None, None]:
        self._dumps = dumps = current_app.json.dumps
        try:
            for item in self._iterable:
                yield make(item, dumps)
                self.may_raise = False
            if self._final is not None:
                yield make(self._final, dumps)
        except Exception as error:
            if self.may_raise:
                raise
            for event in self._told(error):
                yield make(event, dumps)
        finally:
            self.close()

    def close(self) -> None:
        """Close the iterable, once. An error of its ``close`` is logged, not raised."""
        if self.is_over:
            return
        self.is_over = True
        try:
            if hasattr(self._iterable, "close"):
                self._iterable.close()
        except Exception:
            ITERABLE_NOT_CLOSED.log(error=True)

    def failure(self, error: Exception) -> Iterator[bytes]:
        """The frames of a response that consists of an error only."""
        events = [*self._told(error), *([_END] if self._own_events else [])]
        return iter([event.encode() for event in events])

    @property
    def can_tell(self) -> bool:
        """Whether the client can be told that it has not received everything."""
        return self._own_events or self._on_error is not None

    def interruption(self) -> bytes:
        """The last frame of a response whose server stops in the middle of it. It is
        not ``stream-end``: the response is not complete, and the client can come
        back."""
        if self._own_events or not self._on_error:
            return SHUTDOWN.encode()
        message = self._on_error(SSEError("The server stops"))
        return b"" if message is None else self._frame(message, self._dumps)

    def _told(self, error: Exception) -> list[Event]:
        """Log an error.

        :returns: the events that tell the client of it.
        """
        self.has_failed = True
        ITERABLE_FAILED.log(error=error, to=current_app.logger)
        dumps = current_app.json.dumps
        events = [FAILED] if self._own_events else []
        try:
            message = self._on_error(error) if self._on_error else None
            if isinstance(message, Event) or not (self._own_events or message is None):
                events = [self._event(message, dumps)]
            elif message is not None:
                events = [failure(message, dumps)]
        except Exception:
            ON_ERROR_FAILED.log(error=True, to=current_app.logger)
        return events

    def _event(self, item: Any, dumps: Callable[[Any], str]) -> Event:
        event = self._as_event(item, dumps)
        if self.max_bytes is not None:
            check_size(event, self.max_bytes)
        return event

    def _as_event(self, item: Any, dumps: Callable[[Any], str]) -> Event:
        if not isinstance(item, Event):
            return Event(to_text(item, dumps), self._type)
        if self._own_events:
            if item.type is not None:
                warn_of_type(item.type)
        elif item.id is not None or item.retry is not None:
            return Event(item.data, item.type)
        return item

    def _frame(self, item: Any, dumps: Callable[[Any], str]) -> bytes:
        if isinstance(item, Event):
            return self._event(item, dumps).encode()
        # No Event is made for each item: an answer has thousands of tokens.
        return encode_text(to_text(item, dumps), self._type)
