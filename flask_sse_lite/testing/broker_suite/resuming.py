"""Resuming: a reader that comes back gets what it missed, or a gap."""

from __future__ import annotations

import pytest

from ...event import Event
from .harness import HISTORY, Reader, StoreUnderTest, publish, until

# Resuming


def test_a_reader_resumes_after_any_event_at_any_broker(store: StoreUnderTest) -> None:
    publisher, other = store.open(), store.open()
    Reader(other, "a")
    ids = publish(publisher, "a", *"01234")
    for number, id in enumerate(ids):
        rest = [str(n) for n in range(number + 1, 5)]
        for broker in (publisher, other, store.open()):
            assert Reader(broker, "a", since=id).take(len(rest)) == rest


def test_an_id_is_known_everywhere_as_soon_as_it_is_given(
    store: StoreUnderTest,
) -> None:
    publisher, other = store.open(), store.open()
    Reader(other, "a")
    for number in range(50):
        (id,) = publish(publisher, "a", str(number))
        publish(publisher, "a", "next")
        reader = Reader(other, "a", since=id)
        assert reader.take(1) == ["next"]


def test_an_id_of_the_applications_is_known_everywhere(store: StoreUnderTest) -> None:
    publisher, other = store.open(), store.open()
    Reader(other, "a")
    for number in range(20):
        publisher.publish("a", Event("x", id=f"order {number}"))
        publish(publisher, "a", "next")
        assert Reader(other, "a", since=f"order {number}").take(1) == ["next"]


def test_a_position_is_that_of_the_newest_event_of_any_broker(
    store: StoreUnderTest,
) -> None:
    publisher, other = store.open(), store.open()
    for _ in range(20):
        (id,) = publish(publisher, "a", "x")
        assert other.position() == publisher.position() == id


def test_a_position_is_resumed_from(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    since = broker.position()
    publish(broker, "a", "1", "2")
    assert Reader(other, "a", since=since).take(2) == ["1", "2"]


@pytest.mark.parametrize("since", ["0123456789abcdef-1", "never heard of", "☃"])
def test_an_unknown_id_gets_a_gap_and_then_what_is_kept(
    store: StoreUnderTest, since: str
) -> None:
    broker = store.open()
    publish(broker, "a", "1", "2")
    reader = Reader(broker, "a", since=since)
    reader.until(lambda: reader.gaps)
    assert reader.gaps[0].json == {"since": since, "channels": ["a"]}
    assert reader.data == ["1", "2"]


# What is kept


def test_as_many_events_are_kept_as_configured(store: StoreUnderTest) -> None:
    broker = store.open()
    ids = publish(broker, "a", *(str(n) for n in range(3 * HISTORY)))
    last = [str(n) for n in range(2 * HISTORY, 3 * HISTORY)]
    for there in (broker, store.open()):
        complete = Reader(there, "a", since=ids[2 * HISTORY - 1])
        assert complete.take(HISTORY) == last
        late = Reader(there, "a", since=ids[2 * HISTORY - 2])
        late.until(lambda late=late: len(late.events) == HISTORY)  # type: ignore[misc]
        assert late.gaps[0].json["channels"] == ["a"]
        assert late.gaps[0].id == ids[2 * HISTORY - 1]
        assert late.data == last


def test_other_channels_do_not_push_anything_out(store: StoreUnderTest) -> None:
    broker = store.open()
    since = broker.position()
    publish(broker, "a", "1")
    for number in range(10 * HISTORY):
        publish(broker, f"other {number % 3}", "x")
    assert Reader(store.open(), "a", since=since).take(1) == ["1"]
    assert Reader(store.open(), "never", since=since).take(0) == []


def test_events_are_kept_as_long_as_configured(store: StoreUnderTest) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.3)
    since = broker.position()
    publish(broker, "a", "old")

    def is_gone() -> bool:
        reader = Reader(broker, "a", since=since)
        reader.read()
        assert bool(reader.gaps) is not bool(reader.events)
        return bool(reader.gaps)

    def is_kept() -> bool:
        publish(broker, "a", "new")
        reader = Reader(broker, "a", since=since)
        reader.read()
        assert reader.gaps
        assert "old" not in reader.data
        return "new" in reader.data

    until(is_gone)
    until(is_kept)


# Ends


def test_a_channel_ends_everywhere(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    reader = Reader(other, "a")
    publish(broker, "a", "1")
    broker.end("a")
    reader.until(lambda: reader.has_ended)
    assert reader.data == ["1"]
    assert other.log.is_finished(other.log.cursor(["a"], reader.position))


def test_a_reader_that_comes_back_to_a_closed_channel_gets_what_it_missed(
    store: StoreUnderTest,
) -> None:
    broker = store.open()
    since, _ = publish(broker, "a", "1", "2")
    broker.end("a")
    reader = Reader(store.open(), "a", since=since)
    reader.until(lambda: reader.has_ended)
    assert reader.data == ["2"]


def test_publishing_opens_a_channel_again(store: StoreUnderTest) -> None:
    broker, other = store.open(), store.open()
    publish(broker, "a", "1")
    broker.end("a")
    reader = Reader(other, "a")
    publish(broker, "a", "2")
    assert reader.take(1) == ["2"]
    assert not reader.has_ended
    assert not other.log.is_finished(other.log.cursor(["a"]))
