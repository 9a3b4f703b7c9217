"""What an operator is shown of channels is what the log has of them."""

from __future__ import annotations

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.glances import RATE_SECONDS, SHORTEST, Glance
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation

from .clocks import Clock


def log_of(clock: Clock, history: int = 100) -> Log:
    return Log(history=history, age=300, clock=clock)


def glance(log: Log, name: str = "room") -> Glance:
    (found,) = [g for g in log.glances({}, 100) if g.name == name]
    return found


def test_a_channel_shows_how_much_is_kept_of_it() -> None:
    log = log_of(Clock())
    for text in ("one", "two"):
        log.append("room", Event(text))
    assert glance(log).events == 2
    assert glance(log).size > len("onetwo")


def test_a_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    log = log_of(clock)
    log.append("room", Event("long ago"))
    clock.now += RATE_SECONDS
    for _ in range(20):
        log.append("room", Event("now"))
    assert glance(log).rate == 20 / RATE_SECONDS
    clock.now += RATE_SECONDS
    assert glance(log).rate == 0


def test_a_rate_can_be_faster_than_what_is_kept_of_the_last_seconds() -> None:
    clock = Clock()
    log = log_of(clock, history=4)
    for _ in range(100):
        clock.now += 0.01
        log.append("room", Event("fast"))
    assert glance(log).rate == pytest.approx(4 / 0.03)


def test_a_channel_that_has_just_begun_has_no_rate_of_a_burst() -> None:
    clock = Clock()
    log = log_of(clock, history=4)
    for count in (1, 2, 3):
        clock.now += 0.01
        log.append("room", Event("new"))
        assert glance(log).rate == count / RATE_SECONDS


def test_where_one_event_is_kept_the_rate_is_that_of_one() -> None:
    log = log_of(Clock(), history=1)
    log.append("room", Event("new"))
    assert glance(log).rate == 1 / RATE_SECONDS


def test_a_history_that_was_filled_in_no_time_has_a_rate() -> None:
    log = log_of(Clock(), history=2)
    for _ in range(2):
        log.append("room", Event("at once"))
    assert glance(log).rate == 2 / SHORTEST


def test_those_come_first_who_have_listeners_or_were_used_last() -> None:
    clock = Clock()
    log = log_of(clock)
    for name in ("old", "heard", "new"):
        clock.now += 1
        log.append(name, Event("hello"))
    found = log.glances({"heard": 1}, 2)
    assert [g.name for g in found] == ["heard", "new"]


def test_revocations_and_ends_are_not_events() -> None:
    log = log_of(Clock())
    log.append(REVOCATIONS, Revocation("ann", None).to_event())
    log.append("room", Event("hello"))
    log.end("room")
    assert [(g.name, g.events) for g in log.glances({}, 100)] == [("room", 1)]


def test_a_reader_is_behind_by_the_events_of_its_channels() -> None:
    log = log_of(Clock())
    cursor = log.cursor(("room", "other"))
    for name in ("room", "other", "elsewhere"):
        log.append(name, Event("hello"))
    assert log.behind(cursor) == 2
    log.read(cursor, 1_000_000)
    assert log.behind(cursor) == 0
