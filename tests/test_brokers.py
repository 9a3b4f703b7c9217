"""What every broker promises: one suite, run against each.

A broker of your own runs it too: write a ``Store`` for it, and in a module of tests
``from tests.test_brokers import *`` with fixtures ``store`` and ``shared`` that return
it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_sse_lite import BrokerUnavailable, Event
from flask_sse_lite.brokers import Broker, Claim, connect
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.own_events import FAILED
from flask_sse_lite.position import RUN_PREFIX, is_position, position_id, run_channel
from flask_sse_lite.settings import Settings

from .redis_servers import PERSISTENT, RedisServer, redis_server
from .servers import PATIENCE, until

HISTORY = 8
ALL = 1 << 30


class Store(ABC):
    """Where a broker's events stand, as the tests use it."""

    #: Whether two of its brokers share their events.
    is_shared = True

    def __init__(self) -> None:
        self._opened = ExitStack()

    @property
    def url(self) -> str:
        """What an application that uses it configures."""
        return "memory://"

    @abstractmethod
    def connect(self, **config: Any) -> Broker:
        """A broker, as another process would make one.

        :param config: what is configured besides the URL.
        """

    def open(self, **config: Any) -> Broker:
        """The same, closed at the end of the test."""
        broker = self.connect(**{"SSE_HISTORY": HISTORY, **config})
        self._opened.callback(broker.close)
        return broker

    def lose_everything(self) -> None:
        """Empty it under the brokers that use it."""
        raise NotImplementedError

    def go_away(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        """As it was."""
        raise NotImplementedError

    def close(self) -> None:
        self._opened.close()


class MemoryStore(Store):
    is_shared = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._broker: Broker | None = None

    def connect(self, **config: Any) -> Broker:
        if self._broker is None:
            self._broker = connect(Settings.read(config))
        return self._broker


class SqliteStore(Store):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "events.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def connect(self, **config: Any) -> Broker:
        return connect(Settings.read({"SSE_URL": self.url, **config}))

    def lose_everything(self) -> None:
        for ending in ("", "-wal", "-shm"):
            Path(f"{self.file}{ending}").unlink(missing_ok=True)

    def go_away(self) -> None:
        # Something else stands in its place, and at no time nothing, or a new one would
        # be made. What is in the log of what was written belongs to the file.
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._away = self.file.with_name("away")
        self._away.hardlink_to(self.file)
        other = self.file.with_name("other")
        other.write_text("This is something else. " * 1000)
        other.replace(self.file)

    def come_back(self) -> None:
        self._away.replace(self.file)


class RedisStore(Store):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._running = ExitStack()
        self._server: RedisServer | None = None

    @property
    def server(self) -> RedisServer:
        if self._server is None:
            running = redis_server(*PERSISTENT)
            self._server = self._running.enter_context(running)
        return self._server

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self, **config: Any) -> Broker:
        return connect(Settings.read({"SSE_URL": self.url, **config}))

    def lose_everything(self) -> None:
        self.server.ask("FLUSHALL")

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server.start()

    def close(self) -> None:
        super().close()
        self._running.close()
        self._server = None


STORES: dict[str, type[MemoryStore | SqliteStore | RedisStore]] = {
    "memory": MemoryStore,
    "sqlite": SqliteStore,
    "redis": RedisStore,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = STORES[request.param](tmp_path)
    yield store
    store.close()


@pytest.fixture(params=[name for name in STORES if STORES[name].is_shared])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """For what only makes sense where several processes share their events."""
    store = STORES[request.param](tmp_path)
    yield store
    store.close()


class Reader:
    """A subscriber of a broker, and what it was given so far."""

    def __init__(
        self, broker: Broker, *channels: str, since: str = "", last: int = 0
    ) -> None:
        broker.want(channels, since)
        self._log = broker.log
        self._cursor = self._log.cursor(channels, since, last)
        self._news = threading.Event()
        self._log.watch(channels, self._news.set)
        self.events: list[Event] = []
        self.gaps: list[Event] = []
        self.has_ended = False

    @property
    def position(self) -> str:
        return self._cursor.id

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.events]

    def read(self) -> None:
        """Take what is there."""
        self._news.clear()
        batch = self._log.read(self._cursor, ALL)
        if batch.gap:
            self.gaps.append(batch.gap)
        self.events += [entry.event for entry in batch.entries if entry.event]
        self.has_ended = self.has_ended or batch.ended

    def has_come_to(self, position: str) -> bool:
        """Whether there is nothing left before a position, or it has ended. (Of what
        others' events move on, nobody is told.)"""
        self.read()
        return self.has_ended or sequences([self.position]) >= sequences([position])

    def until(self, condition: Callable[[], object]) -> None:
        """Read until it is so."""
        self.read()
        while not condition():
            assert self._news.wait(PATIENCE), f"no news, after {self.data}"
            self.read()

    def take(self, count: int) -> list[str]:
        """The data of the next events; nothing is missing before them."""
        self.until(lambda: len(self.events) >= count)
        assert not self.gaps
        assert len(self.events) == count
        taken, self.events = self.data, []
        return taken


