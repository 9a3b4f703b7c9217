"""What is noted of deliveries: how long they take, and the traces of their events."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.cursor import Batch, Entry
from flask_sse_lite.signals import deliveries as module
from flask_sse_lite.signals.deliveries import Deliveries, traced_delivery
from flask_sse_lite.traced import traced

TRACES = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 4)]


class Told(list[dict[str, Any]]):
    """What was told of traced deliveries."""

    def __call__(self, signal: object, weight: int = 0, **facts: Any) -> None:
        assert signal is traced_delivery
        assert weight == sum(map(len, facts["traces"]))
        self.append(facts)


def batch(*ages: float, events: list[Event | None] | None = None) -> Batch:
    """Events that were published so many seconds ago."""
    now = time.monotonic()
    found = events or [Event("x")] * len(ages)
    entries = [
        Entry(number, now - age, "a", event)
        for number, (age, event) in enumerate(zip(ages, found, strict=True))
    ]
    return Batch(None, entries, ended=False, more=False)


def measured() -> Deliveries:
    deliveries = Deliveries(Told())
    deliveries.measure()
    return deliveries


def test_the_oldest_event_of_a_round_counts() -> None:
    deliveries = measured()
    deliveries.note(batch(30, 20, 10), 0.0)
    (seconds,) = deliveries.take()
    assert seconds >= 30
    assert deliveries.take() == []


def test_what_a_client_had_missed_is_not_late() -> None:
    deliveries = measured()
    came = time.monotonic() - 15
    deliveries.note(batch(30, 10), came)
    deliveries.note(batch(), came)
    assert deliveries.take() == []
    deliveries.note(batch(10), came)
    assert len(deliveries.take()) == 1


def test_no_more_is_kept_than_the_metrics_can_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_SAMPLES", 2)
    deliveries = measured()
    for _ in range(2):
        for age in (100, 200, 300):
            deliveries.note(batch(age), 0.0)
        assert not deliveries.wants
        assert [round(seconds, -2) for seconds in deliveries.take()] == [100, 200]
        assert deliveries.wants


def test_nothing_is_kept_that_nobody_takes() -> None:
    deliveries = Deliveries(Told())
    assert not deliveries.wants
    deliveries.note(batch(1), 0.0)
    assert deliveries.take() == []
    assert not deliveries.wants


def test_a_child_does_not_count_what_its_parent_has_measured() -> None:
    deliveries = measured()
    deliveries.note(batch(1), 0.0)
    child = os.fork()
    if not child:
        counts = [len(deliveries.take())]
        deliveries.note(batch(1), 0.0)
        counts.append(len(deliveries.take()))
        os._exit(0 if counts == [0, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(deliveries.take()) == 1


def test_each_traced_event_is_told_once() -> None:
    told = Told()
    deliveries = Deliveries(told)
    events = [traced(Event("x"), trace) for trace in TRACES]
    deliveries.measure()
    deliveries.note(batch(1, events=[events[0]]), 0.0)
    assert told == []  # Nobody traces.
    deliveries.trace()
    began = time.monotonic() - 2
    first = batch(3, 3, 3, 3, events=[Event("x"), *events[:2], None])
    deliveries.note(first, 0.0, 7, began)
    deliveries.note(first, 0.0, 8, began)
    deliveries.note(batch(3, events=[events[2]]), 0.0)
    assert [facts["traces"] for facts in told] == [(*TRACES[:2],), (TRACES[2],)]
    assert told[0]["channels"] == ("a",)
    assert [facts["streams"] for facts in told] == [7, 1]
    assert told[0]["ended"] - told[0]["began"] >= 2 * 10**9
    assert told[1]["ended"] >= told[1]["began"]


def test_what_comes_together_with_what_was_missed_is_told() -> None:
    told = Told()
    deliveries = Deliveries(told)
    deliveries.trace()
    events: list[Event | None] = [traced(Event("x"), trace) for trace in TRACES]
    came = time.monotonic() - 15
    deliveries.note(batch(30, 10, 5, events=events), came)
    assert [facts["traces"] for facts in told] == [(*TRACES[1:],)]


def test_traced_events_are_told_however_much_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_SAMPLES", 1)
    told = Told()
    deliveries = Deliveries(told)
    deliveries.measure()
    deliveries.trace()
    for trace in TRACES:
        deliveries.note(batch(1, events=[traced(Event("x"), trace)]), 0.0)
        assert deliveries.wants
    assert len(told) == 3
    assert len(deliveries.take()) == 1
