"""Traced events: those that carry the context of the trace of their publish.

Here lives how an event carries that context, and what a context looks like (W3C Trace
Context, section 3.2). Brokers bring it to the other processes. No client is sent it.
An event that nobody traces is an ordinary ``Event``, so that tracing costs nothing
where it is off. Spans are unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from .event import Event, good_event

_CONTEXT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class TracedEvent(Event):
    """An event that was published in a trace.

    ``trace`` is the trace's context, as the header ``traceparent`` has it. ``is_told``
    says that its delivery in this process is told already.
    """

    __slots__ = ("is_told", "trace")

    trace: str | None
    is_told: bool

    def _set(
        self,
        data: str,
        type: str | None,
        id: str | None,
        retry: int | None,
        channel: str | None,
        body: bytes,
    ) -> Event:
        object.__setattr__(self, "trace", None)
        object.__setattr__(self, "is_told", False)
        return super()._set(data, type, id, retry, channel, body)

    def published(self, channel: str, position: str) -> Event:
        return traced(super().published(channel, position), self.trace)

    # An event equals another one that says the same, whether it is traced or not.
    # Python asks the class of a TracedEvent first, on whichever side it stands.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and _fields(self) == _fields(other)

    __hash__ = Event.__hash__

    def __reduce__(self) -> tuple[object, ...]:
        return traced, (good_event(*_fields(self)), self.trace)


def traced(event: Event, trace: str | None) -> Event:
    """An event as it is, with the context of a trace; without one, the event itself."""
    if trace is None:
        return event
    copy: TracedEvent = object.__new__(TracedEvent)
    copy._set(event.data, event.type, event.id, event.retry, event.channel, event._body)
    object.__setattr__(copy, "trace", trace)
    return copy


def trace_of(event: Event) -> str | None:
    """The context that an event carries, if it does."""
    return event.trace if isinstance(event, TracedEvent) else None


def checked_trace(value: object) -> str | None:
    """A context that stands in a store; None for what is none. A later release, and
    any other program, can have written it."""
    is_context = isinstance(value, str) and _CONTEXT.fullmatch(value)
    return str(value) if is_context else None


def untold(event: Event | None) -> str | None:
    """The context of an event whose delivery in this process was not told yet. It
    counts as told from here on."""
    if not isinstance(event, TracedEvent) or event.is_told:
        return None
    object.__setattr__(event, "is_told", True)
    return event.trace


class Fallible(Protocol):
    """What can fail."""

    @property
    def has_failed(self) -> bool:
        """Whether it has failed so far."""


class Tracing(Protocol):
    """What traces the channels of an application. Any thread can call its methods."""

    def publishing(
        self,
        channels: tuple[str, ...],
        event: Event,
        within: AbstractContextManager[object],
    ) -> tuple[Event, AbstractContextManager[object]]:
        """Trace a publish.

        :param within: what the publish happens in.
        :returns: the event as it must be published, and what the publish must happen in
            instead.
        """

    def note_published(self, event: Event) -> None:
        """The event of the publish that goes on was published."""

    def run_context(
        self,
        channel: str,
        items: Fallible,
        context: Callable[[], AbstractContextManager[object]],
    ) -> Callable[[], AbstractContextManager[object]]:
        """Trace a run that begins now.

        :param items: say at the run's end whether the iterable has raised.
        :param context: makes what the run's iterable runs in.
        :returns: makes what it must run in instead.
        """


def _fields(
    event: Event,
) -> tuple[str, str | None, str | None, int | None, str | None]:
    return (event.data, event.type, event.id, event.retry, event.channel)
