"""``SSE_HISTORY_BYTES`` bounds all that is kept, on every broker: the largest channels
shrink, and their readers are told."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_sse_lite import Event
from flask_sse_lite.brokers import Broker, connect
from flask_sse_lite.brokers.redis import RedisStore, scripts
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.brokers.sqlite.scales import WEIGHED_AFTER, Scales
from flask_sse_lite.brokers.sqlite.store import SqliteStore
from flask_sse_lite.history.retention import HISTORY_BYTES
from flask_sse_lite.publisher import Publisher
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import Reader, StoreUnderTest, publish, until

from .redis_servers import RedisServer, redis_server
from .stores import shared, store

__all__ = ["shared", "store"]

#: Bytes of all that is kept in these tests, and of one event.
LIMIT = 200_000
LARGE = 2_000

#: More events than a test publishes, so that only their bytes are too many.
MANY = 10_000


def opened(store: StoreUnderTest) -> Broker:
    return store.open(SSE_HISTORY_BYTES=LIMIT, SSE_HISTORY=MANY)


def large(number: int) -> str:
    return f"{number} ".ljust(LARGE, "x")


def fill(broker: Broker, channel: str, count: int) -> list[str]:
    """Publish large events.

    :returns: their ids.
    """
    return publish(broker, channel, *map(large, range(count)))


def kept(broker: Broker, channel: str) -> list[str]:
    """The data of all that a newcomer can have of a channel."""
    reader = Reader(broker, channel, last=MANY)
    reader.read()
    return reader.data


def size_of(found: Iterable[list[str]]) -> int:
    return sum(len(data) for texts in found for data in texts)


def is_within_limit(store: StoreUnderTest, channels: str) -> bool:
    """Whether a newcomer can have no more than the limit. To a shared store it comes
    from outside, because an application would drop the rest as it comes. (Redis is
    weighed behind a publish.)"""
    with ExitStack() as stack:
        if store.is_shared:
            late = connect(Settings.of_guest(store.url, timeout=5))
            stack.callback(late.close)
        else:
            late = opened(store)
        return size_of(kept(late, channel) for channel in channels) <= LIMIT * 1.1


def test_all_channels_together_have_a_bound_in_bytes(store: StoreUnderTest) -> None:
    broker = opened(store)
    for channel in "abc":
        fill(broker, channel, 200)
    until(lambda: is_within_limit(store, "abc"))
    late = opened(store)
    found = {channel: kept(late, channel) for channel in "abc"}
    # Redis takes twice the memory for such events.
    assert size_of(found.values()) > LIMIT * 0.3
    for texts in found.values():
        # The newest of each are left, and as much of the one as of the other.
        assert texts == [*map(large, range(200 - len(texts), 200))]
        assert len(texts) * LARGE >= LIMIT / 3 * 0.3


def test_a_large_channel_displaces_no_smaller_one(store: StoreUnderTest) -> None:
    broker = opened(store)
    ids = publish(broker, "small", *"1234")
    seen = fill(broker, "large", 300)
    until(lambda: is_within_limit(store, "large"))
    late = opened(store)
    small = Reader(late, "small", since=ids[0])
    assert small.take(3) == ["2", "3", "4"]
    assert not small.gaps
    reader = Reader(late, "large", since=seen[0])
    reader.until(lambda: reader.data and reader.data[-1] == large(299))
    assert [gap.json["channels"] for gap in reader.gaps] == [["large"]]


def test_who_listens_gets_what_is_as_large_as_the_bound(store: StoreUnderTest) -> None:
    broker, other = opened(store), opened(store)
    for channel in "abcdef":
        publish(broker, channel, "x" * (LIMIT // 6))
    reader = Reader(other, "new")
    broker.publish("new", Event("y" * (LIMIT - 100)))
    assert reader.take(1) == ["y" * (LIMIT - 100)]
    assert not reader.gaps


def test_a_channel_that_has_ended_stays_ended(store: StoreUnderTest) -> None:
    broker = opened(store)
    ids = fill(broker, "ended", 80)
    broker.end("ended")
    fill(broker, "other", 300)
    until(lambda: is_within_limit(store, "other"))
    late = Reader(opened(store), "ended", since=ids[0])
    late.until(lambda: late.has_ended)
    assert late.gaps
    assert len(late.data) < 79


def test_channels_of_one_event_each_do_not_all_lose_it(store: StoreUnderTest) -> None:
    broker = opened(store)
    names = [f"user.{number}" for number in range(300)]
    for name in names:
        publish(broker, name, "x" * 1_000)
    left: list[str] = []

    def is_light() -> bool:
        late = opened(store)
        left[:] = (name for name in names if kept(late, name))
        return len(left) < 220

    until(is_light)
    # Redis counts its own bookkeeping too.
    assert len(left) > 30
    assert names[-1] in left


# What a program that is no application publishes


def test_who_does_not_know_the_bound_keeps_it(shared: StoreUnderTest) -> None:
    fill(opened(shared), "a", 10)
    guest = connect(Settings.of_guest(shared.url, timeout=5))
    # At an SQLite file, it asks for the bound when it has written so much.
    unseen = HISTORY_BYTES * WEIGHED_AFTER
    fill(guest, "b", int(unseen / LARGE) + 300)
    guest.close()
    until(lambda: is_within_limit(shared, "ab"))


# An SQLite file


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that each look at all events of a file has found."""
    found: list[int] = []
    look = Scales._sizes

    def noted(scales: Scales, connection: sqlite3.Connection) -> dict[str, int]:
        sizes = look(scales, connection)
        found.append(sum(sizes.values()))
        return sizes

    monkeypatch.setattr(Scales, "_sizes", noted)
    return found


