"""A reader that comes back gets what it missed, in order, or is told of a gap."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from flask_sse_lite import Event
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.event import HEARTBEAT
from flask_sse_lite.history.channel import Channel
from flask_sse_lite.history.cursor import Cursor, Entry
from flask_sse_lite.history.fed import FedLog
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.records import Past, Record, unreadable
from flask_sse_lite.history.retention import MAX_IDLE_CHANNELS, MAX_QUIET_CHANNELS
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.hub.frames import BATCH_BYTES, frames
from flask_sse_lite.hub.subscription import Subscription
from flask_sse_lite.settings import Settings

from . import IS_LONG
from .batches import data_of, lost_in
from .clocks import Clock
from .interruption import EACH_STEP, Interruption
from .patience import patient
from .servers import until

ROOT = Path(__file__).parents[1]

#: More bytes than any test's events have.
ALL = 1 << 30

EPOCH = "0123456789abcdef"

#: How many channels a log may remember in the tests that count memory.
FEW = 2048

#: Seconds after which a thread counts as hanging.
TOO_LONG = 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Log:
    """A log of four events per channel, kept for ten seconds."""
    return Log(history=4, age=10, epoch=EPOCH, clock=clock)


def publish(log: Log, channel: str, *data: str) -> None:
    for text in data:
        log.append(channel, Event(text))


def read(log: Log, cursor: Cursor, limit: int = ALL) -> list[str]:
    """The data of what a cursor reads; the test fails at a gap or an end."""
    batch = log.read(cursor, limit)
    assert batch.gap is None
    assert not batch.ended
    return data_of(batch)


#: The times at which the hub looks at its streams, so far apart that every stream
#: counts as idle.
LOOKS = itertools.count(time.monotonic() + 1e6, 1e6)


def next_piece(stream: Subscription) -> bytes | None:
    """What a stream sends next: events, if there are any, or else a heartbeat, as if
    the hub had seen it silent for long; None at its end."""
    if stream._iterated:
        stream._iterated.tick(next(LOOKS))
        stream._iterated.tick(next(LOOKS))
    # A stream that waits all the same is ended, so that the test fails and does not
    # hang.
    hanging = threading.Timer(TOO_LONG, stream.close)
    hanging.daemon = True
    hanging.start()
    try:
        return next(stream, None)
    finally:
        hanging.cancel()
        hanging.join()


def start_all(functions: Iterable[Callable[[], object]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call, daemon=True) for call in functions]
    for thread in threads:
        thread.start()
    return threads


def join_all(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.join(TOO_LONG)
        assert not thread.is_alive(), "It hangs."


# Positions


def test_the_sequence_counts_the_events_of_all_channels(log: Log) -> None:
    assert (log.sequence, log.position()) == (0, f"{EPOCH}-0")
    ids = [log.append(channel, Event("")).id for channel in "aba"]
    assert ids == [f"{EPOCH}-{n}" for n in (1, 2, 3)]
    assert (log.sequence, log.position()) == (3, f"{EPOCH}-3")
    assert log.position(2) == f"{EPOCH}-2"


def test_every_log_has_an_epoch_of_its_own() -> None:
    epochs = {Log(history=1, age=1).epoch for _ in range(50)}
    assert len(epochs) == 50
    assert all(re.fullmatch("[0-9a-f]{16}", epoch) for epoch in epochs)


def test_what_is_appended_is_returned_as_it_stands_there(log: Log) -> None:
    event = Event("data", "type", retry=5)
    appended = log.append("a", event)
    assert appended == Event("data", "type", f"{EPOCH}-1", 5, channel="a")
    batch = log.read(log.cursor(["a"], log.position(0)), ALL)
    assert batch.entries[0].event is appended
    assert event.id is None


def test_readers_share_one_frame(log: Log) -> None:
    cursors = [log.cursor(["a"]) for _ in range(3)]
    appended = log.append("a", Event("x"))
    for cursor in cursors:
        (entry,) = log.read(cursor, ALL).entries
        assert entry.event is appended


# Reading and resuming


def test_a_newcomer_gets_what_comes_after_it(log: Log) -> None:
    publish(log, "a", "1")
    cursor = log.cursor(["a"])
    assert read(log, cursor) == []
    publish(log, "a", "2", "3")
    publish(log, "b", "no")
    assert read(log, cursor) == ["2", "3"]
    assert read(log, cursor) == []


def test_a_reader_resumes_behind_the_id_that_it_saw(log: Log) -> None:
    ids = [log.append("a", Event(str(n))).id for n in range(4)]
    for n, id in enumerate(ids):
        cursor = log.cursor(["a"], id or "")
        assert cursor.since == id
        assert read(log, cursor) == [str(m) for m in range(n + 1, 4)]
        assert cursor.since == ""


def test_a_channel_that_is_named_twice_is_read_once(log: Log) -> None:
    cursor = log.cursor(["a", "b", "a"])
    assert cursor.channels == ("a", "b")
    publish(log, "a", "1")
    assert read(log, cursor) == ["1"]


def test_several_channels_are_merged_in_the_order_of_publishing(log: Log) -> None:
    cursor = log.cursor(["b", "a", "c"])
    for n, channel in enumerate("abcbxaab"):
        publish(log, channel, f"{n}{channel}")
    assert read(log, cursor) == ["0a", "1b", "2c", "3b", "5a", "6a", "7b"]


def test_reading_in_pieces_gives_the_same_as_reading_at_once(log: Log) -> None:
    cursors = [log.cursor(["a", "b"]) for _ in range(2)]
    for n, channel in enumerate("abbaba"):
        publish(log, channel, str(n))
    pieces = [log.read(cursors[0], 1) for _ in range(7)]
    assert ["".join(data_of(piece)) for piece in pieces] == [*"012345", ""]
    assert [piece.more for piece in pieces] == [True] * 5 + [False] * 2
    assert read(log, cursors[1]) == ["0", "1", "2", "3", "4", "5"]


def test_a_piece_ends_with_the_event_that_reaches_the_limit(log: Log) -> None:
    size = len(log.append("a", Event("0")).encode())
    publish(log, "a", "1", "2", "3")
    counts = {1: 1, size: 1, size + 1: 2, 2 * size: 2, 3 * size + 1: 4}
    for limit, count in counts.items():
        cursor = log.cursor(["a"], log.position(0))
        assert len(read(log, cursor, limit)) == count
        assert len(read(log, cursor, ALL)) == 4 - count


def test_an_event_larger_than_the_limit_is_read_all_the_same(log: Log) -> None:
    cursor = log.cursor(["a"])
    publish(log, "a", "x" * 1000, "y")
    assert read(log, cursor, 10) == ["x" * 1000]
    assert read(log, cursor, 10) == ["y"]


def test_a_position_stands_for_the_same_in_any_selection_of_channels(log: Log) -> None:
    for n, channel in enumerate("abcabc"):
        publish(log, channel, str(n))
    since = log.position(2)
    assert read(log, log.cursor(["a"], since)) == ["3"]
    assert read(log, log.cursor(["c", "b"], since)) == ["2", "4", "5"]
    assert read(log, log.cursor(["never"], since)) == []


def test_a_copy_of_a_cursor_goes_its_own_way(log: Log) -> None:
    publish(log, "a", "1", "2")
    log.end("b")
    cursor = log.cursor(["a", "b"], last=1)
    copy = cursor.copy()
    assert (copy.since, dict(copy.floors), set(copy.ended)) == (
        "",
        {"a": 1, "b": 3},
        {"b"},
    )
    assert read(log, cursor) == ["2"]
    log.end("a")
    assert log.read(cursor, ALL).ended
    assert (copy.position, set(copy.ended)) == (1, {"b"})
    batch = log.read(copy, ALL)
    assert (data_of(batch), batch.ended) == (["2"], True)


def test_a_copy_of_a_cursor_of_an_unknown_id_is_told_of_it_too(log: Log) -> None:
    cursor = log.cursor(["a"], "unknown")
    copy = cursor.copy()
    for reader in (cursor, copy):
        gap = log.read(reader, ALL).gap
        assert gap is not None
        assert gap.json["since"] == "unknown"


# History


def test_a_reader_is_behind_by_what_it_was_not_given(log: Log) -> None:
    cursor = log.cursor(["a", "b"])
    assert log.behind(cursor) == 0
    for channel in ("a", "b", "other", "a"):
        log.append(channel, Event("x"))
    log.end("b")
    assert log.behind(cursor) == 3
    log.read(cursor, 1)
    assert log.behind(cursor) == 2
    assert log.behind(log.cursor(["b"], last=1)) == 1
    # What is lost does not count.
    for _ in range(9):
        log.append("a", Event("x"))
    assert log.behind(cursor) == 5
    log.read(cursor, ALL)
    assert log.behind(cursor) == 0
    assert log.behind(log.cursor(["a"], "unknown")) == 4


def test_history_is_bounded_by_count_in_each_channel(log: Log) -> None:
    publish(log, "a", *"12345")
    publish(log, "b", *"67")
    since = log.position(0)
    assert data_of(log.read(log.cursor(["a"], since), ALL)) == ["2", "3", "4", "5"]
    assert read(log, log.cursor(["b"], since)) == ["6", "7"]


def test_history_is_bounded_by_age(log: Log, clock: Clock) -> None:
    publish(log, "a", "old")
    clock.now += 6
    publish(log, "a", "new")
    clock.now += 4
    assert read(log, log.cursor(["a"], log.position(0))) == ["old", "new"]
    clock.now += 0.5
    assert data_of(log.read(log.cursor(["a"], log.position(0)), ALL)) == ["new"]
    clock.now += 6
    assert data_of(log.read(log.cursor(["a"], log.position(0)), ALL)) == []


def test_history_that_ages_before_a_live_reader_reads_it_is_a_gap(
    log: Log, clock: Clock
) -> None:
    cursor = log.cursor(["a"])
    publish(log, "a", "old")
    clock.now += 11
    batch = log.read(cursor, ALL)
    assert lost_in(batch) == ["a"]
    assert batch.entries == []


# Gaps


def test_no_gap_where_nothing_was_evicted_behind_the_reader(log: Log) -> None:
    publish(log, "a", *"12345678")
    assert read(log, log.cursor(["a"], log.position(4))) == ["5", "6", "7", "8"]
    assert lost_in(log.read(log.cursor(["a"], log.position(3)), ALL)) == ["a"]


def test_a_gap_says_since_when_and_names_the_channels_that_lost(log: Log) -> None:
    publish(log, "a", *"12345")
    publish(log, "b", "6")
    publish(log, "c", *"789ABC")
    batch = log.read(log.cursor(["c", "a", "b"], log.position(0)), ALL)
    assert batch.gap is not None
    assert batch.gap.type == "stream-gap"
    assert json.loads(batch.gap.data) == {
        "since": f"{EPOCH}-0",
        "channels": ["c", "a"],
    }
    assert data_of(batch) == ["2", "3", "4", "5", "6", "9", "A", "B", "C"]


def test_a_gap_says_the_id_as_the_reader_gave_it(log: Log) -> None:
    batch = log.read(log.cursor(["a"], "gar bage\t☃"), ALL)
    assert batch.gap is not None
    assert batch.gap.json["since"] == "gar bage\t☃"


def test_a_live_reader_that_fell_behind_is_told_since_when(log: Log) -> None:
    cursor = log.cursor(["a"])
    publish(log, "a", "1")
    assert read(log, cursor) == ["1"]
    publish(log, "a", *"23456")
    batch = log.read(cursor, ALL)
    assert batch.gap is not None
    assert batch.gap.json == {"since": f"{EPOCH}-1", "channels": ["a"]}
    assert data_of(batch) == ["3", "4", "5", "6"]
    assert read(log, cursor) == []


def test_a_gap_is_told_once(log: Log) -> None:
    publish(log, "a", *"12345")
    cursor = log.cursor(["a", "b"], log.position(0))
    assert lost_in(log.read(cursor, 1)) == ["a"]
    for expected in (["3"], ["4"], ["5"], []):
        assert read(log, cursor, 1) == expected


def test_what_is_lost_after_a_gap_is_a_gap_again(log: Log) -> None:
    publish(log, "a", *"12345")
    cursor = log.cursor(["a"], log.position(0))
    assert data_of(log.read(cursor, 1)) == ["2"]
    publish(log, "a", *"6")
    assert read(log, cursor, 1) == ["3"]
    publish(log, "a", *"78")
    batch = log.read(cursor, 1)
    assert lost_in(batch) == ["a"]
    assert data_of(batch) == ["5"]


def test_whoever_resumes_from_a_gap_gets_what_came_behind_it(log: Log) -> None:
    publish(log, "a", *"12345")
    gap = log.read(log.cursor(["a"], log.position(0)), ALL).gap
    assert gap is not None
    assert gap.id == f"{EPOCH}-1"
    assert read(log, log.cursor(["a"], gap.id or "")) == ["2", "3", "4", "5"]


def test_the_id_of_a_gap_skips_nothing_of_the_channels_that_lost_nothing(
    log: Log,
) -> None:
    publish(log, "b", "1")
    publish(log, "a", *"23456")
    gap = log.read(log.cursor(["a", "b"], log.position(0)), ALL).gap
    assert gap is not None
    again = log.read(log.cursor(["a", "b"], gap.id or ""), ALL)
    assert data_of(again) == ["1", "3", "4", "5", "6"]


def test_the_id_of_a_gap_after_an_unknown_id_is_known(log: Log) -> None:
    publish(log, "a", *"12345")
    gap = log.read(log.cursor(["a"], "unknown"), ALL).gap
    assert gap is not None
    assert read(log, log.cursor(["a"], gap.id or "")) == ["2", "3", "4", "5"]


def test_an_entry_that_cannot_be_read_is_a_gap_of_its_channel_alone() -> None:
    log = FedLog()
    log.restart(EPOCH, 0, {}, history=4, age=10)
    log.load({"a": Past(0, []), "b": Past(0, [])})
    both, other = log.cursor(["a", "b"]), log.cursor(["b"])
    for record in (
        Record(1, 0.0, "a", Event("1", id="1", channel="a")),
        unreadable(log.epoch, 2, 0.0, "a"),
        Record(3, 0.0, "a", Event("3", id="3", channel="a")),
        Record(4, 0.0, "b", Event("4", id="4", channel="b")),
    ):
        log.feed(record)
    events = [entry.event for entry in log.read(both, ALL).entries if entry.event]
    assert [event.type for event in events] == [None, "stream-gap", None, None]
    gap = events[1]
    assert gap.json == {"since": log.position(1), "channels": ["a"]}
    assert (gap.id, gap.channel) == (log.position(2), "a")
    assert read(log, other) == ["4"]
    assert read(log, log.cursor(["a"], log.position(2))) == ["3"]


@pytest.mark.parametrize(
    "since",
    [
        "fedcba9876543210-1",  # Another life of the log.
        f"{EPOCH}-9",  # The future.
        f"{EPOCH}-999999999999999999999999999999",
        f"{EPOCH}-{'9' * 5000}",
        f"{EPOCH}-01",
        f"{EPOCH}--1",
        f"{EPOCH}-",
        f"{EPOCH}-１",  # noqa: RUF001 (a digit, but not an ASCII one)
        f"{EPOCH.upper()}-1",
        "1",
        "0",
        "-",
        "☃",
        "a\r\nb\0",
        "\ud800",
    ],
)
def test_an_id_that_says_nothing_here_is_a_gap_in_every_channel(
    log: Log, since: str
) -> None:
    publish(log, "a", "1")
    publish(log, "b", "2")
    batch = log.read(log.cursor(["a", "b", "never"], since), ALL)
    assert batch.gap is not None
    assert batch.gap.json == {"since": since, "channels": ["a", "b", "never"]}
    assert data_of(batch) == ["1", "2"]
    batch.gap.encode().decode()


def test_the_position_of_now_is_no_gap_and_the_next_one_is(log: Log) -> None:
    publish(log, "a", "1")
    assert read(log, log.cursor(["a"], f"{EPOCH}-1")) == []
    assert lost_in(log.read(log.cursor(["a"], f"{EPOCH}-2"), ALL)) == ["a"]


# The application's ids


def test_an_id_of_the_application_is_resumed_from(log: Log) -> None:
    log.append("a", Event("1", id="order-1"))
    publish(log, "a", "2")
    log.append("a", Event("3", id="order-3"))
    assert read(log, log.cursor(["a"], "order-1")) == ["2", "3"]
    assert read(log, log.cursor(["a"], "order-3")) == []


def test_of_the_applications_ids_the_newest_is_meant(log: Log) -> None:
    log.append("a", Event("1", id="x"))
    publish(log, "a", "2")
    log.append("b", Event("3", id="x"))
    publish(log, "a", "4")
    assert read(log, log.cursor(["a", "b"], "x")) == ["4"]
    assert read(log, log.cursor(["a"], "x")) == ["2", "4"]


def test_an_id_of_the_application_is_looked_up_in_the_readers_channels(
    log: Log,
) -> None:
    log.append("b", Event("1", id="x"))
    assert lost_in(log.read(log.cursor(["a"], "x"), ALL)) == ["a"]


def test_an_id_of_the_application_that_was_evicted_is_a_gap(
    log: Log, clock: Clock
) -> None:
    log.append("a", Event("1", id="x"))
    clock.now += 11
    publish(log, "a", "2")
    batch = log.read(log.cursor(["a"], "x"), ALL)
    assert batch.gap is not None
    assert batch.gap.json == {"since": "x", "channels": ["a"]}
    assert data_of(batch) == ["2"]


@pytest.mark.parametrize("id", ["9", "fedcba9876543210-1", f"{EPOCH}-99"])
def test_an_id_of_the_application_may_look_like_a_position(log: Log, id: str) -> None:
    log.append("a", Event("1", id=id))
    publish(log, "a", "2")
    assert read(log, log.cursor(["a"], id)) == ["2"]


@pytest.mark.parametrize("id", [" x", "x ", "\tx", " x y "])
def test_an_id_is_found_without_the_blanks_that_a_header_drops(
    log: Log, id: str
) -> None:
    log.append("a", Event("1", id=id))
    publish(log, "a", "2")
    assert read(log, log.cursor(["a"], id.strip())) == ["2"]


@pytest.mark.parametrize("id", [" x", "x ", "\tx", "\u3000x", "x\xa0"])
def test_an_id_is_found_as_it_was_given(log: Log, id: str) -> None:
    # A query parameter keeps all blanks; a header loses spaces and tabs only.
    log.append("a", Event("1", id=id))
    publish(log, "a", "2")
    assert read(log, log.cursor(["a"], id)) == ["2"]


# Newcomers and replay


def test_a_newcomer_gets_the_last_events_of_each_channel(log: Log) -> None:
    for n, channel in enumerate("aabbbacb"):
        publish(log, channel, f"{channel}{n}")
    assert read(log, log.cursor(["a", "b"], last=2)) == ["a1", "b4", "a5", "b7"]
    assert read(log, log.cursor(["a", "b"], last=1)) == ["a5", "b7"]
    assert read(log, log.cursor(["b"], last=9)) == ["b2", "b3", "b4", "b7"]
    assert read(log, log.cursor(["b"], last=0)) == []


def test_replay_goes_on_with_what_comes(log: Log) -> None:
    publish(log, "a", *"123")
    cursor = log.cursor(["a", "b"], last=1)
    publish(log, "b", "4")
    publish(log, "a", "5")
    assert read(log, cursor, 1) == ["3"]
    assert read(log, cursor, 1) == ["4"]
    publish(log, "b", "6")
    assert read(log, cursor) == ["5", "6"]


def test_replay_of_what_is_no_longer_all_there_is_no_gap(
    log: Log, clock: Clock
) -> None:
    publish(log, "a", *"123456")
    assert read(log, log.cursor(["a", "never"], last=9)) == ["3", "4", "5", "6"]
    clock.now += 11
    assert read(log, log.cursor(["a", "never"], last=9)) == []


def test_a_gap_in_one_channel_brings_nothing_back_that_replay_left_out(
    log: Log,
) -> None:
    publish(log, "b", "1")
    publish(log, "a", "2", "3")
    cursor = log.cursor(["a", "b"], last=1)
    publish(log, "b", *"45678")
    batch = log.read(cursor, ALL)
    assert lost_in(batch) == ["b"]
    assert data_of(batch) == ["3", "5", "6", "7", "8"]


def test_replay_is_for_newcomers(log: Log) -> None:
    publish(log, "a", *"123")
    assert read(log, log.cursor(["a"], log.position(), last=9)) == []


def test_a_newcomer_that_is_cut_before_its_replay_gets_it_when_it_is_back(
    log: Log,
) -> None:
    for n, channel in enumerate("abbaab"):
        publish(log, channel, f"{channel}{n}")
    cursor = log.cursor(["a", "b"], last=1)
    back = log.cursor(["a", "b"], log.position(cursor.position))
    assert {"a4", "b5"} <= set(read(log, back))


# Ends


def test_an_end_is_read_behind_what_came_before_it(log: Log) -> None:
    cursor = log.cursor(["a"])
    publish(log, "a", "1", "2")
    log.end("a")
    batch = log.read(cursor, ALL)
    assert data_of(batch) == ["1", "2"]
    assert batch.ended
    assert [entry.event for entry in batch.entries][-1] is None
    assert cursor.position == log.sequence == 3


def test_an_end_is_read_when_reading_in_pieces(log: Log) -> None:
    cursor = log.cursor(["a"])
    publish(log, "a", "1", "2")
    log.end("a")
    assert read(log, cursor, 1) == ["1"]
    assert read(log, cursor, 1) == ["2"]
    batch = log.read(cursor, 1)
    assert (batch.gap, batch.ended, batch.more) == (None, True, False)
    assert batch.entries == [Entry(3, 1000.0, "a", None)]


def test_an_end_between_taking_the_cursor_and_reading_is_seen(log: Log) -> None:
    cursor = log.cursor(["a"])
    assert not log.is_finished(cursor)
    log.end("a")
    assert log.read(cursor, ALL).ended


def test_a_reader_of_several_channels_ends_when_all_have(log: Log) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    assert read(log, cursor) == []
    publish(log, "b", "1")
    assert read(log, cursor) == ["1"]
    log.end("b")
    assert log.read(cursor, ALL).ended


def test_all_channels_of_a_reader_may_end_in_one_piece(log: Log) -> None:
    cursor = log.cursor(["a", "b"])
    publish(log, "b", "1")
    log.end("b")
    log.end("a")
    batch = log.read(cursor, ALL)
    assert data_of(batch) == ["1"]
    assert batch.ended


def test_an_end_of_one_channel_twice_is_not_the_end_of_two(log: Log) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    log.end("a")
    assert read(log, cursor) == []


def test_a_channel_that_is_published_to_is_open_again(log: Log) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    publish(log, "a", "1")
    log.end("b")
    assert read(log, cursor) == ["1"]
    log.end("a")
    assert log.read(cursor, ALL).ended


def test_what_comes_behind_the_end_waits_for_who_comes_back(log: Log) -> None:
    cursor = log.cursor(["a"])
    publish(log, "a", "1")
    log.end("a")
    publish(log, "a", "2")
    batch = log.read(cursor, ALL)
    assert (data_of(batch), batch.ended) == (["1"], True)
    back = log.cursor(["a"], log.position(cursor.position))
    assert not log.is_finished(back)
    assert read(log, back) == ["2"]


def test_whoever_comes_back_to_an_end_it_has_seen_is_finished(log: Log) -> None:
    publish(log, "a", "1")
    log.end("a")
    assert log.is_finished(log.cursor(["a"], log.position()))
    assert log.is_finished(log.cursor(["a"]))
    assert not log.is_finished(log.cursor(["a"], log.position(1)))
    assert not log.is_finished(log.cursor(["a"], log.position(0)))
    assert not log.is_finished(log.cursor(["a"], "unknown"))
    assert not log.is_finished(log.cursor(["a", "b"], log.position()))
    assert not log.is_finished(log.cursor(["a"], last=1))


def test_whoever_resumes_before_the_end_gets_the_rest_and_the_end(log: Log) -> None:
    publish(log, "a", "1", "2")
    log.end("a")
    batch = log.read(log.cursor(["a"], log.position(1)), ALL)
    assert (data_of(batch), batch.ended) == (["2"], True)


def test_whoever_resumes_between_two_ends_has_seen_the_first(log: Log) -> None:
    log.end("a")
    publish(log, "b", "1")
    log.end("b")
    batch = log.read(log.cursor(["a", "b"], log.position(1)), ALL)
    assert (data_of(batch), batch.ended) == (["1"], True)


def test_the_mark_of_an_end_lives_as_long_as_history(log: Log, clock: Clock) -> None:
    log.end("a")
    clock.now += 10
    assert log.is_finished(log.cursor(["a"]))
    clock.now += 1
    assert not log.is_finished(log.cursor(["a"]))


def test_a_lost_end_is_a_gap(log: Log, clock: Clock) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    clock.now += 11
    log.end("b")
    batch = log.read(cursor, ALL)
    assert lost_in(batch) == ["a"]
    assert not batch.ended


def test_an_end_that_was_seen_is_not_taken_for_one_behind_a_gap(log: Log) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    assert read(log, cursor) == []
    publish(log, "a", *"12345")
    log.end("b")
    batch = log.read(cursor, ALL)
    assert lost_in(batch) == ["a"]
    assert not batch.ended


def test_an_end_that_was_seen_is_not_the_last_word_when_a_later_one_is_lost(
    log: Log, clock: Clock
) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    assert read(log, cursor) == []
    publish(log, "a", "1")
    clock.now += 11
    log.end("b")
    batch = log.read(cursor, ALL)
    assert lost_in(batch) == ["a"]
    assert not batch.ended


def test_an_end_that_is_still_to_come_does_not_end_what_comes_before_it(
    log: Log,
) -> None:
    log.end("b")
    publish(log, "a", "1")
    log.end("a")
    batch = log.read(log.cursor(["a", "b"], log.position(0)), ALL)
    assert (data_of(batch), batch.ended) == (["1"], True)


def test_after_an_unknown_id_the_history_comes_and_then_the_end(log: Log) -> None:
    publish(log, "a", "1")
    log.end("a")
    batch = log.read(log.cursor(["a"], "unknown"), ALL)
    assert (lost_in(batch), data_of(batch), batch.ended) == (["a"], ["1"], True)


# Watching


class Watcher:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.told = 0

    def __call__(self) -> None:
        self.told += 1


def test_watchers_are_told_after_each_append(log: Log) -> None:
    one, other = Watcher(), Watcher()
    log.watch(["a", "b"], one)
    log.watch(["b"], other)
    publish(log, "a", "1")
    publish(log, "b", "2")
    publish(log, "c", "3")
    log.end("b")
    assert (one.told, other.told) == (3, 2)


def test_a_watcher_that_is_told_finds_the_event(log: Log) -> None:
    cursor = log.cursor(["a"])
    found: list[str] = []
    log.watch(["a"], lambda: found.extend(read(log, cursor)))
    # If the log held its lock, this would hang.
    join_all(start_all([lambda: publish(log, "a", "1", "2")]))
    assert found == ["1", "2"]


def test_a_watcher_may_stop_watching_while_it_is_told(log: Log) -> None:
    told: list[str] = []

    def once() -> None:
        told.append("once")
        log.unwatch(["a"], once)

    always = Watcher()
    log.watch(["a"], once)
    log.watch(["a"], always)
    publish(log, "a", "1", "2")
    assert (told, always.told) == (["once"], 2)


def test_a_watcher_is_told_no_more_once_it_has_stopped(log: Log) -> None:
    watcher = Watcher()
    log.watch(["a", "b"], watcher)
    log.unwatch(["a"], watcher)
    publish(log, "a", "1")
    publish(log, "b", "2")
    assert watcher.told == 1


def test_to_stop_watching_twice_or_without_a_beginning_is_harmless(log: Log) -> None:
    watcher = Watcher()
    log.unwatch(["a"], watcher)
    log.watch(["a"], watcher)
    log.unwatch(["a"], watcher)
    log.unwatch(["a"], watcher)
    publish(log, "a", "1")
    assert watcher.told == 0


# Forgetting


def test_however_many_names_are_published_to_the_newest_are_kept(log: Log) -> None:
    count = 3 * MAX_IDLE_CHANNELS
    event = Event("x")
    for n in range(count):
        log.append(str(n), event)
    kept = count - MAX_IDLE_CHANNELS
    for n in (0, 1, kept // 2, kept - 2, kept - 1):
        assert lost_in(log.read(log.cursor([str(n)], log.position(n)), ALL))
    for n in (kept, kept + 1, count - 1):
        assert read(log, log.cursor([str(n)], log.position(n))) == ["x"]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer channels than usual, as counting memory takes time."""
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_IDLE_CHANNELS", FEW)
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_QUIET_CHANNELS", FEW)
    tracemalloc.start()
    yield
    tracemalloc.stop()


