"""Metrics for Prometheus, of what an application's signals tell.

Here lives what is measured, and under which name: ``docs/metrics.rst`` explains each.
All metrics are ordinary ones of ``prometheus_client``, so that they are right under
several processes, too (its multiprocess mode). The courier's thread, which calls the
receivers of signals, does all of it. On the way of an event a number is put into a list
now and then, and nothing else. How metrics are served is the application's affair.

This module is imported by itself, and needs ``prometheus_client``
(``pip install flask_sse_lite[prometheus]``).
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

from flask import Flask
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
)

from . import signals
from .application import channels_of
from .channels import Channels
from .errors import BrokerUnavailable
from .event import Event
from .hub import current_hub
from .signals.courier import Courier
from .signals.story import Story

#: Seconds of a ``publish``, as the limits of a histogram's buckets: from memory to a
#: store that is as slow as the default of ``SSE_BROKER_TIMEOUT``.
PUBLISH_BUCKETS = (0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 1, 5)

#: Seconds from a publish to the clients, as the limits of buckets: from a quiet process
#: to one that is overloaded.
DELIVERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

#: Events that a stream is behind. ``SSE_HISTORY`` is 256 where nothing else is said.
BEHIND_BUCKETS = (0, 1, 4, 16, 64, 256, 1024, 4096)

#: Streams that one look asks how far they are behind. The histogram takes 2 ms for so
#: many. Of more streams, some are drawn by lot.
MOST_ASKED = 500

#: Under which key an application keeps what measures it.
_KEY = "sse.metrics"


def register(app: Flask, registry: CollectorRegistry = REGISTRY) -> None:
    """Measure an application's streams. Call it when the application is made, behind
    ``init_app``: what begins before that is not counted. A second call does nothing::

        sse.init_app(app)
        metrics.register(app)

    Several applications can share a registry. Their numbers are then added.

    :param registry: where the metrics are; by default, prometheus_client's own.
    :raises NoApplication: for an application that has no channels yet.
    """
    channels = channels_of(app, "sse.init_app(app) before metrics.register(app)")
    assert channels.courier is not None  # An application's channels have one.
    if _KEY not in app.extensions:
        metrics = _metrics.get(registry)
        if metrics is None:
            metrics = _metrics[registry] = _Metrics(registry)
        measured = _Measured(channels, channels.courier, metrics)
        measured.listen(app)
        app.extensions[_KEY] = measured


class _Metrics:
    """The metrics of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge(
            "sse_streams_open",
            "Open streams, by how they are delivered and why so.",
            ["path", "reason"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.opened = Counter(
            "sse_streams_opened",
            "Streams that have begun. A resumed one goes on where another has ended.",
            ["path", "reason", "resumed"],
            registry=registry,
        )
        self.ended = Counter(
            "sse_streams_ended",
            "Streams that have ended, by reason.",
            ["reason"],
            registry=registry,
        )
        self.refused = Counter(
            "sse_streams_refused",
            "Requests for a stream that were given none, by reason.",
            ["reason"],
            registry=registry,
        )
        self.published = Counter(
            "sse_events_published", "Events that were published.", registry=registry
        )
        self.publish = Histogram(
            "sse_publish_duration_seconds",
            "How long a publish took.",
            registry=registry,
            buckets=PUBLISH_BUCKETS,
        )
        self.deliveries = Counter(
            "sse_deliveries",
            "Events that were sent to a client, one for each client.",
            registry=registry,
        )
        self.delivery = Histogram(
            "sse_delivery_duration_seconds",
            "How long after its publish an event was sent to its clients.",
            registry=registry,
            buckets=DELIVERY_BUCKETS,
        )
        self.bytes = Counter(
            "sse_sent_bytes", "Bytes of streams that were sent.", registry=registry
        )
        self.gaps = Counter(
            "sse_gaps",
            "Streams that have lost events, and were told.",
            registry=registry,
        )
        self.behind = Histogram(
            "sse_stream_behind_events",
            "How many events a stream has not been given yet, asked now and then.",
            registry=registry,
            buckets=BEHIND_BUCKETS,
        )
        self.runs = Gauge(
            "sse_runs_open",
            "Runs that go on.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.runs_started = Counter(
            "sse_runs_started", "Runs that have begun.", registry=registry
        )
        self.runs_ended = Counter(
            "sse_runs_ended",
            "Runs that are over, by reason.",
            ["reason"],
            registry=registry,
        )
        self.dropped = Counter(
            "sse_signals_dropped",
            "Signals that were dropped, so that these metrics miss something.",
            registry=registry,
        )
        # A process without streams has no opinion: it says 0, as a forked child does
        # that has not looked yet.
        self.away = Gauge(
            "sse_broker_away",
            "Whether a process with streams cannot reach the broker.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.reconnects = Counter(
            "sse_broker_reconnects",
            "How often the broker was away and is back.",
            registry=registry,
        )
        self.lag = Gauge(
            "sse_follower_lag_events",
            "Events in the store that a process with streams has not read yet.",
            registry=registry,
            multiprocess_mode="livemax",
        )


class _Measured:
    """What measures one application. Its methods are receivers of signals, or called by
    the same thread."""

    def __init__(self, channels: Channels, courier: Courier, metrics: _Metrics) -> None:
        self._channels = channels
        self._courier = courier
        self._metrics = metrics
        self._deliveries = courier.watch_deliveries()
        self._deliveries.measure()
        # What the streams that have ended were sent.
        self._events = self._bytes = 0
        # What the counters were told.
        self._told = {"deliveries": 0, "bytes": 0, "dropped": 0, "reconnects": 0}

    def listen(self, app: Flask) -> None:
        """Connect the receivers. The application keeps them alive."""
        signals.connected.connect(self._connected, app)
        signals.disconnected.connect(self._disconnected, app)
        signals.published.connect(self._published, app)
        signals.gap.connect(self._gap, app)
        signals.refused.connect(self._refused, app)
        signals.run_started.connect(self._run_started, app)
        signals.run_ended.connect(self._run_ended, app)
        self._courier.looks.append(self._look)

    def _connected(
        self, app: Flask, path: str, path_reason: str | None, since: str, **facts: Any
    ) -> None:
        labels = (path, path_reason or "")
        self._metrics.open.labels(*labels).inc()
        self._metrics.opened.labels(*labels, "true" if since else "false").inc()

    def _disconnected(
        self,
        app: Flask,
        path: str,
        path_reason: str | None,
        reason: str,
        events: int,
        bytes: int,
        **facts: Any,
    ) -> None:
        self._metrics.open.labels(path, path_reason or "").dec()
        self._metrics.ended.labels(reason).inc()
        self._events += events
        self._bytes += bytes

    def _published(
        self, app: Flask, event: Event, seconds: float, **facts: Any
    ) -> None:
        self._metrics.published.inc()
        self._metrics.publish.observe(seconds)

    def _gap(self, app: Flask, streams: int, **facts: Any) -> None:
        self._metrics.gaps.inc(streams)

    def _refused(self, app: Flask, reason: str, **facts: Any) -> None:
        self._metrics.refused.labels(reason).inc()

    def _run_started(self, app: Flask, **facts: Any) -> None:
        self._metrics.runs.inc()
        self._metrics.runs_started.inc()

    def _run_ended(self, app: Flask, reason: str, **facts: Any) -> None:
        self._metrics.runs.dec()
        self._metrics.runs_ended.labels(reason).inc()

    def _look(self) -> None:
        """Take over what is counted elsewhere. The courier's thread calls this every
        few seconds while streams are open, and once behind the last."""
        open_streams = [
            story
            for story in self._courier.expected()
            # What a stream was sent that is over comes with the signal of its end.
            if isinstance(story, Story) and not story.is_over
        ]
        sent = [story.sent for story in open_streams]
        self._raise("deliveries", self._events + sum(events for events, _ in sent))
        self._raise("bytes", self._bytes + sum(size for _, size in sent))
        self._raise("dropped", self._courier.dropped)
        for seconds in self._deliveries.take():
            self._metrics.delivery.observe(seconds)
        self._look_at_broker(bool(open_streams))

    def _look_at_broker(self, has_streams: bool) -> None:
        broker = self._channels.broker
        self._raise("reconnects", broker.reconnects)
        lag = 0
        if has_streams:
            for events in current_hub().behind(broker.log, MOST_ASKED):
                self._metrics.behind.observe(events)
            if not broker.is_away:
                # Where it is away, nobody knows how far.
                with suppress(BrokerUnavailable):
                    lag = broker.lag()
        self._metrics.lag.set(lag)
        self._metrics.away.set(has_streams and broker.is_away)

    def _raise(self, name: str, number: int) -> None:
        """Raise a counter to a number. (A stream that has just ended can be missing in
        it until its end is told.)"""
        if number > self._told[name]:
            counter: Counter = getattr(self._metrics, name)
            counter.inc(number - self._told[name])
            self._told[name] = number


_metrics: weakref.WeakKeyDictionary[CollectorRegistry, _Metrics] = (
    weakref.WeakKeyDictionary()
)
