"""Counts: how many streams of a channel all processes serve together."""

from __future__ import annotations

import pytest

from .harness import Reader, StoreUnderTest, until

# Counts


@pytest.mark.usefixtures("hasty")
def test_streams_are_counted_over_all_processes(store: StoreUnderTest) -> None:
    counts = [{"a": 2, "é☃😀": 5}, {"a": 3, 'it\'s "b"': 1}]
    brokers = [store.open() for _ in counts]
    if not store.is_shared:
        brokers, counts = brokers[:1], counts[:1]
    for broker, count in zip(brokers, counts, strict=True):
        broker.listeners = lambda count=count: count  # type: ignore[misc]
        Reader(broker, "a")  # A broker without readers does not tell its counts.
    for channel in {*counts[0], *counts[-1], "nobody's"}:
        wanted = sum(count.get(channel, 0) for count in counts)
        for broker in brokers:
            until(lambda b=broker, c=channel, w=wanted: b.subscribers(c) == w)  # type: ignore[misc]
    counts[0].clear()
    wanted = sum(count.get("a", 0) for count in counts)
    for broker in brokers:
        until(lambda broker=broker: broker.subscribers("a") == wanted)  # type: ignore[misc]


@pytest.mark.usefixtures("hasty")
def test_the_streams_of_a_closed_broker_are_not_counted(shared: StoreUnderTest) -> None:
    broker, other, third = shared.open(), shared.open(), shared.open()
    broker.listeners = lambda: {"a": 7}
    Reader(broker, "a")
    for there in (other, third):
        until(lambda there=there: there.subscribers("a") == 7)  # type: ignore[misc]
    broker.close()
    for there in (other, third):
        until(lambda there=there: there.subscribers("a") == 0)  # type: ignore[misc]