def publish(broker: Broker, channel: str, *data: str) -> list[str]:
    """:returns: the ids."""
    return [broker.publish(channel, Event(text)).id or "" for text in data]


def sequences(ids: Iterable[str | None]) -> list[int]:
    return [int((id or "").partition("-")[2]) for id in ids]


# Publishing


def test_what_is_published_is_returned_as_it_stands_in_its_channel(
    store: Store,
) -> None:
    event = store.open().publish("a", Event("data", "type", retry=5))
    assert is_position(event.id)
    assert event == Event("data", "type", event.id, 5, channel="a")


def test_one_sequence_counts_the_events_of_all_channels(store: Store) -> None:
    broker = store.open()
    ids = [broker.publish(channel, Event("")).id for channel in "abac"]
    assert len({id.partition("-")[0] for id in ids if id}) == 1
    first = sequences(ids)[0]
    assert sequences(ids) == [first, first + 1, first + 2, first + 3]


def test_one_sequence_counts_the_events_of_all_brokers(store: Store) -> None:
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
def test_an_event_arrives_as_it_is(store: Store, event: Event) -> None:
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
def test_a_channel_may_have_any_name(store: Store, channel: str) -> None:
    reader = Reader(store.open(), channel)
    store.open().publish(channel, Event("x"))
    reader.until(lambda: reader.events)
    assert reader.events[0].channel == channel
    assert Reader(store.open(), channel, last=1).take(1) == ["x"]


# Listening


def test_every_broker_hears_what_any_publishes(store: Store) -> None:
    brokers = [store.open() for _ in range(3)]
    readers = [Reader(broker, "a") for broker in brokers]
    for number, broker in enumerate(brokers):
        publish(broker, "a", str(number))
    for reader in readers:
        assert reader.take(3) == ["0", "1", "2"]


def test_a_reader_gets_its_channels_and_no_others(store: Store) -> None:
    reader = Reader(store.open(), "a", "b")
    broker = store.open()
    for number, channel in enumerate("acbcab"):
        publish(broker, channel, str(number))
    assert reader.take(4) == ["0", "2", "4", "5"]


def test_a_newcomer_gets_nothing_of_what_its_own_process_published_before(
    store: Store,
) -> None:
    broker = store.open()
    Reader(broker, "a")
    for number in range(50):
        publish(broker, "a", f"before {number}")
        reader = Reader(broker, "a")
        publish(broker, "a", f"after {number}")
        assert reader.take(1) == [f"after {number}"]


def test_a_newcomer_may_ask_for_the_last_events(store: Store) -> None:
    broker = store.open()
    publish(broker, "a", "1", "2", "3")
    assert Reader(broker, "a", last=2).take(2) == ["2", "3"]
    assert Reader(store.open(), "a", last=2).take(2) == ["2", "3"]


def test_a_channel_that_is_wanted_late_has_its_past(store: Store) -> None:
    broker, publisher = store.open(), store.open()
    Reader(broker, "a")
    (id, _) = publish(publisher, "b", "1", "2")
    publish(publisher, "a", "3")
    assert Reader(broker, "b", since=id).take(1) == ["2"]
    assert Reader(broker, "b", last=5).take(2) == ["1", "2"]


def test_publishing_from_many_threads_makes_one_order(store: Store) -> None:
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


def test_a_channel_that_was_forgotten_before_it_is_listened_to_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
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
    store: Store, monkeypatch: pytest.MonkeyPatch
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
    # Nor is any of these names said to have lost something.
    reader = Reader(broker, "nobody 0", "nobody 199", "d", since=before)
    assert reader.take(1) == ["4"]
    assert reader.gaps == []


# Resuming


