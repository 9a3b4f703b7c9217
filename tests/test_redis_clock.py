"""A Redis whose clock is set: runs go on, and lost runs are told of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_lite.brokers import connect
from flask_sse_lite.brokers.redis import scripts
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.settings import Settings

from .redis_servers import RedisServer, redis_server
from .servers import until
from .test_brokers import begun, hasty, reader_of_run, say

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
