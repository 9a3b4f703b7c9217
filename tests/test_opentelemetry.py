"""Traces for OpenTelemetry: a publish is a span, a delivery links to it in whatever
process it happens, and a run is a span. The SDK's own exporter says what was made."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from flask_sse_lite import (
    SSE,
    BrokerUnavailable,
    Event,
    InvalidValue,
    NoApplication,
    Publisher,
)
from flask_sse_lite.opentelemetry import instrument
from flask_sse_lite.signals import courier as module
from flask_sse_lite.signals.deliveries import traced_delivery
from flask_sse_lite.testing import await_signals, read_events
from flask_sse_lite.traced import trace_of

from .documentation import ROOT
from .patience import patient
from .redis_servers import redis_server
from .servers import Client, Server, process_of, serve, several, stopped, until

PATIENCE = patient(10)

TRACED = "tests.applications.traced"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.02)


class Spans:
    """The spans that were made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        return [s for s in self._exporter.get_finished_spans() if s.name == name]

    def wait(self, name: str, count: int = 1) -> list[ReadableSpan]:
        until(lambda: len(self.named(name)) >= count, PATIENCE)
        assert len(self.named(name)) == count
        return self.named(name)


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


@pytest.fixture
def app(sse: SSE, spans: Spans) -> Flask:
    app = Flask("application")
    app.config.update(SSE_HEARTBEAT=5)
    sse.init_app(app)
    sse.authorizer(lambda channel: True)
    instrument(app, spans.provider)
    return app


@pytest.fixture
def publish(app: Flask, sse: SSE) -> Callable[..., Event]:
    def publish(*args: Any, **words: Any) -> Event:
        with app.app_context():
            return sse.publish(*args, **words)

    return publish


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# Publishes


def test_a_publish_is_a_span_of_a_producer(
    publish: Callable[..., Event], spans: Spans
) -> None:
    tracer = trace.get_tracer("application", tracer_provider=spans.provider)
    with tracer.start_as_current_span("request") as request:
        event = publish("hello", channel="a")
    (span,) = spans.named("publish")
    assert span.kind is SpanKind.PRODUCER
    assert span.parent == request.get_span_context()
    assert attributes(span) == {
        "messaging.system": "flask_sse_lite",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "a",
        "messaging.message.id": event.id,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_publish_to_several_channels_is_one_span(
    publish: Callable[..., Event], spans: Spans
) -> None:
    event = publish("hello", channel=["a", "b"])
    (span,) = spans.named("publish")
    found = attributes(span)
    assert found["sse.channels"] == ("a", "b")
    assert found["messaging.batch.message_count"] == 2
    assert found["messaging.message.id"] == event.id
    assert "messaging.destination.name" not in found


def test_a_publish_that_fails_says_so(
    app: Flask, publish: Callable[..., Event], spans: Spans
) -> None:
    with pytest.raises(InvalidValue):
        publish("hello", channel="$own")
    assert spans.named("publish") == []  # Nothing was tried.
    broker = app.extensions["sse"].broker

    def fail(*args: object) -> None:
        raise BrokerUnavailable("It is away")

    broker.publish = fail
    with pytest.raises(BrokerUnavailable):
        publish("hello", channel="a")
    (span,) = spans.named("publish")
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


def test_a_publish_that_nobody_keeps_the_span_of_leaves_its_event_alone(
    sse: SSE,
) -> None:
    app = Flask("application")
    sse.init_app(app)
    instrument(app, TracerProvider(sampler=ALWAYS_OFF))
    with app.app_context():
        assert trace_of(sse.publish("hello")) is None


def test_without_an_sdk_nothing_is_traced(sse: SSE) -> None:
    app = Flask("application")
    sse.init_app(app)
    instrument(app, trace.NoOpTracerProvider())
    with app.app_context():
        assert trace_of(sse.publish("hello")) is None


# Deliveries


def test_a_delivery_belongs_to_its_publish(
    app: Flask, publish: Callable[..., Event], spans: Spans
) -> None:
    with app.test_client().get("/stream?channel=a") as stream:
        pieces = stream.iter_encoded()
        opening = next(pieces)
        publish("hello", channel="a")
        data = next(pieces)
        (delivery,) = spans.wait("deliver")
    (publishing,) = spans.named("publish")
    assert publishing.context
    assert delivery.kind is SpanKind.CONSUMER
    assert delivery.parent
    assert delivery.parent.span_id == publishing.context.span_id
    assert [link.context.span_id for link in delivery.links] == [
        publishing.context.span_id
    ]
    assert attributes(delivery) == {
        "messaging.system": "flask_sse_lite",
        "messaging.operation.name": "deliver",
        "messaging.operation.type": "process",
        "messaging.destination.name": "a",
        "sse.streams": 1,
    }
    # The client is told nothing of it.
    sent = (opening + data).decode()
    assert f"{publishing.context.trace_id:032x}" not in sent
    assert f"{publishing.context.span_id:016x}" not in sent


def test_events_that_are_sent_together_are_one_delivery(
    app: Flask, publish: Callable[..., Event], spans: Spans
) -> None:
    with app.test_client().get("/stream?channel=a&channel=b") as stream:
        pieces = stream.iter_encoded()
        next(pieces)
        for channel in "abb":
            publish("hello", channel=channel)
        next(pieces)
        (delivery,) = spans.wait("deliver")
    published = [s.context.span_id for s in spans.named("publish") if s.context]
    assert [link.context.span_id for link in delivery.links] == published
    assert delivery.parent is None
    assert attributes(delivery)["messaging.batch.message_count"] == 3
    assert attributes(delivery)["sse.channels"] == ("a", "b")


def test_a_delivery_is_one_span_for_all_clients_of_a_process(
    app: Flask, publish: Callable[..., Event], spans: Spans
) -> None:
    with ExitStack() as stack:
        streams = []
        for channels in ("a", "a", "a&channel=b"):
            url = f"/stream?channel={channels}"
            stream = stack.enter_context(app.test_client().get(url))
            streams.append(stream.iter_encoded())
            next(streams[-1])
        publish("1", channel="a")
        for pieces in streams:
            next(pieces)
        publish("2", channel="a")
        for pieces in streams:
            next(pieces)
        await_signals(app, PATIENCE)
    spans.wait("deliver", 2)


def test_what_a_client_had_missed_is_no_delivery(
    app: Flask, publish: Callable[..., Event], spans: Spans
) -> None:
    since = publish("1", channel="a").id
    publish("2", channel="a")
    stream = app.test_client().get(
        "/stream?channel=a", headers={"Last-Event-ID": str(since)}
    )
    assert [event.data for event in read_events(stream, count=1)] == ["2"]
    await_signals(app, PATIENCE)
    assert spans.named("deliver") == []


# Runs


def test_a_run_is_a_span_in_which_its_iterable_runs(
    app: Flask, sse: SSE, spans: Spans
) -> None:
    tracer = trace.get_tracer("application", tracer_provider=spans.provider)

    def answer() -> Iterator[str]:
        with tracer.start_as_current_span("model"):
            yield "a"

    @app.get("/run")
    def run() -> Response:
        with tracer.start_as_current_span("request"):
            return sse.run(answer())

    read_events(app.test_client().get("/run"))
    (span,) = spans.wait("run")
    (request,), (model,) = spans.named("request"), spans.named("model")
    assert span.parent == request.context
    assert model.parent == span.context
    assert span.status.status_code is StatusCode.UNSET
    # The name of a run's own channel is a secret.
    assert attributes(span) == {}


def test_a_run_that_fails_says_so(app: Flask, sse: SSE, spans: Spans) -> None:
    def answer() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    @app.get("/run")
    def run() -> Response:
        return sse.run(answer(), channel="jobs")

    read_events(app.test_client().get("/run"))
    (span,) = spans.wait("run")
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span) == {"sse.channels": ("jobs",)}


