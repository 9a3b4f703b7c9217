"""What goes on for long keeps one order, raises no errors, and does not grow.

Each test takes seconds. With ``SOAK`` in the environment, as in ``make soak``, the
tests take minutes, and print their figures.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from flask_sse_lite import Event
from flask_sse_lite.brokers import Broker
from flask_sse_lite.brokers.sqlite import connection, housekeeping
from flask_sse_lite.testing.broker_suite import Reader, StoreUnderTest

from . import IS_LONG
from .servers import PATIENCE, ROOT, until
from .stores import STORES, RedisStore, SqliteStore

CHANNELS = "abcd"

#: Events kept of each channel.
HISTORY = 256

# Eight processes and one file

PROCESSES = 8

SECONDS = 60.0 if IS_LONG else 3.0

#: Constants of housekeeping.py, smaller in the short run.
TUNING = {"SLACK": 0.25, "LARGE_WAL": 800, "PUBLISHES_PER_CHECKPOINT": 32}
if IS_LONG:
    TUNING = {name: getattr(housekeeping, name) for name in TUNING}

#: Publishes within which each channel has something dropped.
UNDROPPED = PROCESSES * len(CHANNELS) * housekeeping.PUBLISHES_PER_PRUNE

#: Seconds between two looks at the file.
LOOK = 0.1

#: Bytes that the write-ahead log can hold. When it is large, each process publishes on
#: until its own checkpoint is due, and then waits until one is made. A publish writes
#: some four pages: they are as many again, twice.
WRITTEN_AHEAD = 4 * connection.PAGE_SIZE * TUNING["LARGE_WAL"]

PUBLISHERS = """
import json, os, sys, time
from flask_sse_lite import Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.brokers.sqlite import housekeeping
from flask_sse_lite.settings import Settings
url, processes, channels, seconds, tuning = sys.argv[1:]
vars(housekeeping).update(json.loads(tuning))
def publish(name):
    broker = connect(Settings.read({"SSE_URL": url}))
    ids, slowest = [], 0.0
    began = now = time.monotonic()
    while now < began + float(seconds):
        channel = channels[len(ids) % len(channels)]
        ids.append(broker.publish(channel, Event(f"{name} {len(ids)}")).id)
        before, now = now, time.monotonic()
        slowest = max(slowest, now - before)
    broker.close()
    with open(f"publisher-{name}", "w") as file:
        json.dump([ids, slowest], file)
for name in range(int(processes)):
    if not os.fork():
        publish(name)
        break
else:
    ends = [os.wait() for _ in range(int(processes))]
    sys.exit(any(status for _, status in ends))
"""


@contextmanager
def publishers(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose children publish as fast as they can."""
    own = (url, str(PROCESSES), CHANNELS, str(SECONDS), json.dumps(TUNING))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PUBLISHERS, *own],
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def results(folder: Path) -> Iterator[tuple[list[int], float]]:
    """For each publisher, the numbers of its events, and the seconds of its slowest
    publish."""
    for name in range(PROCESSES):
        ids, slowest = json.loads((folder / f"publisher-{name}").read_text())
        yield [number_of(id) for id in ids], slowest


def number_of(id: str | None) -> int:
    return int((id or "").rpartition("-")[2])


class Look(NamedTuple):
    """What a file had between two times: events, the newest number, and bytes in the
    write-ahead log."""

    began: float
    ended: float
    kept: int
    newest: int
    ahead: int


class Watch:
    """Looks at a file now and then."""

    def __init__(self, file: Path) -> None:
        self.looks: list[Look] = []
        self._connection = sqlite3.connect(file)
        self._ahead = Path(f"{file}-wal")
        self.look()

    def look(self) -> None:
        began = time.monotonic()
        if self.looks and began < self.looks[-1].began + LOOK:
            return
        query = "SELECT count(*), coalesce(max(sequence), 0) FROM sse_events"
        kept, newest = self._connection.execute(query).fetchone()
        ahead = self._ahead.stat().st_size
        self.looks.append(Look(began, time.monotonic(), kept, newest, ahead))

    def excess(self) -> int:
        """The most events that the file ever kept beyond what it had to keep: the
        history of each channel, and what was so new when an event was last dropped that
        somebody could be about to read it. Publishers drop after so many publishes.
        Where they publish no more, nobody drops what grows old."""
        return max(look.kept - self._due_at(look) for look in self.looks)

    def _due_at(self, look: Look) -> int:
        published = look.newest - UNDROPPED
        # On a busy machine, the time within a look can be as long as the slack.
        dropped_at = max(x.began for x in self.looks if x.newest <= max(published, 0))
        past = dropped_at - 2 * TUNING["SLACK"]
        old = max((x.newest for x in self.looks if x.ended < past), default=0)
        return HISTORY * len(CHANNELS) + look.newest - old

    def finds_it_whole(self) -> bool:
        found = self._connection.execute("PRAGMA integrity_check").fetchall()
        return found == [("ok",)]

    def close(self) -> None:
        self._connection.close()


class Follower:
    """A reader of all channels, and what it was given, as numbers and data."""

    def __init__(self, broker: Broker) -> None:
        self.reader = Reader(broker, *CHANNELS)
        self.seen: list[tuple[int, str]] = []

    def read(self) -> None:
        self.reader.read()
        self.seen += [(number_of(e.id), e.data) for e in self.reader.events]
        self.reader.events.clear()


