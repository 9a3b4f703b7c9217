"""Which channels shrink where a log has too many bytes, and that its bound holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_lite import Event
from flask_sse_lite.history.fed import FedLog
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.retention import RUNS_BYTES
from flask_sse_lite.history.revocations import REVOCATIONS, Revocation
from flask_sse_lite.history.sizes import excesses, goal

from .batches import data_of, lost_in

#: Bytes of all that is kept in these tests, and of one event.
LIMIT = 200_000
LARGE = 2_000

#: More events than a test publishes, so that only their bytes are too many.
MANY = 10_000

ALL = 1 << 30


def large(number: int) -> str:
    return f"{number} ".ljust(LARGE, "x")


@given(st.lists(st.integers(1, 1_000)), st.integers(1, 20_000))
def test_no_channel_is_larger_than_a_level(sizes: list[int], limit: int) -> None:
    named = {str(number): size for number, size in enumerate(sizes)}
    excess = excesses(named, limit)
    left = {name: size - excess.get(name, 0) for name, size in named.items()}
    assert all(0 <= size <= named[name] for name, size in left.items())
    assert sum(left.values()) <= max(limit, 1)
    smallest = min((left[name] for name in excess), default=0)
    for name, size in left.items():
        if name not in excess:
            assert size == named[name] <= max(smallest, size)
            assert not excess or size <= smallest


def test_the_largest_shrink_to_one_level_and_are_named_first() -> None:
    sizes = {"small": 100, "large": 900, "middle": 300, "huge": 1300}
    assert goal(1600) == 1500
    # 100 and 300 stay, and leave 1100 for the other two.
    assert list(excesses(sizes, 1600).items()) == [("huge", 750), ("large", 350)]


def test_who_is_as_large_as_the_level_loses_nothing() -> None:
    assert excesses({"a": 500, "b": 500, "c": 1000}, 1600) == {"c": 500}
    assert excesses({"a": 500, "b": 1000}, 1600) == {}
    assert excesses({}, 1600) == {}


# A log


@pytest.fixture
def log() -> Log:
    log = Log(history=MANY, age=300)
    log.limit(LIMIT, RUNS_BYTES)
    return log


def test_what_was_counted_is_counted_no_more_when_it_is_forgotten(log: Log) -> None:
    now = 0.0
    log = Log(history=10, age=10, clock=lambda: now)
    log.limit(LIMIT, RUNS_BYTES)
    for number in range(1_000):
        now += 1
        log.append(f"c{number % 50}", Event(large(number)))
    assert len(log._channels) <= 12
    assert log._keeper._size == sum(c.size for c in log._channels.values())
    assert log._keeper._size <= 11 * (LARGE + 100)


def test_a_lower_limit_holds_at_once(log: Log) -> None:
    cursor = log.cursor(("a",))
    for number in range(90):
        log.append("a", Event(large(number)))
    log.limit(10 * LARGE, RUNS_BYTES)
    batch = log.read(cursor, ALL)
    assert lost_in(batch) == ["a"]
    assert 5 < len(data_of(batch)) < 10


def test_revocations_are_never_given_up(log: Log) -> None:
    for number in range(100):
        log.append(REVOCATIONS, Revocation(f"{number:0>500}", None).to_event())
    log.limit(1_000, RUNS_BYTES)
    for number in range(100):
        log.append(f"c{number}", Event(large(number)))
    assert len(log._channels[REVOCATIONS].entries) == 100


def test_a_log_that_is_fed_is_counted_anew_in_another_life() -> None:
    log = FedLog()
    log.limit(LIMIT, RUNS_BYTES)
    for epoch in ("1", "2", "3"):
        log.restart(epoch * 16, 0, {}, history=MANY, age=300)
        assert log._keeper._size == 0


def test_a_run_s_output_is_counted_apart_in_a_process() -> None:
    log = Log(history=MANY, age=300)
    log.limit(LIMIT, RUNS_BYTES)
    start = log.hold("run", 10 * LIMIT)
    assert start is not None
    for number in range(2 * LIMIT // LARGE):
        log.say("run", start, Event(large(number)))
    log.append("a", Event(large(0)))
    cursor = log.cursor(("run",), f"{log.epoch}-{start}")
    assert len(data_of(log.read(cursor, ALL))) == 2 * LIMIT // LARGE