# Setting up


def test_a_second_call_does_nothing(
    app: Flask, publish: Callable[..., Event], spans: Spans
) -> None:
    instrument(app, spans.provider)
    publish("hello")
    assert len(spans.named("publish")) == 1


def test_an_application_without_channels_is_refused() -> None:
    with pytest.raises(NoApplication, match=r"before opentelemetry\.instrument"):
        instrument(Flask("application"))


def test_a_publisher_is_traced(tmp_path: Path, spans: Spans) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with Publisher.from_url(url) as publisher:
        instrument(publisher, spans.provider)
        publisher.publish("hello", channel="a")
    (span,) = spans.named("publish")
    assert attributes(span)["messaging.destination.name"] == "a"


def test_a_traced_application_is_collected_when_it_is_gone(spans: Spans) -> None:
    gc.collect()
    before = len(traced_delivery.receivers)
    for _ in range(3):
        app, sse = Flask("application"), SSE()
        sse.init_app(app)
        instrument(app, spans.provider)
        assert len(traced_delivery.receivers) > before
        del app, sse
        gc.collect()
    assert len(traced_delivery.receivers) == before


def test_nothing_of_opentelemetry_is_imported_where_it_is_off() -> None:
    script = """
import sys
from flask import Flask
from flask_sse_lite import sse
app = Flask("application")
sse.init_app(app)
with app.app_context():
    event = sse.publish("hello")
assert type(event).__name__ == "Event"
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert found.stdout == b"[]\n"


# Several processes


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "redis":
        with redis_server() as server:
            yield server.url
    else:
        yield f"sqlite:///{tmp_path}/events.db"


@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn gevent"])
def test_the_deliveries_of_all_processes_belong_to_one_publish(
    kind: str, url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "spans"
    folder.mkdir()
    config: dict[str, Any] = {"SSE_URL": url, "FOLDER": str(folder)}
    with ExitStack() as stack:
        server = stack.enter_context(
            serve(kind, app=f"{TRACED}:app", options=several(kind, 2), **config)
        )
        clients: list[Client] = []
        while len(processes := {*map(process_of, clients)}) < 2:
            with stopped(processes):
                clients.append(stack.enter_context(server.stream("room")))
        server.publish({"data": "hello", "channel": "room"})
        for client in clients:
            assert [event.data for event in client.take(1)] == ["hello"]
        until(lambda: len(written(folder, "deliver")) == 2)
    (publishing,) = written(folder, "publish").values()
    deliveries = written(folder, "deliver")
    assert set(deliveries) == processes
    own = publishing["context"]
    for delivery in deliveries.values():
        assert delivery["context"]["trace_id"] == own["trace_id"]
        assert delivery["parent_id"] == own["span_id"]
        assert [link["context"]["span_id"] for link in delivery["links"]] == [
            own["span_id"]
        ]


def written(folder: Path, name: str) -> dict[int, dict[str, Any]]:
    """The spans of this name, by the process that has made it: each has one."""
    found: dict[int, dict[str, Any]] = {}
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            if (span := json.loads(line))["name"] == name:
                assert int(file.name) not in found
                found[int(file.name)] = span
    return found


def run_of(server: Server) -> str:
    return server.request("GET", "/run").body.decode()


def test_a_run_is_traced_in_its_process(tmp_path: Path) -> None:
    folder = str(tmp_path)
    with serve("gunicorn gthread", app=f"{TRACED}:app", FOLDER=folder) as server:
        body = run_of(server)
        until(lambda: len(written(tmp_path, "run")) == 1)
    ((_, span),) = written(tmp_path, "run").items()
    assert span["context"]["trace_id"][2:] not in body
