"""The store's life: the store is away, loses everything, or outlives its processes; and
processes fork."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ...errors import BrokerUnavailable
from .harness import PATIENCE, Reader, StoreUnderTest, publish, sequences, until

# The store's life


def test_history_outlives_those_who_made_it(shared: StoreUnderTest) -> None:
    broker = shared.open()
    ids = publish(broker, "a", "1", "2")
    broker.end("b")
    broker.close()
    later = shared.open()
    assert sequences([later.position()]) == [sequences(ids)[1] + 1]
    assert Reader(later, "a", since=ids[0]).take(1) == ["2"]
    (next_id,) = publish(later, "a", "3")
    assert sequences([next_id]) == [sequences(ids)[1] + 2]


def test_readers_get_a_gap_when_the_store_loses_everything(
    shared: StoreUnderTest,
) -> None:
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
    shared: StoreUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flask_sse_lite")
    broker, other = (shared.open(SSE_BROKER_TIMEOUT=PATIENCE / 10) for _ in range(2))
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
    # A reader that comes back to a channel which this process has loaded is served.
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


def test_a_closed_broker_refuses_and_its_log_stays_readable(
    shared: StoreUnderTest,
) -> None:
    broker = shared.open()
    reader = Reader(broker, "a")
    publish(broker, "a", "1")
    reader.until(lambda: reader.events)
    broker.close()
    broker.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        publish(broker, "a", "2")
    assert reader.take(1) == ["1"]


def test_a_broker_that_was_not_used_is_closed(store: StoreUnderTest) -> None:
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
    # A child can hang even inside of ``fork``.
    killing = threading.Timer(PATIENCE, os.kill, (pid, signal.SIGKILL))
    killing.start()
    with open(readable) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    killing.cancel()
    killing.join()
    assert answer, "The child failed."
    return json.loads(answer)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_publishes_and_listens(shared: StoreUnderTest) -> None:
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
def test_forks_in_the_middle_of_publishing_disturb_nobody(
    shared: StoreUnderTest,
) -> None:
    broker = shared.open(SSE_HISTORY=1_000_000)  # Nobody reads meanwhile.
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
