"""Whatever a Redis lost, and whatever its user may ask it, clients are told of a
gap."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers.shared import SharedBroker

from .redis_servers import RedisServer, redis_server
from .servers import HOST, until
from .test_brokers import Reader, publish
from .test_redis import Opener, go_back, is_gone, publish_at_last

#: Users, and what each is not allowed besides what is dangerous.
RIGHTS = {
    "all": "+info",
    "no INFO": "-info",
    "neither": "-script",
}


@pytest.fixture
def opened() -> Iterator[Opener]:
    with ExitStack() as stack:
        yield Opener(stack)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def url(server: RedisServer, rights: str) -> str:
    """A URL for a user who has these rights."""
    server.ask(
        *("ACL", "SETUSER", "app", "on", ">geheim", "~sse:*", "&sse:*"),
        *("+@all", "-@dangerous", RIGHTS[rights]),
    )
    return server.url.replace("redis://", "redis://app:geheim@")


def holes(server: RedisServer) -> int:
    """How many ranges of positions were left out."""
    return int(server.ask("HGET", "sse:store", "holes").count(b";"))


@pytest.mark.parametrize("rights", RIGHTS)
def test_a_restart_that_lost_events_is_a_gap_or_the_operator_is_told_that_it_is_not(
    server: RedisServer,
    opened: Opener,
    rights: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = opened(url(server, rights))
    ids = go_back(server, before)
    before.close()
    server.kill()
    server.start()
    after = opened(url(server, rights))
    publish(after, "a", *"abcdefgh")
    is_told = is_gone(Reader(opened(url(server, rights)), "a", since=ids[-1]))
    assert is_told is (rights != "neither")
    told = [text for text in caplog.messages if "INFO" in text]
    # Each of the three processes says it once.
    assert len(told) == (3 if rights == "neither" else 0)
    # A reader that lost nothing goes on without a gap.
    again = opened(url(server, rights))
    assert Reader(again, "a", since=ids[2]).take(8) == [*"abcdefgh"]


def test_a_replica_that_lagged_is_a_gap_without_info(
    server: RedisServer, opened: Opener
) -> None:
    server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with redis_server("--replicaof", HOST, str(server.port)) as replica:
        until(lambda: replica.ask("INFO").get("master_link_status") == "up")
        before = opened(url(server, "no INFO"))
        publish(before, "a", "1")
        until(lambda: replica.ask("XLEN", "sse:channel:a") == 1)
        replica.ask("REPLICAOF", "NO", "ONE")
        lost = publish(before, "a", "2", "3")[-1]
        before.close()
        after = opened(url(replica, "no INFO"))
        publish(after, "a", *"abcdefgh")
        assert is_gone(Reader(after, "a", since=lost))


@pytest.mark.parametrize("rights", [("no INFO", "no INFO"), ("all", "no INFO")])
def test_processes_agree_on_the_life_of_their_server(
    server: RedisServer, opened: Opener, rights: tuple[str, str]
) -> None:
    kept = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_server(*kept) as server:
        brokers = [opened(url(server, each)) for each in rights]
        for restart in range(3):
            for _ in range(3):
                for broker in brokers:
                    publish(broker, "a", "x")
            assert holes(server) <= restart * len(set(rights))
            server.kill()
            server.start()
            brokers = [opened(url(server, each)) for each in rights]


def test_scripts_that_were_flushed_lose_nothing(
    server: RedisServer, opened: Opener
) -> None:
    there = url(server, "no INFO")
    broker = opened(there)
    reader = Reader(opened(there), "a")
    ids = publish(broker, "a", "1", "2")
    server.ask("SCRIPT", "FLUSH")
    publish(broker, "a", "3")
    assert holes(server) == 1
    publish(opened(there), "a", "4")
    assert holes(server) == 1
    assert reader.take(4) == [*"1234"]
    assert Reader(opened(there), "a", since=ids[0]).take(3) == [*"234"]


# Keys that go back while the server lives


@pytest.mark.parametrize("key", ["store", "channels", "channel:a", "all"])
def test_a_key_that_goes_back_is_a_gap_and_no_position_is_used_twice(
    server: RedisServer, opened: Opener, key: str
) -> None:
    keys = ["store", "channels", "channel:a"] if key == "all" else [key]
    if key == "all":
        keys.remove("channel:a")  # If all went back, nothing would show it.
    before = opened(server.url)
    ids = publish(before, "a", "1", "2")
    dumps = {name: server.ask("DUMP", f"sse:{name}") for name in keys}
    ids += publish(before, "a", "3", "4", "5")
    before.close()
    for name, dump in dumps.items():
        server.ask("RESTORE", f"sse:{name}", 0, dump, "REPLACE")
    after = opened(server.url)
    ids += publish(after, "a", *"abcdefgh")
    assert len({*ids}) == len(ids)
    for since in ids[:5]:
        for broker in (after, opened(server.url)):
            late = Reader(broker, "a", since=since)
            late.until(lambda late=late: "h" in late.data)  # type: ignore[misc]
            missed = [*"12345abcdefgh"][ids.index(since) + 1 :]
            is_told = any(event.type == "stream-gap" for event in late.events)
            assert late.gaps or is_told or late.data == missed, since


def test_who_listens_while_a_key_goes_back_is_told(
    server: RedisServer, opened: Opener
) -> None:
    publisher = opened(server.url)
    reader = Reader(opened(server.url), "a")
    publish(publisher, "a", "1", "2")
    dump = server.ask("DUMP", "sse:store")
    publish(publisher, "a", "3")
    server.ask("RESTORE", "sse:store", 0, dump, "REPLACE")
    publish(opened(server.url), "a", "4")
    reader.until(lambda: "4" in reader.data)
    assert [text for text in reader.data if text == "4"] == ["4"]


def test_what_was_taken_out_of_a_channel_is_a_gap_where_it_stood(
    server: RedisServer, opened: Opener
) -> None:
    broker = opened(server.url)
    ids = publish(broker, "a", *"1234")
    third = ids[2].partition("-")[2]
    assert server.ask("XDEL", "sse:channel:a", f"{third}-0") == 1
    late = Reader(opened(server.url), "a", since=ids[0])
    late.until(lambda: "4" in late.data)
    assert [e.data for e in late.events if e.type is None] == ["2", "4"]
    assert [e.id for e in late.events if e.type == "stream-gap"] == [ids[2]]


# What a full Redis deletes


def connected(server: RedisServer, opened: Opener, rights: str) -> SharedBroker:
    broker = opened(url(server, rights))
    broker.position()
    broker.position()
    return broker


@pytest.mark.parametrize("rights", ["all", "no INFO"])
@pytest.mark.parametrize(
    "policy", ["noeviction", "volatile-lru", "volatile-ttl", "allkeys-lfu"]
)
def test_a_policy_under_which_events_are_deleted_is_told_at_the_first_connection(
    server: RedisServer,
    opened: Opener,
    policy: str,
    rights: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_lite")
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    connected(server, opened, rights)
    told = [(r.levelno, r.getMessage()) for r in caplog.records]
    told = [(level, text) for level, text in told if "maxmemory-policy" in text]
    if rights == "no INFO":
        assert [level for level, _ in told] == [logging.DEBUG]
    elif policy == "noeviction":
        assert not told
    else:
        ((level, text),) = told
        assert level == logging.WARNING
        assert policy in text
        assert "noeviction" in text


def test_a_policy_that_only_config_tells_is_told(
    server: RedisServer, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    there = url(server, "no INFO")
    server.ask("ACL", "SETUSER", "app", "+config|get")
    publish(opened(there), "a", "x")
    assert any("volatile-lru" in text for text in caplog.messages)


def test_a_full_redis_that_deletes_nothing_refuses_what_is_published(
    server: RedisServer, opened: Opener
) -> None:
    broker = opened(server.url)
    reader = Reader(opened(server.url), "a")
    publish(broker, "a", "1")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BrokerUnavailable, match="maxmemory"):
        publish(broker, "a", "2")
    server.ask("CONFIG", "SET", "maxmemory", "0")
    publish(broker, "a", "3")
    assert reader.take(2) == ["1", "3"]


# What is kept under which persistence: the table of docs/several-processes.rst


#: How a Redis keeps events, and how many of six are left after it was killed. Three of
#: them were in its last snapshot, or had reached the disk when the power was lost.
KEPT = {
    "none": ((), 0),
    "snapshots": ((), 3),
    "AOF each second": (("--appendonly", "yes", "--appendfsync", "everysec"), 6),
    "AOF always": (("--appendonly", "yes", "--appendfsync", "always"), 6),
    "AOF each second, no power": (("--appendonly", "yes"), 3),
}


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("persistence", KEPT)
def test_what_is_kept_and_who_is_told_of_what_is_not(
    opened: Opener, persistence: str, is_known: bool
) -> None:
    options, kept = KEPT[persistence]
    with redis_server(*options) as server:
        publisher = opened(server.url)
        ids = publish(publisher, "a", *"123")
        until(lambda: server.has_written)
        size = sum(file.stat().st_size for file in server.incremental_files())
        if persistence == "snapshots":
            server.ask("SAVE")
        ids += publish(publisher, "a", *"456")
        until(lambda: server.has_written)
        server.kill()
        if persistence.endswith("no power"):
            (file,) = server.incremental_files()
            os.truncate(file, size)
        server.start()
        if is_known:
            # The publisher still knows of the newest of them.
            publish_at_last(publisher, "a", "new")
        else:
            publisher.close()
            publish(opened(server.url), "a", "new")
        got_all, got_three = (
            Reader(opened(server.url), "a", since=id) for id in (ids[5], ids[2])
        )
        late = Reader(opened(server.url), "a", last=9)
        assert late.take(kept + 1) == [*"123456"[:kept], "new"]
        assert is_gone(got_all) is (kept < 6)
        # Then no process is left that knows what this reader has missed.
        is_untold = kept == 3 and not is_known
        assert is_gone(got_three) is (kept < 6 and not is_untold)