def memory_in_use() -> int:
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.usefixtures("traced")
def test_names_published_to_once_take_a_bounded_memory(log: Log) -> None:
    def use(names: range) -> int:
        for n in names:
            log.append(str(n), Event("x"))
        return memory_in_use()

    before = memory_in_use()
    full = use(range(FEW + 1)) - before
    assert full > 100 * FEW
    assert use(range(FEW + 1, 3 * FEW)) < 1.2 * full


@pytest.mark.usefixtures("traced")
def test_names_listened_to_once_take_a_bounded_memory(log: Log) -> None:
    # Without an authorizer and with SSE_PUBLIC_CHANNELS = ["*"], anyone can name any
    # channel.
    watcher = Watcher()

    def use(names: range) -> int:
        for n in names:
            log.watch([str(n)], watcher)
            log.unwatch([str(n)], watcher)
        return memory_in_use()

    before = memory_in_use()
    full = use(range(FEW + 1)) - before
    assert use(range(FEW + 1, 3 * FEW)) < 1.2 * full


def test_names_that_were_listened_to_displace_and_mark_nothing(log: Log) -> None:
    publish(log, "a", "1", "2")
    watcher = Watcher()
    for n in range(MAX_IDLE_CHANNELS + MAX_QUIET_CHANNELS + 10):
        log.watch([str(n), "a"], watcher)
        log.unwatch([str(n), "a"], watcher)
    publish(log, "b", "3")
    assert read(log, log.cursor(["a"], log.position(1))) == ["2"]
    assert read(log, log.cursor(["7", "never"], log.position(0))) == []