def test_a_reader_resumes_anywhere_behind_what_it_saw(store: Store) -> None:
    publisher, other = store.open(), store.open()
    Reader(other, "a")
    ids = publish(publisher, "a", *"01234")
    for number, id in enumerate(ids):
        rest = [str(n) for n in range(number + 1, 5)]
        for broker in (publisher, other, store.open()):
            assert Reader(broker, "a", since=id).take(len(rest)) == rest


def test_an_id_is_known_everywhere_as_soon_as_it_is_given(store: Store) -> None:
    publisher, other = store.open(), store.open()
    Reader(other, "a")
    for number in range(50):
        (id,) = publish(publisher, "a", str(number))
        publish(publisher, "a", "next")
        reader = Reader(other, "a", since=id)
        assert reader.take(1) == ["next"]


def test_an_id_of_the_applications_is_known_everywhere(store: Store) -> None:
    publisher, other = store.open(), store.open()
    Reader(other, "a")
    for number in range(20):
        publisher.publish("a", Event("x", id=f"order {number}"))
        publish(publisher, "a", "next")
        assert Reader(other, "a", since=f"order {number}").take(1) == ["next"]


def test_a_position_is_not_behind_what_anyone_has_published(store: Store) -> None:
    publisher, other = store.open(), store.open()
    for _ in range(20):
        (id,) = publish(publisher, "a", "x")
        assert other.position() == publisher.position() == id


def test_a_position_is_resumed_from(store: Store) -> None:
    broker, other = store.open(), store.open()
    since = broker.position()
    publish(broker, "a", "1", "2")
    assert Reader(other, "a", since=since).take(2) == ["1", "2"]


@pytest.mark.parametrize("since", ["0123456789abcdef-1", "never heard of", "☃"])
def test_an_unknown_id_is_a_gap_and_then_what_there_is(
    store: Store, since: str
) -> None:
    broker = store.open()
    publish(broker, "a", "1", "2")
    reader = Reader(broker, "a", since=since)
    reader.until(lambda: reader.gaps)
    assert reader.gaps[0].json == {"since": since, "channels": ["a"]}
    assert reader.data == ["1", "2"]


# What is kept


def test_as_many_are_kept_as_is_configured(store: Store) -> None:
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


def test_other_channels_do_not_push_anything_out(store: Store) -> None:
    broker = store.open()
    since = broker.position()
    publish(broker, "a", "1")
    for number in range(10 * HISTORY):
        publish(broker, f"other {number % 3}", "x")
    assert Reader(store.open(), "a", since=since).take(1) == ["1"]
    assert Reader(store.open(), "never", since=since).take(0) == []


def test_they_are_kept_as_long_as_is_configured(store: Store) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.3)
    since = broker.position()
    publish(broker, "a", "old")

    def is_gone() -> bool:
        reader = Reader(broker, "a", since=since)
        reader.read()
        assert bool(reader.gaps) is not bool(reader.events)
        return bool(reader.gaps)

    until(is_gone)
    publish(broker, "a", "new")
    reader = Reader(broker, "a", since=since)
    reader.until(lambda: reader.events)
    assert reader.data == ["new"]
    assert reader.gaps


# Ends


def test_a_channel_ends_everywhere(store: Store) -> None:
    broker, other = store.open(), store.open()
    reader = Reader(other, "a")
    publish(broker, "a", "1")
    broker.end("a")
    reader.until(lambda: reader.has_ended)
    assert reader.data == ["1"]
    assert other.log.is_finished(other.log.cursor(["a"], reader.position))


def test_who_comes_back_to_a_closed_channel_gets_what_it_missed(store: Store) -> None:
    broker = store.open()
    since, _ = publish(broker, "a", "1", "2")
    broker.end("a")
    reader = Reader(store.open(), "a", since=since)
    reader.until(lambda: reader.has_ended)
    assert reader.data == ["2"]


def test_publishing_opens_a_channel_again(store: Store) -> None:
    broker, other = store.open(), store.open()
    publish(broker, "a", "1")
    broker.end("a")
    reader = Reader(other, "a")
    publish(broker, "a", "2")
    assert reader.take(1) == ["2"]
    assert not reader.has_ended
    assert not other.log.is_finished(other.log.cursor(["a"]))


# The store's life


def test_history_outlives_those_who_made_it(shared: Store) -> None:
    broker = shared.open()
    ids = publish(broker, "a", "1", "2")
    broker.end("b")
    broker.close()
    later = shared.open()
    assert sequences([later.position()]) == [sequences(ids)[1] + 1]
    assert Reader(later, "a", since=ids[0]).take(1) == ["2"]
    (next_id,) = publish(later, "a", "3")
    assert sequences([next_id]) == [sequences(ids)[1] + 2]


