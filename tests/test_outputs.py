"""The kept output of all runs together has a bound. What is dropped is told: as a gap
where a run goes on, and as 404 where nothing of it is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from flask_sse_lite import SSE, Event
from flask_sse_lite.brokers import Broker
from flask_sse_lite.history.cursor import Cursor
from flask_sse_lite.history.fed import FedLog
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.outputs import Outputs
from flask_sse_lite.history.retention import HISTORY_BYTES, RUNS_BYTES
from flask_sse_lite.position import RUN_PREFIX, position_id
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing import read_events
from flask_sse_lite.testing.broker_suite import (
    Reader,
    StoreUnderTest,
    begun,
    publish,
    reader_of_run,
    say,
)

from .batches import data_of, lost_in
from .servers import PATIENCE, until
from .stores import shared

__all__ = ["shared"]

ALL = 1 << 30

#: Bytes of an event's data, and of what is kept of all runs: some thirty events.
LARGE = 1_000
LIMIT = 32_000


@pytest.fixture
def log() -> Log:
    return Log(history=4, age=1000, runs_bytes=LIMIT)


def channel(number: int) -> str:
    return f"{RUN_PREFIX}{number:022}"


def run(log: Log, number: int, events: int, *, is_over: bool = True) -> int:
    """A run in a channel of its own. Its events are numbered from 0.

    :returns: where it began.
    """
    name = channel(number)
    start = log.hold(name, ALL)
    assert start is not None
    for text in range(events):
        log.say(name, start, Event(f"{text} {'x' * LARGE}"))
    if is_over:
        log.end_run(name, start)
    return start


def cursor(log: Log, number: int, start: int) -> Cursor:
    """The cursor with which a reader of a run begins."""
    name = channel(number)
    return log.cursor((name,), position_id(log.epoch, start, name))


def kept(log: Log, *numbers: int) -> list[bool]:
    return [log.remembers(channel(number)) for number in numbers]


def test_what_is_held_is_counted_and_the_least_read_goes_first() -> None:
    outputs = Outputs(100)
    assert outputs.excess == -100
    for name, size in (("a", 60), ("b", 50), ("c", 40)):
        outputs.note(name, size)
    assert outputs.excess == 50
    outputs.note("a", 20)
    assert outputs.excess == 10
    assert outputs.next_to_go == "a"
    outputs.note_read("a")
    outputs.note_read("unknown")
    assert outputs.next_to_go == "b"
    outputs.note("b", 0)
    outputs.note("unknown", 0)
    assert outputs.excess == -40
    outputs.note("b", 1)
    assert outputs.next_to_go == "c"
    outputs.clear()
    assert outputs.excess == -100
    outputs.note("d", 1)
    assert (outputs.excess, outputs.next_to_go) == (-99, "d")


def test_what_was_read_longest_ago_is_dropped_first(log: Log) -> None:
    starts = [run(log, number, 10) for number in range(3)]
    assert kept(log, 0, 1, 2) == [True, True, True]
    log.read(cursor(log, 0, starts[0]), ALL)
    run(log, 3, 10)
    assert kept(log, 0, 1, 2, 3) == [True, False, True, True]
    run(log, 4, 10)
    assert kept(log, 0, 1, 2, 3, 4) == [True, False, False, True, True]


def test_as_much_is_kept_as_may_be(log: Log) -> None:
    starts = [run(log, number, 10) for number in range(10)]
    batches = [log.read(cursor(log, n, s), ALL) for n, s in enumerate(starts)]
    sizes = [sum(entry.size for entry in batch.entries) for batch in batches]
    assert LIMIT - 2 * LARGE < sum(sizes) <= LIMIT


def test_of_one_that_is_dropped_in_part_the_rest_is_told_behind_a_gap(
    log: Log,
) -> None:
    start = run(log, 0, 20)
    run(log, 1, 20)
    batch = log.read(cursor(log, 0, start), ALL)
    assert lost_in(batch) == [channel(0)]
    numbers = [int(data.split()[0]) for data in data_of(batch)]
    assert numbers == list(range(20 - len(numbers), 20))
    assert numbers
    assert batch.ended


def test_a_run_that_goes_on_is_told_as_a_gap_and_goes_on(log: Log) -> None:
    start = run(log, 0, 10, is_over=False)
    run(log, 1, 40)
    assert kept(log, 0) == [True]
    place = cursor(log, 0, start)
    batch = log.read(place, ALL)
    assert lost_in(batch) == [channel(0)]
    assert data_of(batch) == []
    assert log.say(channel(0), start, Event("more"))
    assert data_of(log.read(place, ALL)) == ["more"]
    log.end_run(channel(0), start)
    assert log.read(place, ALL).ended


def test_who_still_reads_one_that_is_over_comes_to_its_end(log: Log) -> None:
    start = run(log, 0, 10, is_over=False)
    place, news = cursor(log, 0, start), threading.Event()
    log.watch([channel(0)], news.set)
    log.end_run(channel(0), start)
    run(log, 1, 40)
    batch = log.read(place, ALL)
    assert lost_in(batch) == [channel(0)]
    assert batch.ended
    log.unwatch([channel(0)], news.set)


def test_events_that_no_run_said_are_neither_counted_nor_dropped(log: Log) -> None:
    run(log, 0, 20)
    for number in range(40):
        log.append(f"channel {number}", Event("y" * LARGE))
    assert kept(log, 0) == [True]
    run(log, 1, 40)
    assert log.remembers("channel 39")


def test_what_grew_too_old_makes_room() -> None:
    now = 0.0
    log = Log(history=4, age=10, runs_bytes=LIMIT, clock=lambda: now)
    run(log, 0, 30)
    now = 11
    assert kept(log, 0) == [False]
    start = run(log, 1, 20)
    now = 20
    run(log, 2, 10)
    assert lost_in(log.read(cursor(log, 1, start), ALL)) == []


def test_a_lower_limit_holds_at_once(log: Log) -> None:
    run(log, 0, 10)
    run(log, 1, 10)
    log.limit(HISTORY_BYTES, runs=11 * (LARGE + 100))
    assert kept(log, 0, 1) == [True, True]
    log.limit(HISTORY_BYTES, runs=5 * LARGE)
    assert kept(log, 0, 1) == [False, True]


# Over a store


def is_held(broker: Broker, number: int) -> bool:
    """Whether a run's channel is loaded."""
    assert isinstance(broker.log, FedLog)
    return broker.log.holds(channel(number))


