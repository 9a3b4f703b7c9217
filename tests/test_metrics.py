"""The metrics for Prometheus: each counts what it says, in one process and in
several."""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from flask_sse_lite import SSE, BrokerUnavailable, NoApplication, metrics, signals
from flask_sse_lite.brokers.store import News
from flask_sse_lite.signals import courier as module
from flask_sse_lite.testing import read_events

from .documentation import ROOT
from .patience import patient
from .servers import Server, serve, several, until

MEASURED = "tests.applications.measured"

PATIENCE = patient(10)

PAGE = (ROOT / "docs" / "metrics.rst").read_text("utf-8")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER", 0.02)
    monkeypatch.setattr(module, "LOOK_INTERVAL", 0.02)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def app(sse: SSE, registry: CollectorRegistry) -> Flask:
    app = Flask("application")
    app.config.update(SSE_HEARTBEAT=5, SSE_PUBLIC_CHANNELS=["a*"])
    sse.init_app(app)
    metrics.register(app, registry)
    return app


@pytest.fixture
def await_value(registry: CollectorRegistry) -> Callable[..., None]:
    """Wait until a metric has a value."""

    def await_value(value: float, name: str, **labels: str) -> None:
        until(lambda: registry.get_sample_value(name, labels) == value, PATIENCE)

    return await_value


ITERATED = {"path": "iterated", "reason": "unsupported-server"}


def test_a_stream_is_counted_while_it_is_open_and_as_it_ends(
    app: Flask, sse: SSE, await_value: Callable[..., None]
) -> None:
    stream = app.test_client().get("/stream?channel=a")
    pieces = stream.iter_encoded()
    size = len(next(pieces))
    await_value(1, "sse_streams_open", **ITERATED)
    await_value(1, "sse_streams_opened_total", resumed="false", **ITERATED)
    with app.app_context():
        sse.publish("hello", channel="a")
    size += len(next(pieces))
    # It is counted while the stream is open.
    await_value(1, "sse_deliveries_total")
    await_value(size, "sse_sent_bytes_total")
    await_value(1, "sse_events_published_total")
    await_value(1, "sse_publish_duration_seconds_count")
    await_value(1, "sse_delivery_duration_seconds_count")
    stream.close()
    await_value(0, "sse_streams_open", **ITERATED)
    await_value(1, "sse_streams_ended_total", reason="left")
    again = app.test_client().get("/stream?channel=a", headers={"Last-Event-ID": "x"})
    read_events(again, count=1)
    await_value(1, "sse_streams_opened_total", resumed="true", **ITERATED)
    await_value(1, "sse_gaps_total")
    await_value(2, "sse_streams_ended_total", reason="left")


def test_what_was_sent_is_counted_once_as_streams_come_and_go(
    app: Flask, sse: SSE, await_value: Callable[..., None]
) -> None:
    size = 0
    for number in range(1, 6):
        with app.test_client().get("/stream?channel=a") as stream:
            pieces = stream.iter_encoded()
            size += len(next(pieces))
            with app.app_context():
                sse.publish("hello", channel="a")
            size += len(next(pieces))
            await_value(number, "sse_deliveries_total")
    await_value(5, "sse_streams_ended_total", reason="left")
    await_value(5, "sse_deliveries_total")
    await_value(size, "sse_sent_bytes_total")


def test_refusals_are_counted_by_reason(
    app: Flask, await_value: Callable[..., None]
) -> None:
    for channel in ("other", "$run.x", "other"):
        app.test_client().get(f"/stream?channel={channel}")
    await_value(2, "sse_streams_refused_total", reason="not-public")
    await_value(1, "sse_streams_refused_total", reason="reserved")


def test_runs_are_counted(
    app: Flask, sse: SSE, await_value: Callable[..., None]
) -> None:
    @app.get("/run")
    def run() -> Response:
        return sse.run(iter("abc"))

    assert len(read_events(app.test_client().get("/run"))) == 4
    await_value(0, "sse_runs_open")
    await_value(1, "sse_runs_started_total")
    await_value(1, "sse_runs_ended_total", reason="completed")