def test_a_store_that_lost_everything_is_a_gap_for_who_listens(shared: Store) -> None:
    broker, other = shared.open(), shared.open()
    readers = [Reader(broker, "a"), Reader(other, "a", "b")]
    (old,) = publish(broker, "a", "before")
    for reader in readers:
        assert reader.take(1) == ["before"]
    shared.lose_everything()

    def is_back() -> bool:
        try:
            publish(other, "a", "after")
        except BrokerUnavailable:
            return False
        return True

    until(is_back)
    for reader in readers:
        reader.until(lambda reader=reader: "after" in reader.data)  # type: ignore[misc]
        assert [gap.json["since"] for gap in reader.gaps] == [old]
        assert set(reader.data) == {"after"}
        assert reader.position.partition("-")[0] != old.partition("-")[0]
    late = Reader(broker, "a", since=old)
    late.until(lambda: late.gaps)


def test_while_the_store_is_away_publishing_fails_and_readers_wait(
    shared: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flask_sse_lite")
    broker, other = (shared.open(SSE_BROKER_TIMEOUT=1) for _ in range(2))
    readers = [Reader(broker, "a"), Reader(other, "a")]
    publish(broker, "a", "before")
    for reader in readers:
        assert reader.take(1) == ["before"]
    shared.go_away()
    for do in (
        lambda: publish(broker, "a", "never"),
        lambda: publish(broker, "a", "never"),
        lambda: broker.end("a"),
        broker.position,
        lambda: broker.want(["new"]),
    ):
        with pytest.raises(BrokerUnavailable):
            do()
    # Who comes back to what this process has anyway is not turned away.
    until(lambda: len(caplog.records) >= 2)
    reader = Reader(broker, "a", since=readers[0].position)
    reader.read()
    assert (reader.data, reader.gaps) == ([], [])
    shared.come_back()
    third = shared.open()
    publish(third, "a", "while", "they", "slept")
    for reader in readers:
        assert reader.take(3) == ["while", "they", "slept"]
    publish(broker, "a", "again")
    for reader in readers:
        assert reader.take(1) == ["again"]
    until(lambda: len(caplog.records) >= 4)
    levels = [record.levelname for record in caplog.records]
    assert sorted(levels) == ["INFO", "INFO", "WARNING", "WARNING"]


def test_a_closed_broker_refuses_and_its_log_stays_readable(shared: Store) -> None:
    broker = shared.open()
    reader = Reader(broker, "a")
    publish(broker, "a", "1")
    reader.until(lambda: reader.events)
    broker.close()
    broker.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        publish(broker, "a", "2")
    assert reader.take(1) == ["1"]


def test_a_broker_that_was_not_used_is_closed(store: Store) -> None:
    store.connect().close()


# Forks


def in_a_child(act: Callable[[], object]) -> Any:
    """What a function returns in a forked child."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writable, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(writable)
    # A child that hangs can do so in the middle of ``fork``.
    killing = threading.Timer(PATIENCE, os.kill, (pid, signal.SIGKILL))
    killing.start()
    with open(readable) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    killing.cancel()
    killing.join()
    assert answer, "It failed."
    return json.loads(answer)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_publishes_and_listens(shared: Store) -> None:
    broker = shared.open()
    reader = Reader(broker, "a")
    publish(broker, "a", "1")
    assert reader.take(1) == ["1"]

    def act() -> list[str]:
        publish(broker, "a", "2")
        own = Reader(broker, "a")
        publish(broker, "a", "3")
        return own.take(1)

    assert in_a_child(act) == ["3"]
    assert reader.take(2) == ["2", "3"]
    publish(broker, "a", "4")
    assert reader.take(1) == ["4"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_in_the_middle_of_publishing_disturb_nobody(shared: Store) -> None:
    broker = shared.open(SSE_HISTORY=10_000)
    reader = Reader(broker, "a")
    stop = threading.Event()
    published: list[str] = []

    def go_on() -> None:
        while not stop.is_set():
            published.append(f"p{len(published)}")
            publish(broker, "a", published[-1])

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        for number in range(10):
            in_a_child(lambda number=number: publish(broker, "a", f"c{number}"))  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(PATIENCE)
    got = reader.take(len(published) + 10)
    assert [text for text in got if text[0] == "p"] == published
    assert [text for text in got if text[0] == "c"] == [f"c{n}" for n in range(10)]


# Runs


def say(broker: Broker, claim: Claim, *data: str) -> list[str]:
    """:returns: the ids."""
    said = [broker.say(claim, Event(text)) for text in data]
    return [event.id or "" for event in said if event]


def begun(broker: Broker, channel: str, budget: int = 1_000_000) -> Claim:
    claim = broker.begin_run(channel, budget)
    assert claim
    return claim


def reader_of_run(broker: Broker, channel: str) -> Reader:
    """One that reads it from its beginning."""
    broker.want((channel,), fresh=True)
    start = broker.log.run_start(channel)
    assert start is not None
    first = position_id(broker.log.epoch, start, channel)
    return Reader(broker, channel, since=first)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes a process some seconds is done much sooner."""
    monkeypatch.setattr(SharedBroker, "lease", 2.0)
    monkeypatch.setattr(SharedBroker, "duty_interval", 0.2)
    monkeypatch.setattr(SharedBroker, "count_life", 1.0)


def test_a_channel_has_one_run_at_a_time(store: Store) -> None:
    one, other = store.open(), store.open()
    claim = begun(one, "a")
    for broker in (one, other, store.open()):
        assert broker.begin_run("a", 1000) is None
        assert broker.log.is_running("a")
    one.end_run(claim)
    begun(other, "a")
    assert one.begin_run("a", 1000) is None


def test_of_many_that_begin_a_run_at_once_one_does(store: Store) -> None:
    brokers = [store.open() for _ in range(4)]
    with ThreadPoolExecutor(len(brokers)) as threads:
        for number in range(20):
            begin = [
                threads.submit(broker.begin_run, f"run {number}", 1000)
                for broker in brokers
            ]
            claims = [begun.result(PATIENCE) for begun in begin]
            assert sum(claim is not None for claim in claims) == 1


def test_a_run_is_read_anywhere_from_its_first_event(store: Store) -> None:
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


def test_the_ids_of_a_run_name_it_wherever_they_are_read(store: Store) -> None:
    broker = store.open()
    channel = f"{RUN_PREFIX}{'r' * 22}"
    claim = begun(broker, channel)
    ids = say(broker, claim, "1", "2")
    for there in (broker, store.open()):
        reader = reader_of_run(there, channel)
        reader.until(lambda reader=reader: len(reader.events) == 2)  # type: ignore[misc]
        assert [event.id for event in reader.events] == ids
        assert run_channel(ids[0]) == channel


def test_events_of_our_own_arrive_as_they_are(store: Store) -> None:
    broker = store.open()
    reader = Reader(store.open(), "a")
    event = broker.say(begun(broker, "a"), FAILED)
    late = reader_of_run(store.open(), "a")
    for there in (reader, late):
        there.until(lambda there=there: there.events)  # type: ignore[misc]
        assert there.events == [event]
        assert there.events[0].type == "stream-error"


def test_a_run_that_is_over_says_nothing_more(store: Store) -> None:
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


def test_an_end_anywhere_is_seen_by_the_run(store: Store) -> None:
    broker, other = store.open(), store.open()
    claim = begun(broker, "a")
    news = threading.Event()
    broker.log.watch(("a",), news.set)
    assert not broker.log.was_ended("a", claim.began[1])
    other.end("a")
    until(lambda: broker.log.was_ended("a", claim.began[1]))
    assert news.is_set()


def test_a_run_is_kept_by_its_bytes_whatever_its_number_and_age(store: Store) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.3)
    other = store.open(SSE_HISTORY_AGE=0.3)
    claim = begun(broker, "a")
    Reader(other, "a")
    everything = [str(n) for n in range(100)]
    say(broker, claim, *everything[:50])
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 1)
    for _ in range(200):  # It is from time to time that something is dropped.
        publish(broker, "b", "x")
    say(broker, claim, *everything[50:])
    for there in (broker, other, store.open(SSE_HISTORY_AGE=0.3)):
        assert reader_of_run(there, "a").take(100) == everything
    broker.end_run(claim)
    for there in (broker, other, store.open(SSE_HISTORY_AGE=0.3)):
        until(lambda there=there: not there.log.remembers("a"))  # type: ignore[misc]


