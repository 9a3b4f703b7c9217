"""Publishing: all readers get what is published, unchanged and in one order."""

from __future__ import annotations

import threading

import pytest

from ...event import Event
from ...position import is_position
from .harness import PATIENCE, Reader, StoreUnderTest, publish, sequences

# Publishing


def test_what_is_published_is_returned_as_it_stands_in_its_channel(
    store: StoreUnderTest,
) -> None:
    event = store.open().publish("a", Event("data", "type", retry=5))
    assert is_position(event.id)
    assert event == Event("data", "type", event.id, 5, channel="a")


def test_one_sequence_counts_the_events_of_all_channels(store: StoreUnderTest) -> None:
    broker = store.open()
    ids = [broker.publish(channel, Event("")).id for channel in "abac"]
    assert len({id.partition("-")[0] for id in ids if id}) == 1
    first = sequences(ids)[0]
    assert sequences(ids) == [first, first + 1, first + 2, first + 3]


def test_an_event_is_put_into_several_channels_in_their_order(
    store: StoreUnderTest,
) -> None:
    broker, channels = store.open(), ["c", "a", "b"]
    reader = Reader(store.open(), *channels)
    published = list(broker.publish_to_all(channels, Event("data")))
    assert [(event.channel, event.data) for event in published] == [
        *(("c", "data"), ("a", "data"), ("b", "data"))
    ]
    first = sequences([published[0].id])[0]
    assert sequences(event.id for event in published) == [first, first + 1, first + 2]
    reader.until(lambda: len(reader.events) == 3)
    assert reader.events == published
    late = Reader(store.open(), *channels, last=9)
    late.until(lambda: late.events)
    assert late.events == published
    assert sequences(publish(broker, "a", "next")) == [first + 3]


def test_one_sequence_counts_the_events_of_all_brokers(store: StoreUnderTest) -> None:
    one, other = store.open(), store.open()
    ids = [*publish(one, "a", "1"), *publish(other, "a", "2"), *publish(one, "a", "3")]
    first = sequences(ids)[0]
    assert sequences(ids) == [first, first + 1, first + 2]


EVENTS = [
    Event(""),
    Event("\n\r\n\n"),
    Event("é☃😀\u2028\x85\x00\x7f"),
    Event("x" * 1_000_000),
    Event('{"a": [1, null]}', "update"),
    Event("data", "ty pe:é", "id ☃", 0),
    Event("data", id="0", retry=10**30),
]


@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
def test_an_event_arrives_as_it_is(store: StoreUnderTest, event: Event) -> None:
    broker = store.open()
    reader = Reader(store.open(), "a")
    published = broker.publish("a", event)
    reader.until(lambda: reader.events)
    late = Reader(store.open(), "a", last=1)
    late.until(lambda: late.events)
    for got in (*reader.events, *late.events):
        assert got == published
        assert got.encode() == published.encode()
        assert (got.data, got.type, got.retry) == (event.data, event.type, event.retry)


@pytest.mark.parametrize("channel", ["a", "é☃😀", 'it\'s "a" % channel', "x" * 255])
def test_a_channel_can_have_any_name(store: StoreUnderTest, channel: str) -> None:
    reader = Reader(store.open(), channel)
    store.open().publish(channel, Event("x"))
    reader.until(lambda: reader.events)
    assert reader.events[0].channel == channel
    assert Reader(store.open(), channel, last=1).take(1) == ["x"]


# Listening


def test_every_broker_hears_what_any_publishes(store: StoreUnderTest) -> None:
    brokers = [store.open() for _ in range(3)]
    readers = [Reader(broker, "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", str(number))
    for reader in readers:
        assert reader.take(3) == ["0", "1", "2"]


def test_a_reader_gets_its_channels_and_no_others(store: StoreUnderTest) -> None:
    reader = Reader(store.open(), "a", "b")
    broker = store.open()
    for number, channel in enumerate("acbcab"):
        publish(broker, channel, str(number))
    assert reader.take(4) == ["0", "2", "4", "5"]


def test_a_newcomer_gets_nothing_of_what_its_own_process_published_before(
    store: StoreUnderTest,
) -> None:
    broker = store.open()
    Reader(broker, "a")
    for number in range(50):
        publish(broker, "a", f"before {number}")
        reader = Reader(broker, "a")
        publish(broker, "a", f"after {number}")
        assert reader.take(1) == [f"after {number}"]


def test_a_newcomer_can_ask_for_the_last_events(store: StoreUnderTest) -> None:
    broker = store.open()
    publish(broker, "a", "1", "2", "3")
    assert Reader(broker, "a", last=2).take(2) == ["2", "3"]
    assert Reader(store.open(), "a", last=2).take(2) == ["2", "3"]


def test_a_channel_that_is_wanted_late_has_its_past(store: StoreUnderTest) -> None:
    broker, publisher = store.open(), store.open()
    Reader(broker, "a")
    (id, _) = publish(publisher, "b", "1", "2")
    publish(publisher, "a", "3")
    assert Reader(broker, "b", since=id).take(1) == ["2"]
    assert Reader(broker, "b", last=5).take(2) == ["1", "2"]


def test_publishing_from_many_threads_makes_one_order(store: StoreUnderTest) -> None:
    count, each = 4, 50
    brokers = [store.open(SSE_HISTORY=1000) for _ in range(2)]
    readers = [Reader(broker, "a", "b") for broker in brokers]

    def run(number: int) -> None:
        for n in range(each):
            publish(brokers[number % 2], "ab"[n % 2], f"{number} {n}")

    threads = [
        threading.Thread(target=run, args=[n], daemon=True) for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    one, other = (reader.take(count * each) for reader in readers)
    assert one == other
    for number in range(count):
        own = [text for text in one if text.startswith(f"{number} ")]
        assert own == [f"{number} {n}" for n in range(each)]
