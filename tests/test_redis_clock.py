"""A Redis whose clock is set: runs go on, lost runs are told of, nothing that is young
is dropped unless the clock says that it is old, and it is known who is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_lite.brokers import Broker, connect
from flask_sse_lite.brokers.redis import scripts
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import (
    Reader,
    begun,
    hasty,
    publish,
    reader_of_run,
    say,
)
from flask_sse_lite.testing.broker_suite.presence import TOLD, Process

from .redis_servers import RedisServer, redis_server
from .servers import PATIENCE, until

__all__ = ["hasty"]

#: Seconds by which the clock is set: many leases, but less than the time for which
#: Redis keeps keys.
STEPS = [-3600, -20, 20, 120]

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(autouse=True)
def scripts_see_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts add a key's value to the time. Redis's own clock cannot be set:
    libfaketime does not work with its allocator."""
    real = "local time = redis.call('TIME')\n"
    added = "time[1] = time[1] + tonumber(redis.call('GET', 'clock') or 0)\n"
    for name, script in list(vars(scripts).items()):
        if isinstance(script, scripts.Script):
            assert real in script.text
            text = script.text.replace(real, real + added)
            monkeypatch.setattr(scripts, name, scripts.Script(text))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def brokers(server: RedisServer) -> Iterator[list[SharedBroker]]:
    settings = Settings.read({"SSE_URL": server.url})
    made = [connect(settings) for _ in range(2)]
    yield [broker for broker in made if isinstance(broker, SharedBroker)]
    for broker in made:
        broker.close()


def wait_for_looks(brokers: list[SharedBroker]) -> None:
    """Wait until each broker has looked after runs twice."""
    for broker in brokers * 2:
        due = broker._duties.due_at
        until(lambda broker=broker, due=due: broker._duties.due_at > due)  # type: ignore[misc]


@pytest.mark.parametrize("seconds", STEPS)
def test_a_run_goes_on(
    server: RedisServer, brokers: list[SharedBroker], seconds: int
) -> None:
    one, other = brokers
    claim = begun(one, "job")
    reader = reader_of_run(other, "job")
    say(one, claim, "before")
    wait_for_looks(brokers)
    server.ask("SET", "clock", seconds)
    wait_for_looks(brokers)
    assert say(one, claim, "behind")
    one.end_run(claim)
    reader.until(lambda: reader.has_ended)
    assert reader.data == ["before", "behind"]


@pytest.mark.parametrize("seconds", STEPS)
def test_a_run_that_is_lost_is_told_of(
    server: RedisServer, brokers: list[SharedBroker], seconds: int
) -> None:
    one, other = brokers
    begun(one, "job")
    reader = reader_of_run(other, "job")
    wait_for_looks(brokers)
    one.close()  # This ends whatever extends the lease.
    server.ask("SET", "clock", seconds)
    reader.until(lambda: reader.has_ended)
    assert [event.json for event in reader.events] == [{"reason": "lost"}]


# What is kept


#: Seconds for which events are kept, and by which the clock is set.
AGE = 300
HOUR = 3600


@pytest.fixture
def keeper(server: RedisServer) -> Iterator[Broker]:
    """A broker that only publishes."""
    # Redis drops whole blocks of entries: here each entry is one.
    server.ask("CONFIG", "SET", "stream-node-max-entries", 1)
    settings = Settings.read({"SSE_URL": server.url, "SSE_HISTORY_AGE": AGE})
    broker = connect(settings)
    yield broker
    broker.close()


def newcomer(server: RedisServer, since: str = "") -> Reader:
    """What a process has that comes now: all that is kept, or what is behind an id."""
    broker = connect(Settings.of_guest(server.url, timeout=PATIENCE))
    try:
        reader = Reader(broker, "a", since=since, last=0 if since else 1000)
        reader.read()
        return reader
    finally:
        broker.close()


def stand(server: RedisServer) -> int:
    """How many entries Redis has."""
    return int(server.ask("XLEN", "sse:channel:a"))