@pytest.fixture
def filed(tmp_path: Path, registry: CollectorRegistry, sse: SSE) -> Iterator[Flask]:
    """An application that is measured, and keeps its events in a file."""
    app = Flask("application")
    app.config.update(SSE_URL=f"sqlite:///{tmp_path}/events.db")
    sse.init_app(app)
    metrics.register(app, registry)
    yield app
    app.extensions["sse"].broker.close()


def test_a_broker_that_is_away_is_shown_until_it_is_back(
    filed: Flask, await_value: Callable[..., None]
) -> None:
    broker = filed.extensions["sse"].broker
    news = broker.store.news

    def fail(sequence: int) -> None:
        raise BrokerUnavailable("It is away")

    with filed.test_client().get("/stream") as stream:
        next(stream.iter_encoded())
        await_value(0, "sse_broker_away")
        broker.store.news = fail
        await_value(1, "sse_broker_away")
        broker.store.news = news
        await_value(0, "sse_broker_away")
        await_value(1, "sse_broker_reconnects_total")


def test_streams_are_asked_how_far_they_are_behind(
    app: Flask, sse: SSE, registry: CollectorRegistry
) -> None:
    def asked(limit: str) -> float:
        name = "sse_stream_behind_events_bucket"
        return registry.get_sample_value(name, {"le": limit}) or 0

    with app.test_client().get("/stream?channel=a") as stream:
        pieces = stream.iter_encoded()
        next(pieces)
        until(lambda: asked("0.0"), PATIENCE)
        # One more can be asked meanwhile, so all is read at once.
        by_limit = {
            sample.labels["le"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "sse_stream_behind_events_bucket"
        }
        assert by_limit["0.0"] == by_limit["+Inf"]
        with app.app_context():
            for _ in range(5):
                sse.publish("hello", channel="a")
        until(lambda: asked("16.0") > asked("4.0"), PATIENCE)
        next(pieces)
        known = asked("0.0")
        until(lambda: asked("0.0") > known, PATIENCE)


def test_it_is_shown_how_far_a_process_is_behind_its_store(
    filed: Flask, sse: SSE, await_value: Callable[..., None]
) -> None:
    broker = filed.extensions["sse"].broker
    news = broker.store.news

    is_cut_off = threading.Event()

    def no_news(sequence: int) -> News:
        is_cut_off.set()
        return News(broker.log.epoch, sequence, [], {}, False)

    with filed.test_client().get("/stream") as stream:
        next(stream.iter_encoded())
        await_value(0, "sse_follower_lag_events")
        broker.store.news = no_news
        assert is_cut_off.wait(PATIENCE)  # The look that had begun before is over.
        with filed.app_context():
            for _ in range(3):
                sse.publish("hello")
        await_value(3, "sse_follower_lag_events")
        broker.store.news = news
        await_value(0, "sse_follower_lag_events")


def test_signals_that_were_dropped_are_counted(
    app: Flask,
    sse: SSE,
    await_value: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 0)
    with app.app_context():
        sse.publish("hello", channel="a")
    monkeypatch.undo()
    with app.app_context():
        sse.publish("hello", channel="a")
    await_value(1, "sse_signals_dropped_total")
    await_value(1, "sse_events_published_total")


def test_applications_can_share_a_registry(
    app: Flask,
    sse: SSE,
    registry: CollectorRegistry,
    await_value: Callable[..., None],
) -> None:
    other = Flask("other")
    sse.init_app(other)
    for _ in range(2):  # The second call does nothing.
        metrics.register(other, registry)
    for each in (app, other):
        with each.app_context():
            sse.publish("hello")
    await_value(2, "sse_events_published_total")


def test_an_application_without_channels_is_refused() -> None:
    with pytest.raises(NoApplication, match=r"before metrics\.register"):
        metrics.register(Flask("application"))


def test_a_measured_application_is_collected_when_it_is_gone(
    registry: CollectorRegistry,
) -> None:
    gc.collect()
    before = len(signals.connected.receivers)
    for _ in range(3):
        app, sse = Flask("application"), SSE()
        sse.init_app(app)
        metrics.register(app, registry)
        assert len(signals.connected.receivers) > before
        del app, sse
        gc.collect()
    assert len(signals.connected.receivers) == before


# The page


def test_the_page_explains_each_metric(registry: CollectorRegistry, app: Flask) -> None:
    names = [family.name for family in registry.collect()]
    shown = [f"{name}_total" if _is_counter(registry, name) else name for name in names]
    explained = re.findall(r"^   \* - ``(sse_\w+)``$", PAGE, re.MULTILINE)
    assert explained == shown


def _is_counter(registry: CollectorRegistry, name: str) -> bool:
    return any(f.name == name and f.type == "counter" for f in registry.collect())


def test_the_alerts_ask_for_metrics_that_there_are() -> None:
    explained = re.findall(r"^   \* - ``(sse_\w+)``$", PAGE, re.MULTILINE)
    alerts = re.findall(r"- alert: (\w+)\n +expr: (.*)\n", PAGE)
    assert len(alerts) == 5
    for _, expression in alerts:
        named = re.findall(r"sse_\w+", expression)
        assert named
        for name in named:
            assert name.removesuffix("_bucket") in explained


# Several processes


def values(server: Server, name: str, **labels: str) -> list[float]:
    """The values of a metric, as the answering process shows them for all."""

    def shown() -> str:
        # prometheus_client fails where another process is just making its file.
        answer = server.request("GET", "/metrics")
        return answer.body.decode() if answer.status == 200 else ""

    text = until(shown, PATIENCE)
    return [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


@pytest.mark.parametrize("kind", ["gunicorn gthread", "gunicorn gevent"])
def test_every_worker_shows_the_numbers_of_all(kind: str, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    config: dict[str, Any] = {
        "SSE_URL": f"sqlite:///{tmp_path}/events.db",
        "FOLDER": str(numbers),
    }
    # Preloaded code runs in the master, whose environment the hook needs.
    options = f"{several(kind, 2)} --config python:{MEASURED}"
    with ExitStack() as stack:
        server = stack.enter_context(
            serve(kind, app=f"{MEASURED}:app", options=options, **config)
        )
        clients = [stack.enter_context(server.stream("room")) for _ in range(12)]
        until(lambda: sum(values(server, "sse_streams_open")) == 12)
        server.publish(*({"data": f"{n}", "channel": "room"} for n in range(3)))
        for client in clients:
            assert [event.data for event in client.take(3)] == ["0", "1", "2"]
        until(lambda: values(server, "sse_deliveries_total") == [36])
        until(lambda: values(server, "sse_events_published_total") == [3])
        assert values(server, "sse_broker_away") == [0]
        assert values(server, "sse_follower_lag_events") == [0]
        # A worker with streams had a round, or some.
        until(lambda: values(server, "sse_delivery_duration_seconds_count") >= [1])
        until(lambda: values(server, "sse_stream_behind_events_count") >= [12])
        for client in clients[:5]:
            client.leave()
        until(lambda: sum(values(server, "sse_streams_open")) == 7)
        until(lambda: values(server, "sse_streams_ended_total", reason="left") == [5])
        assert sum(values(server, "sse_streams_opened_total")) == 12
        # A worker is killed: its streams are open no more, and what it counted stays.
        os.kill(server.workers()[0], signal.SIGKILL)
        until(lambda: sum(values(server, "sse_streams_open")) <= 7)
        assert values(server, "sse_deliveries_total") == [36]
        for client in clients[5:]:
            client.leave()
        until(lambda: sum(values(server, "sse_streams_open")) == 0)