def on_file(folder: Path) -> Broker:
    config = {"SSE_HISTORY_BYTES": LIMIT, "SSE_HISTORY": MANY}
    url = f"sqlite:///{folder}/events.db"
    return connect(Settings.read({"SSE_URL": url, **config}))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Broker]:
    broker = on_file(tmp_path)
    yield broker
    broker.close()


def store_of(file: Broker) -> SqliteStore:
    assert isinstance(file, SharedBroker)
    assert isinstance(file.store, SqliteStore)
    return file.store


def bytes_in(file: Broker) -> int:
    store = store_of(file)
    sizes = store._connection.do(store._upkeep._scales._sizes)
    return sum(sizes.values())


def test_a_file_is_read_as_a_whole_only_where_there_is_something_to_drop(
    file: Broker, looks: list[int]
) -> None:
    # What is dropped lies scattered, so that the file does not shrink.
    channels = random.Random(1).choices("abcdefghijklmnopqrst", k=3_000)
    for channel in channels:
        publish(file, channel, "x" * 200)
    assert len(looks) > 10
    assert all(LIMIT < size < LIMIT * 1.1 for size in looks[1:])


def test_a_file_that_has_gone_back_is_read_as_a_whole(
    file: Broker, looks: list[int]
) -> None:
    fill(file, "a", 90)
    assert len(looks) == 1
    # As if it had been longer, and had held less, before it went back.
    scales = store_of(file)._upkeep._scales
    scales._newest, scales._most = 1_000, 0
    fill(file, "a", 60)
    assert len(looks) > 1
    assert bytes_in(file) < LIMIT * 1.1


def test_what_other_processes_put_into_a_file_weighs_as_much(
    file: Broker, tmp_path: Path
) -> None:
    other = on_file(tmp_path)
    try:
        for number in range(300):
            publish(other if number % 3 else file, "a", large(number))
        assert LIMIT / 2 < bytes_in(file) < LIMIT * 1.1
    finally:
        other.close()


# Redis


def connected(server: RedisServer) -> Broker:
    config = {"SSE_HISTORY_BYTES": LIMIT, "SSE_HISTORY": MANY}
    return connect(Settings.read({"SSE_URL": server.url, **config}))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def test_a_redis_that_does_not_say_how_large_keys_are_is_told_of_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("ACL", "SETUSER", "default", "-memory|usage")
    broker = connected(server)
    with caplog.at_level(logging.WARNING, "flask_sse_lite"):
        publish(broker, "a", *map(large, range(300)))
        broker.close()
    told = [r.getMessage() for r in caplog.records if "MEMORY USAGE" in r.getMessage()]
    assert len(told) == 1
    assert server.ask("XLEN", "sse:channel:a") == 300


def test_publishers_that_close_at_once_keep_it(server: RedisServer) -> None:
    broker = connected(server)
    publish(broker, "a", "the limit is noted")
    broker.close()
    for number in range(300):
        with Publisher.from_url(server.url) as publisher:
            publisher.publish(large(number), channel="a")
    assert server.ask("MEMORY", "USAGE", "sse:channel:a") <= LIMIT * 1.1


def test_who_weighs_for_long_remains_the_only_one(server: RedisServer) -> None:
    broker = connected(server)
    assert isinstance(broker, SharedBroker)
    store = broker.store
    assert isinstance(store, RedisStore)
    publish(broker, "a", "1")
    for script, own in ((scripts.sizes, ()), (scripts.shed, (1, "a"))):
        server.ask("HSET", "sse:store", "weighing", "1")
        store._ask_for(script, ["a"], own)
        assert int(server.ask("HGET", "sse:store", "weighing")) > 1
    broker.close()