def test_nothing_young_is_dropped_when_the_clock_goes_back(
    server: RedisServer, keeper: Broker
) -> None:
    first, *_ = publish(keeper, "a", "1", "2")
    server.ask("SET", "clock", -HOUR)
    publish(keeper, "a", "3", "4")
    assert newcomer(server).data == ["1", "2", "3", "4"]
    resumed = newcomer(server, first)
    assert (resumed.data, resumed.gaps) == (["2", "3", "4"], [])
    # Time goes on, and they grow older, but not too old.
    server.ask("SET", "clock", AGE // 2 - HOUR)
    publish(keeper, "a", "5")
    assert newcomer(server).data == ["1", "2", "3", "4", "5"]


def test_what_is_dated_ahead_is_dropped_as_late_as_what_came_behind_it(
    server: RedisServer, keeper: Broker
) -> None:
    first, *_ = publish(keeper, "a", "1", "2")
    server.ask("SET", "clock", -HOUR)
    publish(keeper, "a", "3")
    server.ask("SET", "clock", AGE // 2 - HOUR)
    publish(keeper, "a", "4")
    server.ask("SET", "clock", AGE * 5 // 4 - HOUR)
    publish(keeper, "a", "5")
    assert newcomer(server).data == ["4", "5"]
    assert stand(server) <= 3
    assert newcomer(server, first).gaps


def test_when_the_clock_goes_ahead_what_is_kept_is_old_and_what_comes_is_not(
    server: RedisServer, keeper: Broker, brokers: list[SharedBroker]
) -> None:
    """Redis's own keys expire by that clock too. Who listens misses nothing, and who
    comes back is told."""
    listener = Reader(brokers[0], "a")
    first, *_ = publish(keeper, "a", "1", "2")
    assert listener.take(2) == ["1", "2"]
    server.ask("SET", "clock", HOUR)
    publish(keeper, "a", "3", "4")
    assert listener.take(2) == ["3", "4"]
    assert newcomer(server).data == ["3", "4"]
    resumed = newcomer(server, first)
    assert (resumed.data, len(resumed.gaps)) == (["3", "4"], 1)
    # It is set right.
    server.ask("SET", "clock", 0)
    last, *_ = publish(keeper, "a", "5")
    assert newcomer(server).data[-3:] == ["3", "4", "5"]
    assert listener.take(1) == ["5"]
    assert newcomer(server, last).gaps == []


# Who is there


#: The clock is set once, or is set right again.
WAYS = [(-HOUR,), (HOUR,), (-HOUR, 0), (HOUR, 0)]


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_it_is_known_again_how_many_are_there_and_who(
    server: RedisServer, brokers: list[SharedBroker], way: tuple[int, ...]
) -> None:
    one, other = (Process(broker, "a", since="") for broker in brokers)
    one.who, other.who = {"a": {"ann": 1}}, {"a": {"ann": 1, "bob": 1}}

    def is_known(one: Process) -> bool:
        return one.broker.subscribers("a") == 2 and one.broker.present("a") == {
            "ann": 2,
            "bob": 1,
        }

    until(lambda: is_known(one) and is_known(other))
    for seconds in way:
        server.ask("SET", "clock", seconds)
        wait_for_looks(brokers)
        until(lambda: is_known(one) and is_known(other))
    other.broker.close()
    until(lambda: one.broker.subscribers("a") == 1)
    until(lambda: one.broker.present("a") == {"ann": 1})


@pytest.mark.parametrize("way", [(-HOUR, 0), (HOUR, 0)], ids=repr)
def test_who_is_there_is_told_to_be_there_at_last(
    server: RedisServer, way: tuple[int, ...]
) -> None:
    """Nobody knows for how long nobody has looked, so that all can be told to have
    left. Then they are told to have come again."""
    settings = Settings.read({"SSE_URL": server.url, **TOLD})
    brokers = [connect(settings) for _ in range(2)]
    one, other = (Process(broker, "room.7", since="") for broker in brokers)
    one.who, other.who = {"room.7": {"ann": 1}}, {"room.7": {"bob": 1}}
    until(lambda: one.there() == ["ann", "bob"])
    shared = [broker for broker in brokers if isinstance(broker, SharedBroker)]
    for seconds in way:
        server.ask("SET", "clock", seconds)
        wait_for_looks(shared)
        until(lambda: one.there() == ["ann", "bob"])
        until(lambda: one.broker.present("room.7") == {"ann": 1, "bob": 1})
    other.who = {}
    until(lambda: one.there() == ["ann"])
    for broker in brokers:
        broker.close()


def test_when_the_clock_goes_back_another_tells_it_if_the_teller_dies(
    server: RedisServer,
) -> None:
    settings = Settings.read({"SSE_URL": server.url, **TOLD})
    brokers = [connect(settings) for _ in range(2)]
    shared = [broker for broker in brokers if isinstance(broker, SharedBroker)]
    processes = {
        broker.store.view.process: Process(broker, "room.7", since="")
        for broker in shared
    }
    for name, process in processes.items():
        process.who = {"room.7": {name: 1}}
    first = next(iter(processes.values()))
    until(lambda: first.there() == sorted(processes))
    server.ask("SET", "clock", -HOUR)
    wait_for_looks(shared)
    teller = server.ask("HGET", "sse:turn", "process").decode()
    processes.pop(teller).broker.close()
    ((name, left),) = processes.items()
    until(lambda: left.there() == [name])
    left.broker.close()