def test_names_that_were_listened_to_are_gone_while_others_listen(log: Log) -> None:
    one, other = Watcher(), Watcher()
    log.watch(["a"], one)
    log.watch(["a", "b"], other)
    log.unwatch(["a", "b"], other)
    publish(log, "a", "1")
    assert (one.told, other.told) == (1, 0)
    assert list(log._keeper._quiet) == ["b"]


def test_a_channel_that_lost_something_is_listened_to_and_remembers_it(
    log: Log, clock: Clock
) -> None:
    watcher = Watcher()
    publish(log, "a", "1")
    log.watch(["a"], watcher)
    clock.now += 11
    assert read(log, log.cursor(["a"])) == []
    log.unwatch(["a"], watcher)
    assert lost_in(log.read(log.cursor(["a"], log.position(0)), ALL)) == ["a"]
    # Other channels lost nothing.
    assert read(log, log.cursor(["never"], log.position(0))) == []


@pytest.mark.usefixtures("traced")
def test_channels_that_lost_what_they_held_take_a_bounded_memory(
    log: Log, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.history.retention.MAX_QUIET_CHANNELS", FEW // 4)
    watcher = Watcher()
    for n in range(FEW):
        log.append(str(n), Event("x"))
        log.watch([str(n)], watcher)
    clock.now += 11
    for n in range(FEW):
        assert read(log, log.cursor([str(n)])) == []
        log.unwatch([str(n)], watcher)
    assert len(log._channels) <= FEW // 4 + 1


@pytest.mark.usefixtures("traced")
def test_long_names_that_are_asked_for_are_not_remembered(log: Log) -> None:
    before = memory_in_use()
    for n in range(2_000):
        log.cursor([f"{n}.{i}".ljust(250, "x") for i in range(64)])
        if n == 10:
            before = memory_in_use()
    assert memory_in_use() - before < 1_000_000


@pytest.mark.usefixtures("traced")
def test_names_grown_old_are_forgotten(log: Log, clock: Clock) -> None:
    before = memory_in_use()
    for n in range(5000):
        log.append(str(n), Event("x" * 100))
    full = memory_in_use() - before
    clock.now += 10
    publish(log, "other", *"123456")
    assert memory_in_use() - before > 0.9 * full
    clock.now += 1
    publish(log, "other", *"123456")
    # Only the dictionaries are left, which do not shrink.
    assert memory_in_use() - before < 0.4 * full


def forget_others(log: Log, count: int = MAX_IDLE_CHANNELS + 10) -> None:
    """Publish to so many channels that idle ones are forgotten."""
    event = Event("x")
    for n in range(count):
        log.append(f"other{n}", event)


def test_whoever_comes_back_to_a_forgotten_channel_is_told_of_a_gap(log: Log) -> None:
    publish(log, "a", "1")
    forget_others(log)
    batch = log.read(log.cursor(["a"], log.position(0)), ALL)
    assert (lost_in(batch), data_of(batch)) == (["a"], [])


def test_the_channel_longest_untouched_is_forgotten_first(log: Log) -> None:
    publish(log, "a", "1")
    publish(log, "b", "2")
    forget_others(log, MAX_IDLE_CHANNELS - 2)
    publish(log, "a", "3")
    publish(log, "c", "4")
    assert read(log, log.cursor(["a"], log.position(0))) == ["1", "3"]
    assert lost_in(log.read(log.cursor(["b"], log.position(0)), ALL)) == ["b"]


def test_a_forgotten_channel_that_is_published_to_again_remembers_its_gap(
    log: Log,
) -> None:
    publish(log, "a", "1")
    forget_others(log)
    publish(log, "a", "2")
    batch = log.read(log.cursor(["a"], log.position(0)), ALL)
    assert (lost_in(batch), data_of(batch)) == (["a"], ["2"])


def test_whoever_was_further_than_all_that_was_forgotten_gets_no_gap(log: Log) -> None:
    publish(log, "a", "1")
    since = log.position(log.sequence + MAX_IDLE_CHANNELS + 10)
    forget_others(log)
    assert read(log, log.cursor(["a"], since)) == []


def test_a_channel_that_ages_is_forgotten_with_its_mark(log: Log, clock: Clock) -> None:
    publish(log, "a", "1")
    clock.now += 11
    publish(log, "b", "2")
    # The log no longer knows what was in channels that it has forgotten.
    assert lost_in(log.read(log.cursor(["never"], log.position(0)), ALL)) == ["never"]
    assert read(log, log.cursor(["never"], log.position(1))) == []
    assert read(log, log.cursor(["b"], log.position(1))) == ["2"]


def test_a_channel_that_is_published_to_stays_however_old_it_is(
    log: Log, clock: Clock
) -> None:
    for n in range(10):
        publish(log, "a", str(n))
        clock.now += 6
        publish(log, f"other{n}", "x")
    assert read(log, log.cursor(["a"], log.position(18))) == ["9"]


def test_a_watched_channel_is_not_forgotten(log: Log) -> None:
    watcher = Watcher()
    log.watch(["a"], watcher)
    cursor = log.cursor(["a"])
    publish(log, "a", "1")
    forget_others(log)
    assert read(log, cursor) == ["1"]


def test_a_watched_channel_is_not_forgotten_for_its_age(log: Log, clock: Clock) -> None:
    log.watch(["a"], Watcher())
    since = log.position()
    for n in range(5):
        clock.now += 11
        publish(log, f"other{n}", "x")
    assert read(log, log.cursor(["a"], since)) == []


def test_a_quiet_watched_channel_gets_no_false_gap(log: Log, clock: Clock) -> None:
    cursor = log.cursor(["a", "b"])
    log.watch(["a", "b"], Watcher())
    forget_others(log)
    clock.now += 11
    forget_others(log, 1)
    publish(log, "b", "1")
    assert read(log, cursor) == ["1"]


def test_a_channel_that_two_watched_is_kept_for_the_one_who_stays(log: Log) -> None:
    one, other = Watcher(), Watcher()
    log.watch(["a"], one)
    log.watch(["a"], other)
    since = log.position()
    log.unwatch(["a"], one)
    forget_others(log)
    publish(log, "a", "1")
    assert read(log, log.cursor(["a"], since)) == ["1"]
    assert other.told == 1


def test_a_channel_that_nobody_watches_any_more_is_kept_for_its_age(
    log: Log, clock: Clock
) -> None:
    watcher = Watcher()
    log.watch(["a"], watcher)
    since = log.position()
    clock.now += 100
    log.unwatch(["a"], watcher)
    clock.now += 10
    publish(log, "b", "1")
    clock.now += 11
    assert read(log, log.cursor(["a"], since)) == []
    publish(log, "c", "2")
    # b is forgotten now, and so is a: the log cannot tell whether it had events.
    assert lost_in(log.read(log.cursor(["a"], since), ALL)) == ["a"]


def test_readers_at_the_same_place_get_the_same(log: Log, clock: Clock) -> None:
    publish(log, "a", "1")
    cursors = [log.cursor(["a"], log.position(0)) for _ in range(3)]
    batches = [log.read(cursor, ALL) for cursor in cursors]
    assert {frames(log, cursors[0], batch) for batch in batches} == {
        f"data: 1\nid: {EPOCH}-1\n\n".encode()
    }
    publish(log, "b", "2")
    publish(log, "a", "3")
    assert [read(log, cursor) for cursor in cursors] == [["3"]] * 3
    assert [read(log, cursor) for cursor in cursors] == [[]] * 3


def test_readers_at_the_same_place_of_other_channels_get_their_own(log: Log) -> None:
    publish(log, "a", "1")
    publish(log, "b", "2")

    def since(sequence: int, *names: str) -> list[str]:
        return read(log, log.cursor(names, log.position(sequence)))

    assert since(0, "a", "b") == ["1", "2"]
    assert since(0, "a") == ["1"]
    assert since(0, "b") == ["2"]
    assert since(0, "c") == []
    assert since(1, "a", "b") == ["2"]
    assert since(1, "b") == ["2"]
    assert since(1, "a") == []


def test_a_piece_of_one_reader_is_no_piece_of_another_with_its_own_limit(
    log: Log,
) -> None:
    publish(log, "a", "1", "2")
    first, second = (log.cursor(["a"], log.position(0)) for _ in range(2))
    assert read(log, first, ALL) == ["1", "2"]
    assert read(log, second, 1) == ["1"]


@pytest.mark.parametrize("newcomer_is_first", [True, False])
def test_replay_to_one_reader_is_not_what_others_at_its_place_get(
    log: Log, newcomer_is_first: bool
) -> None:
    publish(log, "a", "1", "2")
    publish(log, "b", "3", "4")
    newcomer = log.cursor(["a", "b"], last=1)
    other = log.cursor(["a", "b"], log.position(newcomer.position))
    expected = [(newcomer, ["2", "4"]), (other, ["2", "3", "4"])]
    for cursor, data in expected if newcomer_is_first else reversed(expected):
        assert read(log, cursor) == data


def test_an_end_that_one_reader_saw_is_undone_for_it_by_what_another_read_first(
    log: Log, clock: Clock
) -> None:
    cursor = log.cursor(["a", "b"])
    log.end("a")
    assert read(log, cursor) == []
    clock.now += 11
    late = log.cursor(["a", "b"], log.position(1))
    publish(log, "a", "2")
    assert read(log, late) == ["2"]
    assert read(log, cursor) == ["2"]
    log.end("b")
    assert not log.read(cursor, ALL).ended


def test_a_gap_of_one_reader_is_no_gap_of_those_that_follow(log: Log) -> None:
    publish(log, "a", "1", "2")
    for since, lost, expected in [
        ("unknown", ["a"], ["1", "2"]),
        (log.position(0), [], ["1", "2"]),
        ("unknown", ["a"], ["1", "2"]),
    ]:
        batch = log.read(log.cursor(["a"], since), ALL)
        assert (lost_in(batch), data_of(batch)) == (lost, expected)


def test_an_end_that_one_reader_knows_of_is_read_by_those_that_follow(log: Log) -> None:
    log.end("a")
    publish(log, "b", "1")
    first, second = (log.cursor(["a", "b"], log.position(0)) for _ in range(2))
    for cursor in (first, second):
        assert read(log, cursor) == ["1"]
    log.end("b")
    assert [log.read(cursor, ALL).ended for cursor in (first, second)] == [True, True]


# What keeps an idle client's position up to date


def next_event(stream: Subscription) -> Event | None:
    """The next event of a stream; None for a heartbeat."""
    piece = next_piece(stream)
    assert piece
    if piece == HEARTBEAT:
        return None
    (event,) = Decoder().feed(piece)
    return event


@pytest.fixture
def stream(log: Log) -> Iterator[Subscription]:
    """A stream of channel a that has sent its opening."""
    stream = Subscription(log, log.cursor(["a"]), Settings.read({}))
    next(stream)
    yield stream
    stream.close()


def test_a_stream_that_is_stopped_as_news_come_sends_them_and_ends(
    log: Log, stream: Subscription
) -> None:
    """A single wake then stands for the event and for the stop, and no other comes."""
    iterated = stream._iterated
    assert iterated
    # The main thread is woken now and then, in any case.
    iterated._is_in_main_thread = False
    assert next_event(stream) is None
    publish(log, "a", "last")
    # Wait until the hub has woken the stream.
    until(lambda: not iterated._asleep.locked())
    iterated.stop()
    pieces: list[bytes] = []
    reader = threading.Thread(target=lambda: pieces.extend(stream))
    reader.start()
    reader.join(patient(30))
    has_ended = not reader.is_alive()
    stream.close()
    reader.join()
    assert has_ended
    assert [event.data for event in Decoder().feed(b"".join(pieces))] == ["last"]


def test_an_idle_stream_is_told_how_far_the_log_has_come(
    log: Log, stream: Subscription
) -> None:
    assert next_event(stream) is None
    publish(log, "other", "1", "2")
    event = next_event(stream)
    assert event is not None
    assert (event.type, event.id) == ("stream-position", f"{EPOCH}-2")
    assert next_event(stream) is None


def test_an_idle_stream_is_told_of_others_events_that_came_with_its_own(
    log: Log, stream: Subscription
) -> None:
    publish(log, "a", "1")
    publish(log, "other", "2")
    event = next_event(stream)
    assert event is not None
    assert (event.data, event.id) == ("1", f"{EPOCH}-1")
    event = next_event(stream)
    assert event is not None
    assert (event.type, event.id) == ("stream-position", f"{EPOCH}-2")


def test_an_idle_stream_is_told_where_an_id_of_the_application_stands(
    log: Log, stream: Subscription, clock: Clock
) -> None:
    log.append("a", Event("1", id="order"))
    event = next_event(stream)
    assert event is not None
    assert event.id == "order"
    # The client is told a position, as "order" is found only while its event is
    # retained.
    event = next_event(stream)
    assert event is not None
    assert (event.type, event.id) == ("stream-position", f"{EPOCH}-1")
    clock.now += 11
    assert read(log, log.cursor(["a"], event.id or "")) == []


def test_an_idle_stream_is_told_where_it_stands_behind_a_gap(
    log: Log, stream: Subscription, clock: Clock
) -> None:
    publish(log, "a", "1")
    publish(log, "other", "2")
    clock.now += 11
    event = next_event(stream)
    assert event is not None
    assert (event.type, event.id) == ("stream-gap", f"{EPOCH}-1")
    event = next_event(stream)
    assert event is not None
    assert (event.type, event.id) == ("stream-position", f"{EPOCH}-2")


def test_a_stream_goes_on_by_itself_while_there_is_more(log: Log) -> None:
    settings = Settings.read({"SSE_HEARTBEAT": 3600})
    publish(log, "a", *(letter * BATCH_BYTES for letter in "xyz"))
    stream = Subscription(log, log.cursor(["a"], log.position(0)), settings)
    pieces: list[bytes] = []
    try:
        join_all(start_all([lambda: pieces.extend(itertools.islice(stream, 4))]))
    finally:
        stream.close()
    assert [event.data[:1] for event in Decoder().feed(b"".join(pieces))] == [
        *["", "x", "y", "z"],
    ]


def test_a_stream_that_is_not_idle_for_long_gets_heartbeats_only(
    log: Log, stream: Subscription
) -> None:
    publish(log, "other", "1")
    assert stream._iterated
    stream._iterated.tick(time.monotonic() + 20)
    assert next(stream) == HEARTBEAT


# Bursts and revocations


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[Channel]:
    """The channels for whose readers a publisher has paused."""
    pauses: list[Channel] = []
    monkeypatch.setattr("flask_sse_lite.history.log.pause_publisher", pauses.append)
    return pauses


def test_a_publisher_pauses_as_soon_as_half_of_the_history_is_unread(
    log: Log, pauses: list[Channel]
) -> None:
    publish(log, "a", *"12345")
    assert not pauses  # Nobody reads.
    log.watch(["a"], Watcher())
    cursor = log.cursor(["a"])
    publish(log, "a", "1", "2")
    assert not pauses
    publish(log, "a", "3")
    assert len(pauses) == 1
    read(log, cursor)
    publish(log, "a", "4", "5")
    assert len(pauses) == 1


def test_who_revokes_waits_for_nobody(clock: Clock, pauses: list[Channel]) -> None:
    log = Log(history=1, age=10, clock=clock)
    log.watch([REVOCATIONS], Watcher())
    for name in ("ann", "bob"):
        log.append(REVOCATIONS, Revocation(name, None).to_event())
    assert not pauses


def test_a_revocation_concerns_who_was_let_in_before_it_and_nobody_else(
    log: Log, clock: Clock
) -> None:
    log.append(REVOCATIONS, Revocation("ann", None).to_event())
    log.append("a", Event("later"))
    assert log.revocations.concern("ann", ("a",), clock.now)
    assert not log.revocations.concern("ann", ("a",), clock.now + 0.001)
    assert not log.revocations.concern("bob", ("a",), clock.now)


# Runs


def test_what_a_run_says_stands_between_its_beginning_and_its_end(log: Log) -> None:
    publish(log, "b", "1")
    watcher = Watcher()
    log.watch(["run"], watcher)
    start = log.hold("run", ALL)
    assert start == 1
    assert log.hold("run", ALL) is None
    said = log.say("run", start, Event("x"))
    assert said == Event("x", id=f"{EPOCH}-2", channel="run")
    log.end_run("run", start, Event("why"))
    assert watcher.told == 2
    batch = log.read(log.cursor(["run"], log.position(start)), ALL)
    assert (data_of(batch), batch.ended) == (["x", "why"], True)
    assert log.sequence == 4


def test_a_run_that_is_over_says_nothing(log: Log) -> None:
    start = log.hold("run", ALL)
    assert start is not None
    log.end_run("run", start)
    assert log.say("run", start, Event("late")) is None
    log.end_run("run", start, Event("late"))
    assert log.say("unknown", start, Event("late")) is None
    publish(log, "run", "of nobody")
    successor = log.hold("run", ALL)
    assert log.say("run", start, Event("late")) is None
    log.end_run("run", start)
    batch = log.read(log.cursor(["run"], log.position(0)), ALL)
    assert (batch.gap, batch.ended, successor) == (None, True, 2)
    assert read(log, log.cursor(["run"], log.position(1))) == ["of nobody"]
    assert log.is_running("run")


# Code that interrupts a step


@pytest.fixture
def roomy(clock: Clock) -> Log:
    """A log that keeps all that comes."""
    return Log(history=10_000, age=10, epoch=EPOCH, clock=clock)


class Follower(Watcher):
    """Reads whenever it is told of news."""

    def __init__(self, log: Log, *channels: str) -> None:
        super().__init__()
        self._log = log
        self._cursor = log.cursor(channels)
        self.entries: list[Entry] = []
        log.watch(channels, self)

    def __call__(self) -> None:
        super().__call__()
        while entries := self._log.read(self._cursor, ALL).entries:
            self.entries += entries


def interrupt_by_events(log: Log, step: Callable[[], Event | None]) -> None:
    """Publish at each step of a call, and see that all of it is read in order, and that
    each event which was returned stands where its id says."""
    published: list[Event | None] = []
    followers = [Follower(log, *channels) for channels in ("ab", "a", "b")]
    names = itertools.cycle("ba")
    interruption = Interruption(
        EACH_STEP, lambda: published.append(log.append(next(names), Event("")))
    )
    interruption.run(lambda: published.append(step()))
    assert len(published) > 20
    entries = followers[0].entries
    assert [entry.sequence for entry in entries] == [*range(1, log.sequence + 1)]
    for follower, channel in zip(followers[1:], "ab", strict=True):
        assert follower.entries == [e for e in entries if e.channel == channel]
    events = {entry.event.id: entry.event for entry in entries if entry.event}
    for event in published:
        assert event is None or events.pop(event.id) is event
    assert [event.data for event in events.values()] in ([], ["why"])
    # The reason of an end comes with the end.
    assert followers[0].told == len(entries) - len(events)


def test_what_interrupts_an_append_at_any_step_has_its_own_place(roomy: Log) -> None:
    interrupt_by_events(roomy, lambda: roomy.append("a", Event("")))


def test_what_interrupts_an_end_at_any_step_has_its_own_place(roomy: Log) -> None:
    interrupt_by_events(roomy, lambda: roomy.end("a"))


def test_what_interrupts_a_run_at_any_step_has_its_own_place(roomy: Log) -> None:
    start = roomy.hold("a", ALL)
    assert start is not None
    interrupt_by_events(roomy, lambda: roomy.say("a", start, Event("")))
    assert roomy.is_running("a")


def test_what_interrupts_the_end_of_a_run_at_any_step_has_its_own_place(
    roomy: Log,
) -> None:
    start = roomy.hold("a", ALL)
    assert start is not None
    interrupt_by_events(roomy, lambda: roomy.end_run("a", start, Event("why")))
    assert not roomy.is_running("a")


def test_an_end_that_interrupts_an_append_is_put_where_it_came(roomy: Log) -> None:
    with roomy._lock:
        roomy.end("a")
        publish(roomy, "a", "1")
    assert roomy.read(roomy.cursor(["a"], roomy.position(0)), ALL).ended
    assert read(roomy, roomy.cursor(["a"], roomy.position(1))) == ["1"]


def say_once(
    log: Log, channel: str, start: int, interruption: Interruption
) -> list[Event | None]:
    said: list[Event | None] = []
    interruption.run(lambda: said.append(log.say(channel, start, Event("late"))))
    return said


def test_a_run_says_nothing_behind_an_end_that_interrupts_it(roomy: Log) -> None:
    for at in itertools.count(1):
        channel = f"run {at}"
        start = roomy.hold(channel, ALL)
        assert start is not None
        interruption = Interruption([at], partial(roomy.end, channel))
        said = say_once(roomy, channel, start, interruption)
        if not interruption.was_called:
            assert said != [None]
            return
        batch = roomy.read(roomy.cursor([channel], roomy.position(start)), ALL)
        assert batch.ended
        events = [entry.event for entry in batch.entries]
        assert events == ([None] if said == [None] else [*said, None])


# Threads and greenlets

PUBLISHERS = READERS = 4
COUNT = 400


def publish_and_read_at_once() -> None:
    """Publish and read at the same time: every reader gets each event once, in
    order."""
    log = Log(history=PUBLISHERS * COUNT, age=60)
    start = threading.Barrier(PUBLISHERS + READERS)
    seen: list[list[Event]] = [[] for _ in range(READERS)]
    settings = Settings.read({})

    def publish_all(number: int) -> None:
        start.wait()
        for n in range(COUNT):
            log.append("ab"[n % 2], Event(f"{number} {n}"))

    def read_all(number: int) -> None:
        cursor = log.cursor(["a", "b"])
        start.wait()
        if number % 2:
            cursor = log.cursor(["a", "b"], log.position(0))
        stream = Subscription(log, cursor, settings)
        decoder = Decoder()
        try:
            for piece in stream:
                seen[number] += decoder.feed(piece)
        finally:
            stream.close()

    readers = start_all(partial(read_all, number) for number in range(READERS))
    join_all(start_all(partial(publish_all, number) for number in range(PUBLISHERS)))
    log.end("a")
    log.end("b")
    join_all(readers)

    assert log.sequence == PUBLISHERS * COUNT + 2
    for opening, *events, end in seen:
        assert (opening.type, end.type) == ("stream-open", "stream-end")
        assert [event.id for event in events] == [
            log.position(n) for n in range(1, PUBLISHERS * COUNT + 1)
        ]
        for number in range(PUBLISHERS):
            own = [e for e in events if e.data.startswith(f"{number} ")]
            assert [e.data for e in own] == [f"{number} {n}" for n in range(COUNT)]
            assert [e.channel for e in own] == [*"ab" * (COUNT // 2)]


def outrun_readers() -> None:
    """Publish far more at once than is retained. Greenlets of readers run only when the
    publisher gives way, and must keep up all the same."""
    log = Log(history=16, age=60)
    seen: list[Event] = []
    stream = Subscription(log, log.cursor(["a"]), Settings.read({}))
    decoder = Decoder()
    seen += decoder.feed(next(stream))

    def read_all() -> None:
        for piece in stream:
            seen.extend(decoder.feed(piece))

    readers = start_all([read_all])
    for n in range(1000):
        log.append("a", Event(str(n)))
    log.end("a")
    join_all(readers)
    stream.close()
    assert [event.data for event in seen if event.type is None] == [
        str(n) for n in range(1000)
    ]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads switch as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_publish_and_read_at_once_without_loss_or_double() -> None:
    for _ in range(3):
        publish_and_read_at_once()


@pytest.mark.parametrize("script", [publish_and_read_at_once, outrun_readers])
def test_greenlets_publish_and_read_at_once_without_loss_or_double(
    script: Callable[[], None],
) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from gevent import monkey; monkey.patch_all(); "
            f"from tests import test_log; test_log.{script.__name__}()",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * TOO_LONG,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# By property: what clients see over all their connections

CHANNELS = ("a", "b", "c")
SUBSETS = (("a",), ("a",), ("a", "b"), ("b", "a"), ("c", "a", "b"))
HISTORY = 4
AGE = 10

#: Where a connection breaks: after so many blocks, and so many bytes of the next.
CUTS = st.tuples(st.sampled_from([0, 1, 1, 1, 2, 3, 4]), st.sampled_from([0, 0, 1, 20]))


class Published(NamedTuple):
    """What was published, as the test knows it. An end has no data."""

    sequence: int
    time: float
    channel: str
    id: str
    data: str | None


@dataclass
class Client:
    """A browser, and what it has seen since it last came with an unknown id, if
    ever."""

    channels: tuple[str, ...]
    last_event_id: str = ""
    #: The open connection.
    stream: Subscription | None = None
    decoder: Decoder = field(default_factory=Decoder)
    #: It must see all events after this position; None until it is told one.
    start: int | None = None
    #: It came with an id that was no longer known, and so gets all that is retained.
    starts_anew: bool = False
    awaits_gap: bool = False
    seen: list[Published] = field(default_factory=list)
    #: Channels of which a gap was told after the last event that it saw of them.
    told: set[str] = field(default_factory=set)
    #: For each channel, the position up to which this connection's gaps account for
    #: losses.
    accounted: dict[str, int] = field(default_factory=dict)
    #: The position up to which a channel may have been forgotten before the client
    #: listened to it.
    forgotten: int = 0
    is_open: bool = False
    #: When it was last disconnected.
    left: float | None = None
    has_ended: bool = False


class Clients(RuleBasedStateMachine):
    """Random publishers, clients that are cut anywhere, and time that passes.

    The bytes that a client got over all its connections are checked. They must hold all
    events of its channels since its first position, in order, without a double. Where
    events are missing, a gap must name their channel; where none are, there must be no
    gap.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.log = Log(history=HISTORY, age=AGE, epoch=EPOCH, clock=self.clock)
        self.settings = Settings.read({})
        self.published: list[Published] = []
        self.clients: list[Client] = []

    # What happens

    # Some clients listen to the same channels, also in another order.
    @initialize(subsets=st.lists(st.sampled_from(SUBSETS), min_size=1, max_size=3))
    def arrive(self, subsets: list[tuple[str, ...]]) -> None:
        self.clients = [Client(subset) for subset in subsets]

    @rule(
        channel=st.sampled_from([*CHANNELS, "nobody's"]),
        count=st.sampled_from([1, 1, 2, HISTORY, HISTORY + 1]),
        is_named=st.booleans(),
        is_large=st.booleans(),
    )
    def publish(self, channel: str, count: int, is_named: bool, is_large: bool) -> None:
        for _ in range(count):
            sequence = len(self.published) + 1
            data = f"{sequence}:" + "x" * (40_000 if is_large else 0)
            id = f"order {sequence}" if is_named else f"{EPOCH}-{sequence}"
            event = self.log.append(channel, Event(data, id=id if is_named else None))
            assert event.id == id
            self.published.append(
                Published(sequence, self.clock.now, channel, id, data)
            )

    @rule(channel=st.sampled_from(CHANNELS))
    def end(self, channel: str) -> None:
        self.log.end(channel)
        sequence = len(self.published) + 1
        self.published.append(
            Published(sequence, self.clock.now, channel, f"{EPOCH}-{sequence}", None)
        )

    @rule(seconds=st.sampled_from([1, AGE // 2, AGE, AGE + 1]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(index=st.integers(0, 2))
    def receive(self, index: int) -> None:
        """A client takes the next piece that the server has for it."""
        client = self.clients[index % len(self.clients)]
        if client.stream is None:
            self.connect(client)
        if client.stream is not None:
            self.take(client)

    @rule(index=st.integers(0, 2), cut=CUTS)
    def break_off(self, index: int, cut: tuple[int, int]) -> None:
        """A client is cut within a piece: within its opening, if it has just come."""
        client = self.clients[index % len(self.clients)]
        if client.stream is None:
            self.connect(client)
        if client.stream is not None:
            self.take(client, cut)

    @rule(index=st.integers(0, 2), cut=CUTS)
    def break_off_behind_the_opening(self, index: int, cut: tuple[int, int]) -> None:
        client = self.clients[index % len(self.clients)]
        if client.stream is None:
            self.receive(index)
        self.break_off(index, cut)

    @rule(index=st.integers(0, 2))
    def leave(self, index: int) -> None:
        client = self.clients[index % len(self.clients)]
        self.disconnect(client)

    @rule(index=st.integers(0, 2))
    def catch_up(self, index: int) -> None:
        """A client takes all that there is."""
        client = self.clients[index % len(self.clients)]
        if client.stream is None:
            self.connect(client)
        pieces = 0
        while client.stream is not None and self.take(client) != HEARTBEAT:
            pieces += 1
            assert pieces <= len(self.published) + 3, "It goes on for ever."

    @invariant()
    def the_log_counts_as_we_do(self) -> None:
        assert self.log.sequence == len(self.published)

    def teardown(self) -> None:
        try:
            for index, client in enumerate(self.clients):
                self.disconnect(client)
                self.catch_up(index)
        finally:
            for client in self.clients:
                self.disconnect(client)

    # How a client does it

    def connect(self, client: Client) -> None:
        since = client.last_event_id
        if since and not self.is_known(since):
            client.starts_anew = client.awaits_gap = True
            client.start = 0
            client.seen.clear()
            client.told.clear()
        client.accounted = {}
        client.has_ended = False
        cursor = self.log.cursor(client.channels, since)
        if self.log.is_finished(cursor):
            assert self.have_ended(client, len(self.published))
            self.check_complete(client, len(self.published))
            return
        client.decoder = Decoder()
        client.stream = Subscription(self.log, cursor, self.settings)

    def disconnect(self, client: Client) -> None:
        if client.stream is not None:
            client.stream.close()
            client.stream = None
            if client.is_open:
                client.left = self.clock.now
                client.is_open = False

    def take(self, client: Client, cut: tuple[int, int] | None = None) -> bytes:
        """Receive the next piece, or its beginning up to a cut."""
        assert client.stream is not None
        if not client.is_open:
            client.is_open = True
            away = client.left is None or self.clock.now - client.left > AGE
            if away or client.starts_anew:
                # A channel that nobody listened to for so long is forgotten, and the
                # log can no longer tell that nothing happened there.
                client.forgotten = max((p.sequence for p in self.lost(0)), default=0)
        piece = next_piece(client.stream)
        if piece is None:
            assert client.has_ended
            self.disconnect(client)
            return b""
        assert not client.has_ended
        received = piece
        if cut is not None:
            blocks, rest = cut
            ends = [0, *(found.end() for found in re.finditer(b"\n\n", piece))]
            received = piece[: ends[min(blocks, len(ends) - 1)] + rest]
        for event in client.decoder.feed(received):
            self.see(client, event)
        if cut is not None:
            self.disconnect(client)
        elif piece == HEARTBEAT:
            assert not self.have_ended(client, len(self.published))
            self.check_complete(client, len(self.published))
        return piece

    def see(self, client: Client, event: Event) -> None:
        if event.type == "stream-open":
            if client.last_event_id:
                assert event.id == client.last_event_id
            elif client.start is None:
                client.start = self.sequence_of(event.id)
        elif event.type == "stream-gap":
            self.see_gap(client, event.json)
        elif event.type == "stream-end":
            client.has_ended = True
            end = self.sequence_of(event.id)
            assert self.have_ended(client, end, may_be_lost=True)
            self.check_complete(client, end)
        elif event.type is None:
            self.see_message(client, event)
        else:
            assert event.type == "stream-position"
            self.check_complete(client, len(self.published))
        assert event.id
        client.last_event_id = event.id

    def see_message(self, client: Client, event: Event) -> None:
        published = self.published[int(event.data.partition(":")[0]) - 1]
        assert (event.data, event.id) == (published.data, published.id)
        assert published.channel in client.channels
        assert event.channel == (
            published.channel if len(client.channels) > 1 else None
        )
        assert not client.awaits_gap
        assert not client.seen or published.sequence > client.seen[-1].sequence
        if self.missing(client, published.channel, published.sequence):
            assert published.channel in client.told
        client.told.discard(published.channel)
        client.seen.append(published)

    def see_gap(self, client: Client, gap: dict[str, Any]) -> None:
        names = gap["channels"]
        assert names
        if client.awaits_gap:
            assert gap["since"] == client.last_event_id
            assert names == list(client.channels)
            client.awaits_gap = False
        else:
            assert set(names) <= set(client.channels)
            position = self.sequence_of(client.last_event_id)
            for name in names:
                after = max(position, client.accounted.get(name, 0))
                lost = [p for p in self.lost(after) if p.channel == name]
                assert lost or position < client.forgotten
        for name in names:
            client.told.add(name)
            client.accounted[name] = max(
                (p.sequence for p in self.lost(0) if p.channel == name), default=0
            )

    # What the test knows

    def sequence_of(self, id: str | None) -> int:
        """The sequence number in an id."""
        assert id is not None
        return int(re.split("[ -]", id)[1])

    def is_known(self, id: str) -> bool:
        """Whether an id is a position of the log, or an application's id that is still
        retained."""
        sequence = self.sequence_of(id)
        return id.startswith(EPOCH) or (
            self.published[sequence - 1] not in self.lost(0)
        )

    def lost(self, after: int) -> list[Published]:
        """What was published after a position and is no longer retained."""
        gone = []
        for channel in {published.channel for published in self.published}:
            own = [p for p in self.published if p.channel == channel]
            gone += own[:-HISTORY]
            gone += [p for p in own[-HISTORY:] if p.time < self.clock.now - AGE]
        return sorted(p for p in gone if p.sequence > after)

    def missing(self, client: Client, channel: str, before: int) -> list[Published]:
        """What a client has not seen after the last event that it saw in a channel."""
        seen = [p.sequence for p in client.seen if p.channel == channel]
        after = seen[-1] if seen else client.start
        if after is None:
            return []
        return [
            published
            for published in self.published[after : before - 1]
            if published.channel == channel and published.data is not None
        ]

    def check_complete(self, client: Client, end: int) -> None:
        """Check that a client has seen everything up to a position, except what is lost
        and was told as a gap."""
        assert not client.awaits_gap
        lost = self.lost(0)
        for channel in client.channels:
            missing = self.missing(client, channel, end + 1)
            assert [p for p in missing if p not in lost] == []
            assert not missing or channel in client.told

    def have_ended(
        self, client: Client, end: int, *, may_be_lost: bool = False
    ) -> bool:
        """Whether each of a client's channels ends with an end.

        :param may_be_lost: whether the end can be gone by now, as the client had read
            it before.
        """
        lost = [] if may_be_lost else self.lost(0)
        for channel in client.channels:
            own = [p for p in self.published[:end] if p.channel == channel]
            if not own or own[-1].data is not None or own[-1] in lost:
                return False
        return True


TestClients = Clients.TestCase
TestClients.settings = settings(
    max_examples=1000 if IS_LONG else 100, stateful_step_count=40
)