def test_what_a_process_drops_of_a_run_that_is_over_its_store_still_has(
    shared: StoreUnderTest,
) -> None:
    broker, other = (shared.open(SSE_RUNS_BYTES=LIMIT) for _ in range(2))
    texts = [f"{n} {'x' * LARGE}" for n in range(10)]
    for number in range(8):
        claim = begun(broker, channel(number))
        say(broker, claim, *texts)
        broker.end_run(claim)
    for there in (broker, other):
        for number in range(8):
            reader = reader_of_run(there, channel(number))
            reader.until(lambda reader=reader: reader.has_ended)  # type: ignore[misc]
            assert reader.data == texts
            assert not reader.gaps
        held = [channel(n) for n in range(8) if is_held(there, n)]
        # Runs that are being read are not dropped as a whole.
        assert held


def test_what_a_process_keeps_of_runs_of_a_store_is_bounded(
    shared: StoreUnderTest,
) -> None:
    broker = shared.open(SSE_RUNS_BYTES=LIMIT)
    for number in range(8):
        claim = begun(broker, channel(number))
        say(broker, claim, *(f"{n} {'x' * LARGE}" for n in range(10)))
        broker.end_run(claim)
    reader = Reader(broker, "other")
    publish(broker, "other", "last")
    reader.until(lambda: reader.data)
    held = [number for number in range(8) if is_held(broker, number)]
    assert held == list(range(8 - len(held), 8))
    assert 2 <= len(held) <= 4


# In an application


def test_an_application_s_runs_are_bounded_and_what_is_gone_is_404(
    app: Flask, sse: SSE
) -> None:
    app.config["SSE_RUNS_BYTES"] = LIMIT
    gate = threading.Event()

    @app.get("/run/<int:events>")
    def view(events: int) -> Any:
        def answer() -> Iterator[str]:
            for number in range(events):
                yield f"{number} {'x' * LARGE}"

        return sse.run(answer())

    @app.get("/slow")
    def slow() -> Any:
        def answer() -> Iterator[str]:
            yield "x" * LARGE
            assert gate.wait(PATIENCE)
            yield "more"

        return sse.run(answer())

    client = app.test_client()
    slow_one = client.get("/slow")
    going_on = slow_one.headers["Location"]
    read_events(slow_one, count=1)
    first = client.get("/run/10")
    over = first.headers["Location"]
    assert len(read_events(first)) == 11
    read_events(client.get("/run/40"))
    with client.get(over) as response:
        assert response.status_code == 404
    late = client.get(going_on)
    gate.set()
    gap, *rest = read_events(late)
    assert gap.type == "stream-gap"
    assert [event.data for event in rest] == ["more", ""]
    until(lambda: len(app.extensions["sse"].runs) == 0)


def test_no_run_keeps_more_than_all_may(app: Flask, sse: SSE) -> None:
    app.config |= {"SSE_RUN_BYTES": 100 * LARGE, "SSE_RUNS_BYTES": 10 * LARGE}
    app.add_url_rule("/run", view_func=lambda: sse.run("x" * LARGE for _ in range(500)))
    events = read_events(app.test_client().get("/run"), timeout=PATIENCE)
    assert [event.type for event in events if event.type] == ["stream-end"]
    assert len(events) == 501


def test_the_bound_is_64_mib_where_nothing_is_said() -> None:
    assert Settings.read({}).runs_bytes == RUNS_BYTES == 64 * 1024 * 1024