def test_eight_processes_publish_in_one_order_to_a_file_that_stays_small(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path)
    with ExitStack() as stack:
        stack.callback(store.close)
        brokers = [store.open(SSE_HISTORY=HISTORY) for _ in range(2)]
        followers = [Follower(broker) for broker in brokers]
        watch = stack.enter_context(closing(Watch(store.file)))
        url = f"sqlite:///{store.file}"
        publishing = stack.enter_context(publishers(tmp_path, url))
        while publishing.poll() is None:
            for follower in followers:
                follower.read()
            watch.look()
            time.sleep(0.001)
        assert publishing.returncode == 0
        newest = brokers[0].position()
        assert watch.finds_it_whole()
        for follower in followers:
            until(lambda reader=follower.reader: reader.has_come_to(newest))  # type: ignore[misc]
            follower.read()

    found = [*results(tmp_path)]
    published = {
        number: f"{name} {count}"
        for name, (numbers, _) in enumerate(found)
        for count, number in enumerate(numbers)
    }
    assert sorted(published) == [*range(1, number_of(newest) + 1)]
    for numbers, _ in found:
        assert numbers == sorted(numbers)
    for follower in followers:
        numbers = [number for number, _ in follower.seen]
        assert numbers == sorted(set(numbers))
        assert all(published[number] == data for number, data in follower.seen)
        assert len(numbers) == len(published) or follower.reader.gaps
    peak = max(look.ahead for look in watch.looks)
    print(
        f"\n{len(published):,} events, {len(published) / SECONDS:,.0f}/s; "
        f"the slowest took {max(slowest for _, slowest in found):.2f} s; kept "
        f"{max(look.kept for look in watch.looks):,} at most, {watch.excess():,} in "
        f"excess; written ahead {peak / 1e6:.1f} MB; the file "
        f"{store.file.stat().st_size / 1e6:.1f} MB; gaps "
        f"{[len(follower.reader.gaps) for follower in followers]}"
    )
    assert watch.excess() <= HISTORY * len(CHANNELS)
    assert peak <= WRITTEN_AHEAD


# A million events

EVENTS = 1_000_000 if IS_LONG else 5_000

#: Events after which everything has reached its lasting size.
WARM_UP = 1_500

#: Bytes of an event. All of them would take some megabytes in a file, and in Redis.
SIZE = 1_000

#: Bytes by which the process may be larger at the end; some are needed for a while.
SPREAD = 24e6


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    store = STORES[request.param](tmp_path)
    yield store
    store.close()


@contextmanager
def publishing(
    broker: Broker, numbers: range, room: threading.Semaphore
) -> Iterator[None]:
    """Publish in a thread, which waits while there is no room for another event."""

    def publish() -> None:
        for number in numbers:
            assert room.acquire(timeout=PATIENCE)
            event = Event(str(number).ljust(SIZE))
            broker.publish(CHANNELS[number % len(CHANNELS)], event)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive()


def pass_on(broker: Broker, reader: Reader, numbers: range) -> None:
    """Publish, and read all of it. The publisher is never further ahead than what is
    kept."""
    room = threading.Semaphore(HISTORY // 2)
    come = numbers.start
    with publishing(broker, numbers, room):
        while come < numbers.stop:
            reader.until(lambda: reader.events)
            for event in reader.events:
                assert int(event.data) == come
                come += 1
            room.release(len(reader.events))
            reader.events.clear()
            assert not reader.gaps


class Size(NamedTuple):
    """What is in use: blocks of Python's, bytes of the process, and bytes of the
    store."""

    blocks: int
    memory: int
    store: int


def size(store: StoreUnderTest) -> Size:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE")
    return Size(sys.getallocatedblocks(), memory, size_of_store(store))


def size_of_store(store: StoreUnderTest) -> int:
    if isinstance(store, RedisStore):
        return int(store.server.ask("INFO", "memory")["used_memory"])
    if isinstance(store, SqliteStore):
        with closing(sqlite3.connect(store.file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return store.file.stat().st_size
    return 0


def test_a_million_events_leave_nothing_behind(
    store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is kept must not depend on how fast this is.
    monkeypatch.setattr(housekeeping, "SLACK", 0.0)
    publisher, broker = (store.open(SSE_HISTORY=HISTORY) for _ in range(2))
    reader = Reader(broker, *CHANNELS)
    pass_on(publisher, reader, range(WARM_UP))
    before = size(store)
    began = time.monotonic()
    pass_on(publisher, reader, range(WARM_UP, WARM_UP + EVENTS))
    seconds = time.monotonic() - began
    after = size(store)
    print(
        f"\n{type(store).__name__}: {EVENTS:,} events, {EVENTS / seconds:,.0f}/s; "
        f"the process {before.memory / 1e6:.1f} -> {after.memory / 1e6:.1f} MB, "
        f"{before.blocks:,} -> {after.blocks:,} blocks; the store "
        f"{before.store / 1e6:.1f} -> {after.store / 1e6:.1f} MB"
    )
    assert after.blocks - before.blocks < EVENTS / 10
    assert after.memory - before.memory < SPREAD
    assert after.store <= 2 * before.store
