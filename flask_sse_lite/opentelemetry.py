"""Traces for OpenTelemetry: a publish, the deliveries that come of it, and a run.

Here lives what becomes a span, and which attributes it has: by the semantic conventions
of messaging, as far as they say it. ``docs/tracing.rst`` explains each. How the context
of a publish travels with its event lives in traced.py and in the brokers. No span is
made in a thread that delivers: the courier's thread makes those of deliveries.

This module is imported by itself, and needs ``opentelemetry-api``
(``pip install flask_sse_lite[opentelemetry]``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from flask import Flask
from opentelemetry import context, trace
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from .application import channels_of
from .event import Event
from .position import RUN_PREFIX
from .publisher import Publisher, channels_of_publisher
from .signals.deliveries import traced_delivery
from .traced import Fallible, traced

#: Under which name the spans are made.
SCOPE = "flask_sse_lite"


def instrument(
    application: Flask | Publisher, tracer_provider: TracerProvider | None = None
) -> None:
    """Trace what an application publishes and delivers, and its runs; or what a
    ``Publisher`` publishes. Call it when the application is made, behind ``init_app``.
    A second call does nothing::

        sse.init_app(app)
        instrument(app)

    :param tracer_provider: makes the spans; by default, OpenTelemetry's global one,
        which can be set later.
    :raises NoApplication: for an application that has no channels yet.
    """
    if isinstance(application, Publisher):
        channels = channels_of_publisher(application)
    else:
        behind = "sse.init_app(app) before opentelemetry.instrument(app)"
        channels = channels_of(application, behind)
    if channels.tracing is None:
        tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        channels.tracing = _Tracing(tracer)
        if channels.courier is not None:
            channels.courier.watch_deliveries().trace()
            traced_delivery.connect(channels.tracing.deliver, application)


class _Tracing:
    """What traces one application. Any thread can call its methods."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    # Publishes: see traced.Tracing

    def publishing(
        self,
        channels: tuple[str, ...],
        event: Event,
        within: AbstractContextManager[object],
    ) -> tuple[Event, AbstractContextManager[object]]:
        attributes = _attributes("publish", "send", channels, len(channels))
        span = self._tracer.start_span(
            "publish", kind=SpanKind.PRODUCER, attributes=attributes
        )
        return traced(event, _written(span.get_span_context())), _within(span, within)

    def note_published(self, event: Event) -> None:
        if event.id is not None:
            trace.get_current_span().set_attribute("messaging.message.id", event.id)

    # Deliveries

    def deliver(
        self,
        app: Flask,
        traces: tuple[str, ...],
        channels: tuple[str, ...],
        streams: int,
        began: int,
        ended: int,
        **facts: Any,
    ) -> None:
        """Make the span of a round. The courier's thread calls this."""
        contexts = list(map(_read, traces))
        # The parent of one event's delivery is its publish, so that it is sampled as
        # that was. Several events can be of several traces.
        parent = context.Context()
        if len(contexts) == 1:
            span = trace.NonRecordingSpan(contexts[0])
            parent = trace.set_span_in_context(span, parent)
        self._tracer.start_span(
            "deliver",
            context=parent,
            kind=SpanKind.CONSUMER,
            attributes=_attributes("deliver", "process", channels, len(traces))
            | {"sse.streams": streams},
            links=[Link(one) for one in contexts],
            start_time=began,
        ).end(ended)

    # Runs: see traced.Tracing

    def run_context(
        self,
        channel: str,
        items: Fallible,
        surroundings: Callable[[], AbstractContextManager[object]],
    ) -> Callable[[], AbstractContextManager[object]]:
        parent = context.get_current()
        attributes: dict[str, Any] = {}
        if not channel.startswith(RUN_PREFIX):
            # The name of a run's own channel is a secret.
            attributes["sse.channels"] = (channel,)

        @contextmanager
        def run() -> Iterator[None]:
            with self._tracer.start_as_current_span(
                "run", context=parent, attributes=attributes
            ) as span:
                with surroundings():
                    yield
                if items.has_failed:
                    span.set_status(Status(StatusCode.ERROR))

        return run


@contextmanager
def _within(span: trace.Span, within: AbstractContextManager[object]) -> Iterator[None]:
    with trace.use_span(span, end_on_exit=True), within:
        yield


def _attributes(
    name: str, type: str, channels: tuple[str, ...], events: int
) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "messaging.system": SCOPE,
        "messaging.operation.name": name,
        "messaging.operation.type": type,
    }
    if len(channels) == 1:
        attributes["messaging.destination.name"] = channels[0]
    else:
        attributes["sse.channels"] = channels
    if events > 1:
        attributes["messaging.batch.message_count"] = events
    return attributes


def _written(span: SpanContext) -> str | None:
    """A context in the form of ``traceparent``; None for a span that nobody keeps."""
    if not (span.is_valid and span.trace_flags.sampled):
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def _read(trace: str) -> SpanContext:
    _, trace_id, span_id, flags = (int(part, 16) for part in trace.split("-"))
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
