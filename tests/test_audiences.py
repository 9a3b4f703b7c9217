"""Audiences: how iterated streams come and leave, and who of them is woken when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.audiences import WAKES_PER_TURN
from flask_sse_lite.hub.readers import Audience

from .hub_parts import Faulty, Parts, Stream, hub_parts


@pytest.fixture
def log() -> Log:
    return Log(history=99, age=99)


@pytest.fixture
def parts() -> Iterator[Parts]:
    with hub_parts() as parts:
        yield parts


def join(parts: Parts, *streams: Stream) -> None:
    with parts.lock:
        for stream in streams:
            parts.audiences.join(stream)


def call_all(parts: Parts) -> None:
    """Do what the loop does with the news that it has."""
    news = parts.news.copy()
    parts.news.clear()
    for readers in news:
        assert isinstance(readers, Audience)
        parts.audiences.call(readers)


def test_who_listens_to_the_same_channels_is_one_audience(
    log: Log, parts: Parts
) -> None:
    streams = [Stream(log, "a"), Stream(log, "a"), Stream(log, "b")]
    join(parts, *streams)
    assert len(parts.audiences) == 3
    assert len(parts.audiences.all()) == 2
    assert parts.listeners.by_channel(log) == {"a": 2, "b": 1}
    log.append("a", Event("1"))
    log.append("a", Event("2"))
    assert len(parts.news) == 1  # The hub is told once, until it has called them.
    call_all(parts)
    assert [stream.wakes for stream in streams] == [1, 1, 0]
    log.append("a", Event("3"))
    call_all(parts)
    assert [stream.wakes for stream in streams] == [2, 2, 0]


def test_the_same_channels_of_another_log_are_another_audience(
    log: Log, parts: Parts
) -> None:
    here, there = Stream(log, "a"), Stream(Log(history=9, age=9), "a")
    join(parts, here, there)
    log.append("a", Event("1"))
    call_all(parts)
    assert (here.wakes, there.wakes) == (1, 0)


def test_when_the_last_has_left_the_log_tells_nobody(log: Log, parts: Parts) -> None:
    first, last = Stream(log, "a"), Stream(log, "a")
    join(parts, first, last)
    parts.audiences.leave(first)
    log.append("a", Event("1"))
    call_all(parts)
    assert (first.wakes, last.wakes) == (0, 1)
    parts.audiences.leave(last)
    log.append("a", Event("2"))
    assert parts.news == []
    assert parts.audiences.all() == []
    assert len(parts.audiences) == len(parts.listeners) == 0


def test_who_has_left_can_leave_again(log: Log, parts: Parts) -> None:
    stream, other = Stream(log, "a"), Stream(log, "a")
    join(parts, stream, other)
    for _ in range(2):
        parts.audiences.leave(stream)
    assert parts.listeners.by_channel(log) == {"a": 1}


def test_who_leaves_while_the_lock_is_held_is_forgotten_later(
    log: Log, parts: Parts
) -> None:
    """A stream that is collected as garbage leaves in whatever thread that is."""
    stream = Stream(log, "a")
    join(parts, stream)
    other = Stream(log, "a")
    join(parts, other)
    with parts.lock:
        for one in (stream, stream, other):
            parts.audiences.leave(one)
        assert parts.audiences.iterated == {stream, other}
        parts.audiences.let_go()
        assert parts.audiences.iterated == set()
    assert parts.listeners.by_channel(log) == {}


@pytest.mark.parametrize(
    ("count", "ways"),
    [
        *((WAKES_PER_TURN - 1, 0), (WAKES_PER_TURN, 1)),
        (2 * WAKES_PER_TURN + 1, 2),
    ],
)
def test_of_many_streams_some_are_woken_at_a_time(
    log: Log, parts: Parts, count: int, ways: int
) -> None:
    streams = [Stream(log, "a") for _ in range(count)]
    join(parts, *streams)
    log.append("a", Event("1"))
    call_all(parts)
    assert {stream.wakes for stream in streams} == {1}
    assert parts.poller.ways_given == ways


def test_who_is_only_told_the_time_hears_no_news(log: Log, parts: Parts) -> None:
    timed, stream = Faulty(log, "a"), Stream(log, "a")
    parts.audiences.timed.add(timed)
    join(parts, stream)
    with parts.lock:
        assert set(parts.audiences.everybody()) == {timed, stream}
    assert len(parts.audiences) == 2
    log.append("a", Event("1"))
    call_all(parts)
    assert (timed.wakes, stream.wakes) == (0, 1)
    assert parts.listeners.by_channel(log) == {"a": 1}