def test_of_a_run_no_more_bytes_are_kept_than_it_may_have(store: Store) -> None:
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
def test_a_run_whose_process_is_gone_is_told_of_and_ended(shared: Store) -> None:
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a", "b")
    say(broker, begun(broker, "a"), "1")
    begun(broker, "b")
    broker.close()
    reader.until(lambda: reader.has_ended)
    lost = [event for event in reader.events if event.type == "stream-error"]
    assert [event.json for event in lost] == [{"reason": "lost"}] * 2
    assert {event.channel for event in lost} == {"a", "b"}
    begun(other, "a")


@pytest.mark.usefixtures("hasty")
def test_a_run_begins_where_another_lost_its_process(shared: Store) -> None:
    broker = shared.open()
    begun(broker, "a")
    broker.close()
    # Nobody follows meanwhile, so nobody has found it.
    gone = time.monotonic()
    until(lambda: time.monotonic() > gone + SharedBroker.lease)
    other = shared.open()
    claim = begun(other, "a")
    assert say(other, claim, "1")
    assert reader_of_run(shared.open(), "a").take(1) == ["1"]


@pytest.mark.usefixtures("hasty")
def test_a_run_that_says_nothing_goes_on_while_its_process_lives(shared: Store) -> None:
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a")
    claim = begun(broker, "a")
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 2 * SharedBroker.lease)
    assert say(broker, claim, "1")
    assert reader.take(1) == ["1"]


