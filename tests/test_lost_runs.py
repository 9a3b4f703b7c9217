"""What becomes of a run whose store fails or forgets it. The run goes on, or ends with
a reason. Its readers never take an incomplete answer for the whole, and never wait for
ever."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from flask_sse_lite import BrokerUnavailable, Event
from flask_sse_lite.brokers import Broker, Claim
from flask_sse_lite.brokers.store import Store
from flask_sse_lite.generators.run import ARRIVAL
from flask_sse_lite.own_events import FAILED, SHUTDOWN
from flask_sse_lite.position import RUN_PREFIX, position_id
from flask_sse_lite.testing.broker_suite import (
    Reader,
    StoreUnderTest,
    begun,
    hasty,
    publish,
    reader_of_run,
    said,
    say,
)

from .generating import Generators, assert_nothing_is_left, generators
from .patience import patient
from .servers import PATIENCE, Client, until
from .stores import RedisStore, SqliteStore, shared, store

__all__ = ["hasty", "shared", "store"]

LOST = {"reason": "lost"}

#: A run's own channel, and a channel of the application's.
CHANNELS = [f"{RUN_PREFIX}{'r' * 22}", "job.7"]

#: All keys that Redis has for a run and its readers.
KEYS = [
    *("sse:run:job.7", "sse:leases", "sse:store", "sse:channel:job.7"),
    *("sse:channels", "sse:processes", "sse:counts:*"),
]

#: Keys that are lost together, and how.
LOSSES = [
    *(([key], "deleted") for key in KEYS),
    (["sse:run:job.7", "sse:leases"], "deleted"),
    (["sse:run:job.7"], "expired"),
    (KEYS, "expired"),
]


def forget_runs(store: StoreUnderTest) -> None:
    """Have a store lose what it knows of runs, and nothing else."""
    if isinstance(store, RedisStore):
        delete(store, "sse:run:*")
        return
    assert isinstance(store, SqliteStore)
    with closing(sqlite3.connect(store.file, timeout=PATIENCE)) as connection:
        connection.execute("DELETE FROM sse_runs")
        connection.commit()


def delete(store: RedisStore, *patterns: str) -> None:
    for pattern in patterns:
        for key in store.server.ask("KEYS", pattern):
            store.server.ask("DEL", key)


@contextmanager
def unwritable(store: StoreUnderTest) -> Iterator[None]:
    """Have every write to a store fail."""
    if isinstance(store, SqliteStore):
        with closing(sqlite3.connect(store.file, timeout=PATIENCE)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()
        return
    store.go_away()
    yield
    store.come_back()


def died(broker: Broker) -> None:
    """Close a broker as if its process had been killed: it takes back nothing that it
    holds."""
    broker.close()


def told(reader: Reader) -> list[str]:
    """What a reader was told until the end of its stream."""
    reader.until(lambda: reader.has_ended)
    return [event.type or event.data for event in reader.events]


def reasons(reader: Reader) -> list[object]:
    """Why the reader's stream ended."""
    reader.until(lambda: reader.has_ended)
    return [event.json for event in reader.events if event.type == "stream-error"]


