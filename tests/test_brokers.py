"""What every broker promises, tested for those of the package: on memory, on a file and
on Redis. The promises stand in ``flask_sse_lite.testing.broker_suite``."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_sse_lite.brokers import Claim
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.testing.broker_suite import *  # noqa: F403
from flask_sse_lite.testing.broker_suite import (
    ALL,
    HISTORY,
    PATIENCE,
    Reader,
    StoreUnderTest,
    begun,
    publish,
    said,
    sequences,
    until,
)

from .stores import shared, store

__all__ = ["shared", "store"]

# Where the log forgets


def test_a_channel_that_was_forgotten_before_it_is_listened_to_loses_nothing(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = store.open()
    since = broker.position()
    with monkeypatch.context() as patch:
        broker.want(["a"], since)
        cursor = broker.log.cursor(["a"], since)
        patch.setattr("flask_sse_lite.history.retention.MAX_QUIET_CHANNELS", 0)
        broker.log.unwatch([], print)
    news = threading.Event()
    broker.log.watch(["a"], news.set)
    publish(store.open(), "a", "1")
    found: list[str] = []
    while not found:
        assert news.wait(PATIENCE)
        news.clear()
        batch = broker.log.read(cursor, ALL)
        assert batch.gap is None
        found = [entry.event.data for entry in batch.entries if entry.event]
    assert found == ["1"]


def test_names_that_nobody_published_to_cost_nobody_what_was_retained(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_IDLE_CHANNELS", 20)
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_QUIET_CHANNELS", 10)
    broker = store.open()
    ids = {name: publish(broker, name, *"123") for name in ("a", "b", "c")}
    before = broker.position()
    for start in range(0, 200, 5):
        names = [f"nobody {n}" for n in range(start, start + 5)]
        broker.want(names)
        cursor = broker.log.cursor(names)
        broker.log.watch(names, print)
        assert broker.log.read(cursor, ALL).gap is None
        broker.log.unwatch(names, print)
    publish(store.open(), "d", "4")
    for name, known in ids.items():
        assert Reader(broker, name, since=known[0]).take(2) == ["2", "3"]
    # None of these names is told of a loss.
    reader = Reader(broker, "nobody 0", "nobody 199", "d", since=before)
    assert reader.take(1) == ["4"]
    assert reader.gaps == []


# Runs that the store gets anew


def test_a_run_is_not_over_where_the_store_got_it_anew_as_it_spoke(
    shared: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = shared.open()
    assert isinstance(broker, SharedBroker)
    claim = begun(broker, "a")
    say_there = broker.store.say

    def speak_too_early(*words: Any) -> Any:
        answer = say_there(*words)
        broker._duties.keep_claims()  # As the follower can do at any moment.
        return answer

    monkeypatch.setattr(broker.store, "say", speak_too_early)
    shared.lose_everything()
    until(lambda: said(broker, claim, "1"))
    assert claim in broker._duties.claims


def test_a_run_that_ends_as_the_store_gets_it_is_not_kept(
    shared: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = shared.open()
    assert isinstance(broker, SharedBroker)
    begin_there = broker.store.begin

    def end_meanwhile(claim: Claim) -> Any:
        began = begin_there(claim)
        broker.end_run(claim)
        return began

    monkeypatch.setattr(broker.store, "begin", end_meanwhile)
    claim = Claim("a", 1000)
    assert broker._duties.have_begun(claim)
    assert claim not in broker._duties.claims


# By property

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("publish"), st.sampled_from("abc"), st.sampled_from([1, 2, 9])
        ),
        st.tuples(st.just("end"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("resume"), st.just(""), st.integers(0, 2)),
        st.tuples(st.just("replace"), st.just(""), st.integers(0, 2)),
    ),
    max_size=20,
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS, channels=st.sampled_from([("a",), ("a", "b"), ("b", "c", "a")]))
def test_who_goes_from_process_to_process_sees_everything_once_and_in_order(
    store: StoreUnderTest, steps: list[tuple[str, str, int]], channels: tuple[str, ...]
) -> None:
    brokers = [store.open() for _ in range(3)]
    everything: list[tuple[str, str]] = []
    since = brokers[0].position()
    seen: list[str] = []
    told = 0
    for step, channel, number in [*steps, ("resume", "", 0)]:
        broker = brokers[number % 3]
        if step == "publish":
            for _ in range(number):
                text = str(len(everything))
                everything.append((channel, text))
                publish(broker, channel, text)
        elif step == "end":
            broker.end(channel)
        elif step == "replace" and store.is_shared:
            broker.close()
            brokers[number % 3] = store.open()
        elif step == "resume":
            # The reader must get to all that was published before, over each end.
            newest = brokers[0].position()
            while sequences([since]) < sequences([newest]):
                reader = Reader(broker, *channels, since=since)
                until(lambda reader=reader, newest=newest: reader.has_come_to(newest))  # type: ignore[misc]
                seen += reader.data
                told += len(reader.gaps)
                since = reader.position
    wanted = [text for channel, text in everything if channel in channels]
    if told:
        counts = [sum(name == channel for name, _ in everything) for channel in "abc"]
        assert max(counts) + len(steps) > HISTORY
        assert seen == [text for text in wanted if text in set(seen)]
    else:
        assert seen == wanted
    store.close()