@pytest.mark.usefixtures("hasty")
def test_a_run_goes_on_where_its_store_lost_everything(shared: Store) -> None:
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


def test_a_run_is_not_over_where_the_store_got_it_anew_as_it_spoke(
    shared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = shared.open()
    assert isinstance(broker, SharedBroker)
    claim = begun(broker, "a")
    say_there = broker._say

    def speak_too_early(*words: Any) -> Any:
        answer = say_there(*words)
        broker._keep_claims()  # As the follower does, at any moment.
        return answer

    monkeypatch.setattr(broker, "_say", speak_too_early)
    shared.lose_everything()
    until(lambda: said(broker, claim, "1"))
    assert claim in broker._claims


def test_a_run_that_ends_as_the_store_gets_it_is_not_kept(
    shared: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = shared.open()
    assert isinstance(broker, SharedBroker)
    begin_there = broker._begin

    def end_meanwhile(claim: Claim) -> Any:
        began = begin_there(claim)
        broker.end_run(claim)
        return began

    monkeypatch.setattr(broker, "_begin", end_meanwhile)
    claim = Claim("a", 1000)
    assert broker._have_begun(claim)
    assert claim not in broker._claims


def said(broker: Broker, claim: Claim, text: str) -> list[str]:
    """What a run says, as soon as there is a store again."""
    try:
        return say(broker, claim, text)
    except BrokerUnavailable:
        return []


def begins_nowhere(broker: Broker, channel: str) -> bool:
    try:
        return broker.begin_run(channel, 1000) is None
    except BrokerUnavailable:
        return True


# Counts


@pytest.mark.usefixtures("hasty")
def test_streams_are_counted_over_all_processes(store: Store) -> None:
    counts = [{"a": 2, "é☃😀": 5}, {"a": 3, 'it\'s "b"': 1}]
    brokers = [store.open() for _ in counts]
    if not store.is_shared:
        brokers, counts = brokers[:1], counts[:1]
    for broker, count in zip(brokers, counts, strict=True):
        broker.listeners = lambda count=count: count  # type: ignore[misc]
        Reader(broker, "a")  # Who has none does not follow.
    for channel in {*counts[0], *counts[-1], "nobody's"}:
        wanted = sum(count.get(channel, 0) for count in counts)
        for broker in brokers:
            until(lambda b=broker, c=channel, w=wanted: b.subscribers(c) == w)  # type: ignore[misc]
    counts[0].clear()
    wanted = sum(count.get("a", 0) for count in counts)
    for broker in brokers:
        until(lambda broker=broker: broker.subscribers("a") == wanted)  # type: ignore[misc]


@pytest.mark.usefixtures("hasty")
def test_who_is_gone_is_not_counted_any_more(shared: Store) -> None:
    broker, other, third = shared.open(), shared.open(), shared.open()
    broker.listeners = lambda: {"a": 7}
    Reader(broker, "a")
    for there in (other, third):
        until(lambda there=there: there.subscribers("a") == 7)  # type: ignore[misc]
    broker.close()
    for there in (other, third):
        until(lambda there=there: there.subscribers("a") == 0)  # type: ignore[misc]


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
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, channels=st.sampled_from([("a",), ("a", "b"), ("b", "c", "a")]))
def test_who_goes_from_process_to_process_sees_everything_once_and_in_order(
    store: Store, steps: list[tuple[str, str, int]], channels: tuple[str, ...]
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
            # It is to come to all that was published before, over each end.
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
