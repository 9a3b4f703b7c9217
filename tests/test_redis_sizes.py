"""The bound in bytes of all that a Redis keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from flask_sse_lite.brokers import Broker, connect
from flask_sse_lite.brokers.redis import RedisStore, scripts
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.publisher import Publisher
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import publish

from .redis_servers import RedisServer, redis_server

#: Bytes of all that is kept in these tests.
LIMIT = 200_000

#: An event's data.
LARGE = "x" * 2_000

#: More events than a test publishes, so that only their bytes are too many.
MANY = 10_000


def opened(server: RedisServer) -> Broker:
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
    broker = opened(server)
    with caplog.at_level(logging.WARNING, "flask_sse_lite"):
        publish(broker, "a", *[LARGE] * 300)
        broker.close()
    told = [r.getMessage() for r in caplog.records if "MEMORY USAGE" in r.getMessage()]
    assert len(told) == 1
    assert server.ask("XLEN", "sse:channel:a") == 300


def test_publishers_that_close_at_once_keep_it(server: RedisServer) -> None:
    broker = opened(server)
    publish(broker, "a", "the limit is noted")
    broker.close()
    for _ in range(300):
        with Publisher.from_url(server.url) as publisher:
            publisher.publish(LARGE, channel="a")
    assert server.ask("MEMORY", "USAGE", "sse:channel:a") <= LIMIT * 1.1


def test_who_weighs_for_long_remains_the_only_one(server: RedisServer) -> None:
    broker = opened(server)
    assert isinstance(broker, SharedBroker)
    store = broker.store
    assert isinstance(store, RedisStore)
    publish(broker, "a", "1")
    for script, own in ((scripts.sizes, ()), (scripts.shed, (1, "a"))):
        server.ask("HSET", "sse:store", "weighing", "1")
        store._ask_for(script, ["a"], own)
        assert int(server.ask("HGET", "sse:store", "weighing")) > 1
    broker.close()