@pytest.fixture(params=CHANNELS, ids=["a run's own channel", "an application's"])
def channel(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def steady(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that outlasts a pause of this process: its run must live."""
    monkeypatch.setattr(Store, "lease", PATIENCE / 5)


# The reason and the end come in one step


def test_a_reason_and_the_end_are_read_together(
    store: StoreUnderTest, channel: str
) -> None:
    broker, other = store.open(), store.open()
    claim = begun(broker, channel)
    say(broker, claim, "1")
    readers = [reader_of_run(there, channel) for there in (broker, other)]
    broker.end_run(claim, SHUTDOWN)
    for reader in [*readers, reader_of_run(store.open(), channel)]:
        assert told(reader) == ["1", "stream-error"]
        assert reasons(reader) == [{"reason": "shutdown"}]
        assert not reader.gaps


def test_nobody_reads_a_reason_before_the_end(store: StoreUnderTest) -> None:
    broker = store.open()
    claim = begun(broker, "a")
    seen: list[tuple[int, bool]] = []
    reader = reader_of_run(broker, "a")

    def look() -> None:
        reader.read()
        seen.append((len(reader.events), reader.has_ended))

    if not store.is_shared:
        broker.log.watch(["a"], look)
    broker.end_run(claim, FAILED)
    reader.until(lambda: reader.has_ended)
    broker.log.unwatch(["a"], look)
    assert (1, False) not in seen


def test_where_the_end_cannot_be_put_neither_is_the_reason(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    broker = store.open()
    claim = begun(broker, "a")
    say(broker, claim, "1")
    with closing(sqlite3.connect(store.file)) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON sse_events WHEN new.data IS NULL "
            "BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"
        )
        with pytest.raises(BrokerUnavailable, match="full"):
            broker.end_run(claim, FAILED)
        rows = connection.execute("SELECT data FROM sse_events WHERE data NOT NULL")
        assert rows.fetchall() == [("1",)]
        connection.execute("DROP TRIGGER full")
    store.close()


# The store fails


@pytest.mark.usefixtures("hasty")
def test_a_run_that_could_not_say_something_ends_as_lost(
    shared: StoreUnderTest,
) -> None:
    broker, other = shared.open(SSE_BROKER_TIMEOUT=3), shared.open()
    reader = Reader(other, "a")
    claim = begun(broker, "a")
    say(broker, claim, "1")
    reader.until(lambda: reader.data)
    with unwritable(shared), pytest.raises(BrokerUnavailable):
        say(broker, claim, "2")
    # The run ends as any other, as it knows of no loss.
    until(lambda: ended(broker, claim))
    assert reasons(reader) == [LOST]
    assert reasons(reader_of_run(shared.open(), "a")) == [LOST]


def ended(broker: Broker, claim: Claim) -> bool:
    try:
        broker.end_run(claim)
    except BrokerUnavailable:
        return False
    return True


@pytest.mark.usefixtures("hasty")
def test_an_end_that_could_not_be_told_is_told_as_lost(
    shared: StoreUnderTest, channel: str
) -> None:
    """A connected reader, one that comes back, and one that comes later are all
    told."""
    broker = shared.open(SSE_BROKER_TIMEOUT=3)
    other = shared.open(SSE_BROKER_TIMEOUT=3)
    claim = begun(broker, channel)
    (seen,) = say(broker, claim, "1")
    connected = [reader_of_run(there, channel) for there in (broker, other)]
    for reader in connected:
        reader.until(lambda reader=reader: reader.data)  # type: ignore[misc]
    with unwritable(shared), pytest.raises(BrokerUnavailable):
        broker.end_run(claim)
    for reader in connected:
        assert told(reader) == ["1", "stream-error"]
        assert reasons(reader) == [LOST]
    assert told(Reader(other, channel, since=seen)) == ["stream-error"]
    assert told(reader_of_run(shared.open(), channel)) == ["1", "stream-error"]
    assert say(broker, claim, "2") == []


@pytest.mark.usefixtures("hasty")
def test_who_comes_first_when_nobody_is_left_is_told_too(
    shared: StoreUnderTest, channel: str
) -> None:
    broker = shared.open()
    say(broker, begun(broker, channel), "1")
    died(broker)
    assert told(reader_of_run(shared.open(), channel)) == ["1", "stream-error"]


def test_a_run_whose_beginning_fails_is_not_taken_for_whole(
    shared: StoreUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a")
    calls = iter([broker.want])

    def fail_at_last(*names: object, **options: object) -> None:
        want = next(calls, None)
        if want is None:
            raise BrokerUnavailable("It is away")
        want(*names, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(broker, "want", fail_at_last)
    with pytest.raises(BrokerUnavailable):
        broker.begin_run("a", 1000)
    assert reasons(reader) == [LOST]


# The store forgets


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("is_silent", [False, True], ids=["it speaks", "it is silent"])
def test_a_run_that_its_store_forgot_goes_on(
    shared: StoreUnderTest, channel: str, is_silent: bool
) -> None:
    broker, other = shared.open(), shared.open()
    reader = Reader(other, channel)
    claim = begun(broker, channel)
    began = claim.began
    say(broker, claim, "1")
    reader.until(lambda: reader.data)
    forget_runs(shared)
    if is_silent:
        # Longer than others doubt a run that they do not find.
        rest = time.monotonic() + Store.lease + 5 * Store.duty_interval
        until(lambda: time.monotonic() > rest)
    assert say(broker, claim, "2")
    assert broker.begin_run(channel, 1000) is None
    # The run is still the same, and a late reader gets all of it.
    assert claim.began == began
    late = reader_of_run(shared.open(), channel)
    late.until(lambda: len(late.data) == 2)
    broker.end_run(claim)
    assert told(reader) == told(late) == ["1", "2"]
    assert not reader.gaps
    assert not late.gaps


@pytest.mark.usefixtures("hasty")
def test_a_run_that_nobody_knows_any_more_is_told_as_lost(
    shared: StoreUnderTest, channel: str
) -> None:
    broker, other = shared.open(), shared.open()
    claim = begun(broker, channel)
    say(broker, claim, "1")
    readers = [reader_of_run(other, channel)]
    died(broker)
    forget_runs(shared)
    if channel.startswith(RUN_PREFIX):
        # The prefix of the name says that there must be an end.
        first = position_id(*claim.began, channel)
        readers.append(Reader(shared.open(), channel, since=first))
    for reader in readers:
        assert told(reader) == ["1", "stream-error"]
        assert reasons(reader) == [LOST]


@pytest.mark.usefixtures("hasty")
def test_readers_of_a_run_that_was_lost_with_everything_are_told(
    shared: StoreUnderTest, channel: str
) -> None:
    broker, other = shared.open(), shared.open()
    say(broker, begun(broker, channel), "1")
    readers = [reader_of_run(other, channel), reader_of_run(shared.open(), channel)]
    for reader in readers:
        reader.until(lambda reader=reader: reader.data)  # type: ignore[misc]
    died(broker)
    shared.lose_everything()
    for reader in readers:
        assert told(reader) == ["1", "stream-error"]
        assert reader.gaps
        # The reason is told once, whoever found the loss.
        assert reasons(reader) == [LOST]


@pytest.mark.usefixtures("steady")
def test_a_run_that_is_over_is_not_begun_anew(
    shared: StoreUnderTest, channel: str
) -> None:
    broker, other = shared.open(), shared.open()
    reader = Reader(other, channel)
    claim = begun(broker, channel)
    say(broker, claim, "1")
    other.end(channel)
    forget_runs(shared)
    assert say(broker, claim, "2") == []
    broker.end_run(claim)
    assert told(reader) == ["1"]
    next_one = begun(other, channel)
    assert say(broker, claim, "3") == []
    other.end_run(next_one)
    assert say(broker, claim, "4") == []


@pytest.mark.usefixtures("hasty")
def test_a_channel_without_a_run_is_never_ended_as_one(shared: StoreUnderTest) -> None:
    """This holds for a channel that had a run before, and for one that was opened
    again."""
    broker, other = shared.open(), shared.open()
    reader = Reader(other, "a", "b")
    broker.end_run(begun(broker, "a"))
    publish(broker, "a", "1")
    publish(broker, "b", "2")
    forget_runs(shared)
    rest = time.monotonic() + 2 * Store.lease
    until(lambda: time.monotonic() > rest)
    publish(broker, "a", "3")
    reader.until(lambda: reader.data[-1:] == ["3"])
    assert reader.data == ["1", "2", "3"]


# Each key of Redis' by itself


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisStore]:
    store = RedisStore(tmp_path)
    yield store
    store.close()


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize(("keys", "how"), LOSSES, ids=str)
def test_a_run_goes_on_whichever_key_is_lost(
    redis: RedisStore, keys: list[str], how: str
) -> None:
    broker, other = redis.open(), redis.open()
    broker.listeners = other.listeners = lambda: {"job.7": 1}
    claim = begun(broker, "job.7")
    readers = [reader_of_run(there, "job.7") for there in (broker, other)]
    say(broker, claim, "1")
    for reader in readers:
        reader.until(lambda reader=reader: reader.data)  # type: ignore[misc]
    until(lambda: broker.subscribers("job.7") == 2)
    lose(redis, keys, how)
    # A second start finds the run, whatever is left of it.
    until(lambda: said(broker, claim, "2"))
    until(lambda: begins_nowhere(other))
    for reader in readers:
        reader.until(lambda reader=reader: reader.data[-1] == "2")  # type: ignore[misc]
    rest = time.monotonic() + Store.lease + 2 * Store.duty_interval
    until(lambda: time.monotonic() > rest)
    until(lambda: said(broker, claim, "3"))
    until(lambda: broker.subscribers("job.7") == 2)
    broker.end_run(claim)
    for reader in readers:
        heard = told(reader)
        # After a gap, all that is retained comes again.
        assert heard[-1] == "3"
        assert reader.gaps or len(heard) == len({*heard})
        assert {*heard} - {"1", "2", "3"} == set()
    assert redis.server.ask("ZCARD", "sse:leases") == 0


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("keys", "how"), LOSSES, ids=str)
def test_readers_are_told_whichever_key_is_lost_of_a_run_whose_process_died(
    redis: RedisStore, keys: list[str], how: str
) -> None:
    broker, other = redis.open(), redis.open()
    claim = begun(broker, "job.7")
    reader = reader_of_run(other, "job.7")
    say(broker, claim, "1")
    reader.until(lambda: reader.data)
    died(broker)
    lose(redis, keys, how)
    assert reasons(reader) == [LOST]
    assert redis.server.ask("ZCARD", "sse:leases") == 0
    begun(other, "job.7")


def lose(redis: RedisStore, keys: list[str], how: str) -> None:
    if how == "deleted":
        delete(redis, *keys)
        return
    for pattern in keys:
        for key in redis.server.ask("KEYS", pattern):
            redis.server.ask("PEXPIRE", key, 1)
            # A key that a process writes anew lives on.
            until(lambda key=key: redis.server.ask("PTTL", key) not in (0, 1))  # type: ignore[misc]


def begins_nowhere(broker: Broker) -> bool:
    try:
        return broker.begin_run("job.7", 1000) is None
    except BrokerUnavailable:
        return False


@pytest.mark.usefixtures("hasty")
def test_a_lease_without_a_run_is_dropped(redis: RedisStore) -> None:
    broker = redis.open()
    Reader(broker, "a")
    redis.server.ask("ZADD", "sse:leases", 1, "gone")
    until(lambda: redis.server.ask("ZCARD", "sse:leases") == 0)
    assert redis.server.ask("EXISTS", "sse:channel:gone") == 0


def test_an_event_that_came_of_a_failed_call_is_followed_by_the_reason(
    redis: RedisStore,
) -> None:
    """A frozen Redis executes a command late, after the run was told of its failure."""
    broker, other = redis.open(SSE_BROKER_TIMEOUT=3), redis.open()
    reader = Reader(other, "a")
    claim = begun(broker, "a")
    say(broker, claim, "1")
    redis.server.freeze()
    thread = threading.Thread(target=lambda: said(broker, claim, "2"))
    thread.start()
    thread.join(PATIENCE)
    redis.server.thaw()
    until(lambda: ended(broker, claim))
    assert reasons(reader) == [LOST]
    assert [event.data for event in reader.events[:-1]] in (["1"], ["1", "2"])
    assert broker.say(claim, Event("3")) is None


# On servers

GUNICORNS = ["gunicorn gevent", "gunicorn gthread", "gunicorn sync"]

#: Seconds for which a client waits to be told that its run is lost. Ten are promised:
#: test_duties.py tests that by a clock that a busy machine does not move.
TOLD = patient(20.0)

#: Steps of a run that speaks all the time.
STEPS = "tick"


@pytest.fixture(params=["sqlite", "redis"])
def failing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    store = {"sqlite": SqliteStore, "redis": RedisStore}[request.param](tmp_path)
    yield store
    store.close()


@contextmanager
def silent(store: StoreUnderTest) -> Iterator[None]:
    """Have a store answer nothing, though it is there."""
    if isinstance(store, RedisStore):
        store.server.freeze()
        yield
        store.server.thaw()
        return
    with unwritable(store):
        yield


def rest(client: Client) -> list[tuple[str | None, str]]:
    """What a client was sent, up to the end of its stream, without repetition."""
    client.socket.settimeout(TOLD)
    told = [(event.type, event.data) for event in client.take(1_000_000)]
    return [one for one, _ in itertools.groupby(told)]


TOLD_LOST = [("stream-error", '{"reason": "lost"}'), ("stream-end", "")]


@pytest.mark.parametrize("kind", GUNICORNS)
def test_a_run_whose_store_was_silent_never_seems_whole(
    tmp_path: Path, kind: str, failing: StoreUnderTest
) -> None:
    """Neither a connected reader, nor one that comes back, nor one that comes later is
    told a proper end."""
    with generators(
        kind, tmp_path, SSE_URL=failing.url, SSE_BROKER_TIMEOUT=1
    ) as served:
        name = served.new()
        with served.ask(name, STEPS, "/run") as client:
            location = client.headers["location"]
            (seen,) = client.take(1)
            with silent(failing):
                # The run closes its generator when it could not say an item.
                served.await_(name, "closed")
            assert rest(client)[-2:] == TOLD_LOST
        for since in (seen.id or "", ""):
            with Client(served.server.port) as client:
                headers = {"Last-Event-ID": since} if since else {}
                client.request(location, headers=headers)
                told = rest(client)
                assert told[-2:] == TOLD_LOST
                assert since or told[0] == (None, "tick")
        assert_nothing_is_left(served)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_readers_of_a_run_that_redis_forgot_do_not_wait_for_good(
    tmp_path: Path, kind: str, redis: RedisStore
) -> None:
    with generators(
        kind, tmp_path, SSE_URL=redis.server.url, SSE_BROKER_TIMEOUT=1
    ) as served:
        name = served.new()
        with served.ask(name, STEPS, "/run") as client:
            client.take(1)
            redis.server.kill()
            served.await_(name, "closed")
            redis.server.forget()
            redis.server.start()
            told = rest(client)
            assert told[-2:] == TOLD_LOST
            assert "stream-gap" in [type for type, _ in told]
        assert_nothing_is_left(served)


@pytest.mark.parametrize("kind", GUNICORNS)
def test_abandoned_requests_hold_no_place_for_long(tmp_path: Path, kind: str) -> None:
    """The clients leave after the head of the answer."""
    with generators(kind, tmp_path, SSE_MAX_RUNS=20) as served:
        name = served.new()
        # Behind the gate a run that goes on would hold its place for its linger.
        steps = f"wait:{name},tick" if "gevent" not in kind else "sleep"
        target = f"/run?{urlencode({'name': name, 'steps': steps})}"
        for _ in range(20):
            with Client(served.server.port) as client:
                client.request(target)
        until(lambda: served.happened(name).count("begin") == 20)
        began = time.monotonic()
        other = f"/run?{urlencode({'name': served.new(), 'steps': 'one'})}"
        if "gevent" not in kind:
            # On native threads a generator that waits cannot be interrupted.
            until(lambda: time.monotonic() - began > ARRIVAL + 2)
            served.open(name)
        until(lambda: status(served, other) == 200)
        assert time.monotonic() - began < 3 * ARRIVAL
        until(lambda: served.happened(name).count("closed") == 20)


def status(served: Generators, target: str) -> int:
    with Client(served.server.port) as client:
        client.request(target)
        return client.status
