"""The connections of one process to its Redis: how many there are, and what becomes of
one that fails."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest
import redis

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers.deadline import Deadline, OutOfTime
from flask_sse_lite.brokers.redis import RedisStore, connect
from flask_sse_lite.brokers.redis.links import Link
from flask_sse_lite.brokers.redis.lives import Lives
from flask_sse_lite.brokers.redis.pool import MAX_LINKS, Pool
from flask_sse_lite.position import RUN_PREFIX
from flask_sse_lite.settings import Settings

from .redis_servers import RedisServer, redis_server
from .servers import HOST, PATIENCE, reserved_port


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    store = connect(Settings.read({"SSE_URL": server.url}), None)
    yield store
    store.closing.set()
    store.close()


@pytest.fixture
def pool(store: RedisStore) -> Pool:
    return store._pool


def test_a_connection_is_used_again(pool: Pool) -> None:
    with pool.link() as first:
        assert first.call("PING") == b"PONG"
    with pool.link() as second:
        assert second is first


def test_a_connection_whose_servers_life_cannot_be_told_is_closed(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = []

    def fail(lives: Lives, link: Link) -> None:
        links.append(link)
        raise redis.TimeoutError("INFO is not answered")

    monkeypatch.setattr(Lives, "recognize", fail)
    with pytest.raises(BrokerUnavailable, match="INFO is not answered"), pool.link():
        pass
    (link,) = links
    assert link.is_closed
    assert not pool._links
    assert not pool._idle


@pytest.mark.parametrize("fault", [redis.ConnectionError("cut"), KeyError("ours")])
def test_a_connection_whose_use_failed_is_closed(pool: Pool, fault: Exception) -> None:
    with pytest.raises((BrokerUnavailable, KeyError)), pool.link() as link:
        raise fault
    assert link.is_closed
    assert not pool._links


def test_a_connection_with_an_answer_is_kept_though_the_answer_is_an_error(
    pool: Pool,
) -> None:
    with pytest.raises(BrokerUnavailable, match="unknown command"), pool.link() as link:
        link.call("NONSENSE")
    assert not link.is_closed
    with pool.link() as again:
        assert again is link


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "x", "1"),
        ("EVAL", "return redis.call('SET', KEYS[1], 1)", "1", "x"),
    ],
    ids=lambda command: command[0],
)
def test_a_server_that_is_a_replica_now_is_left(
    pool: Pool, server: RedisServer, command: tuple[str, ...]
) -> None:
    with pool.link() as link:
        assert link.call("PING") == b"PONG"
    with reserved_port() as nobodys:
        server.ask("REPLICAOF", HOST, nobodys)
        with pytest.raises(BrokerUnavailable), pool.link() as again:
            again.call(*command)
    assert again is link
    assert link.is_closed
    assert not pool._links


def test_a_replica_that_says_so_in_the_words_of_redis_6_is_left(pool: Pool) -> None:
    said = "Error running script: -READONLY You can't write against a read only replica"
    with pytest.raises(BrokerUnavailable), pool.link() as link:
        raise redis.ResponseError(said)
    assert link.is_closed


def test_a_connection_that_the_server_has_closed_is_not_used(
    pool: Pool, server: RedisServer
) -> None:
    with pool.link() as link:
        pass
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pool.link() as another:
        assert another is not link
        assert another.call("PING") == b"PONG"
    assert pool._links == {another}


def test_who_gets_no_connection_in_time_has_waited_for_others_and_not_for_redis(
    pool: Pool, store: RedisStore
) -> None:
    have_all, is_over = Barrier(MAX_LINKS + 1), Event()

    def hold() -> None:
        with pool.link():
            have_all.wait(PATIENCE)
            assert is_over.wait(PATIENCE)

    with ThreadPoolExecutor(MAX_LINKS) as threads:
        holding = [threads.submit(hold) for _ in range(MAX_LINKS)]
        try:
            have_all.wait(PATIENCE)
            store.timeout = 0.05
            with pytest.raises(OutOfTime, match="too slow"), pool.link():
                pass
        finally:
            is_over.set()
        for one in holding:
            one.result()
    store.timeout = PATIENCE
    with pool.link() as link:
        assert link.call("PING") == b"PONG"


@pytest.mark.parametrize("fault", [AttributeError("recv"), ValueError("closed file")])
def test_redis_pys_own_failure_is_ours_only_while_the_store_closes(
    pool: Pool, store: RedisStore, fault: Exception
) -> None:
    with pytest.raises(type(fault)), pool.translated(Deadline(1.0)):
        raise fault
    store.closing.set()
    with (
        pytest.raises(BrokerUnavailable, match="is closed"),
        pool.translated(Deadline(1.0)),
    ):
        raise fault


def test_no_error_shows_the_name_of_a_run(pool: Pool) -> None:
    secret = f"{RUN_PREFIX}{'s' * 22}"
    with (
        pytest.raises(BrokerUnavailable) as raised,
        pool.translated(Deadline(1.0)),
    ):
        raise redis.ResponseError(f"no such key sse:channel:{secret}")
    assert secret not in str(raised.value)
