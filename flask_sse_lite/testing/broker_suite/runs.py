"""Runs: a channel that one process feeds, until it ends or its process is gone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ...brokers.store import Store
from ...own_events import FAILED, LOST
from ...position import RUN_PREFIX, run_channel
from .harness import (
    PATIENCE,
    Reader,
    StoreUnderTest,
    begins_nowhere,
    begun,
    publish,
    reader_of_run,
    said,
    say,
    until,
)


def test_a_channel_has_one_run_at_a_time(store: StoreUnderTest) -> None:
    one, other = store.open(), store.open()
    claim = begun(one, "a")
    for broker in (one, other, store.open()):
        assert broker.begin_run("a", 1000) is None
        assert broker.log.is_running("a")
    one.end_run(claim)
    begun(other, "a")
    assert one.begin_run("a", 1000) is None


def test_of_many_runs_begun_at_once_only_one_begins(store: StoreUnderTest) -> None:
    brokers = [store.open() for _ in range(4)]
    with ThreadPoolExecutor(len(brokers)) as threads:
        for number in range(20):
            begin = [
                threads.submit(broker.begin_run, f"run {number}", 1000)
                for broker in brokers
            ]
            claims = [begun.result(PATIENCE) for begun in begin]
            assert sum(claim is not None for claim in claims) == 1


def test_a_run_is_read_anywhere_from_its_first_event(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    publish(broker, "a", "before")
    Reader(other, "a")
    claim = begun(broker, "a")
    for there in (broker, other, store.open()):
        assert reader_of_run(there, "a").data == []
    say(broker, claim, "1", "2")
    for there in (broker, other, store.open()):
        assert reader_of_run(there, "a").take(2) == ["1", "2"]
    broker.end_run(claim)
    for there in (broker, other, store.open()):
        reader = reader_of_run(there, "a")
        assert reader.take(2) == ["1", "2"]
        assert reader.has_ended


def test_the_ids_of_a_run_name_it_wherever_they_are_read(store: StoreUnderTest) -> None:
    broker = store.open()
    channel = f"{RUN_PREFIX}{'r' * 22}"
    claim = begun(broker, channel)
    ids = say(broker, claim, "1", "2")
    for there in (broker, store.open()):
        reader = reader_of_run(there, channel)
        reader.until(lambda reader=reader: len(reader.events) == 2)  # type: ignore[misc]
        assert [event.id for event in reader.events] == ids
        assert run_channel(ids[0]) == channel


def test_events_of_our_own_arrive_as_they_are(store: StoreUnderTest) -> None:
    broker = store.open()
    reader = Reader(store.open(), "a")
    event = broker.say(begun(broker, "a"), FAILED)
    late = reader_of_run(store.open(), "a")
    for there in (reader, late):
        there.until(lambda there=there: there.events)  # type: ignore[misc]
        assert there.events == [event]
        assert there.events[0].type == LOST.type


def test_a_run_that_is_over_says_nothing_more(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    for is_ended_elsewhere in (False, True):
        claim = begun(broker, "a")
        if is_ended_elsewhere:
            other.end("a")
        else:
            broker.end_run(claim)
        since = broker.position()
        assert say(broker, claim, "late") == []
        broker.end_run(claim)
        assert broker.position() == other.position() == since
        next_one = begun(other, "a")
        assert say(broker, claim, "later still") == []
        broker.end_run(claim)
        assert say(other, next_one, "next")
        other.end_run(next_one)


def test_an_end_anywhere_is_seen_by_the_run(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    claim = begun(broker, "a")
    news = threading.Event()
    broker.log.watch(("a",), news.set)
    assert not broker.log.was_ended("a", claim.began[1])
    other.end("a")
    until(lambda: broker.log.was_ended("a", claim.began[1]))
    assert news.wait(PATIENCE)


def test_a_run_is_kept_by_its_bytes_whatever_its_number_and_age(
    store: StoreUnderTest,
) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.3)
    other = store.open(SSE_HISTORY_AGE=0.3)
    claim = begun(broker, "a")
    Reader(other, "a")
    everything = [str(n) for n in range(100)]
    say(broker, claim, *everything[:50])
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 1)
    for _ in range(200):  # A store drops something only once in so many publishes.
        publish(broker, "b", "x")
    say(broker, claim, *everything[50:])
    for there in (broker, other, store.open(SSE_HISTORY_AGE=0.3)):
        assert reader_of_run(there, "a").take(100) == everything
    broker.end_run(claim)
    for there in (broker, other, store.open(SSE_HISTORY_AGE=0.3)):
        until(lambda there=there: not there.log.remembers("a"))  # type: ignore[misc]


def test_no_more_of_a_run_is_kept_than_its_budget(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    Reader(other, "a")
    claim = begun(broker, "a", 10_000)
    ids = say(broker, claim, *(f"{n} {'x' * 1000}" for n in range(300)))
    for there in (broker, other, store.open()):
        there.want(("a",), ids[-1])
        reader = reader_of_run(there, "a")
        reader.until(lambda reader=reader: reader.gaps)  # type: ignore[misc]
        assert 5 < len(reader.events) < 11
        assert reader.events[-1].id == ids[-1]
        first = reader.events[0].id or ""
        assert reader.gaps[0].id == ids[ids.index(first) - 1]


@pytest.mark.usefixtures("hasty")
def test_a_run_whose_process_is_gone_ends_with_an_error(
    shared: StoreUnderTest,
) -> None:
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a", "b")
    say(broker, begun(broker, "a"), "1")
    begun(broker, "b")
    broker.close()
    reader.until(lambda: reader.has_ended)
    lost = [event for event in reader.events if event.type == LOST.type]
    assert [event.json for event in lost] == [LOST.json] * 2
    assert {event.channel for event in lost} == {"a", "b"}
    begun(other, "a")


@pytest.mark.usefixtures("hasty")
def test_a_run_begins_where_another_lost_its_process(shared: StoreUnderTest) -> None:
    broker = shared.open()
    begun(broker, "a")
    broker.close()
    # No process follows the store now, so none has ended the run.
    gone = time.monotonic()
    until(lambda: time.monotonic() > gone + Store.lease)
    other = shared.open()
    claim = begun(other, "a")
    assert say(other, claim, "1")
    assert reader_of_run(shared.open(), "a").take(1) == ["1"]


@pytest.mark.usefixtures("hasty")
def test_a_run_that_says_nothing_goes_on_while_its_process_lives(
    shared: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that gets no turn on a busy machine must not seem to be dead.
    monkeypatch.setattr(Store, "lease", PATIENCE / 7)
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a")
    claim = begun(broker, "a")
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 2 * Store.lease)
    assert say(broker, claim, "1")
    assert reader.take(1) == ["1"]


@pytest.mark.usefixtures("hasty")
def test_a_run_goes_on_where_its_store_lost_everything(
    shared: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that gets no turn on a busy machine must not seem to be dead.
    monkeypatch.setattr(Store, "lease", PATIENCE)
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a")
    Reader(broker, "a")
    claim = begun(broker, "a")
    say(broker, claim, "1")
    reader.until(lambda: reader.data == ["1"])
    for text in ("it speaks", "it was silent"):
        lost = claim.began
        shared.lose_everything()
        if text == "it was silent":
            until(lambda lost=lost: claim.began[0] != lost[0])  # type: ignore[misc]
            assert begins_nowhere(other, "a")
        until(lambda text=text: said(broker, claim, text))  # type: ignore[misc]
        reader.until(lambda text=text: reader.data[-1:] == [text])  # type: ignore[misc]
        assert reader.gaps
        assert claim.began[0] != lost[0]
        assert not broker.log.was_ended("a", claim.began[1])
    broker.end_run(claim)
    until(lambda: broker.log.was_ended("a", claim.began[1]))
