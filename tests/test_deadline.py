"""Deadlines: how much time is left, and which one a call has."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flask_sse_lite.brokers import deadline as deadlines
from flask_sse_lite.brokers.deadline import FAIR_PART, Deadline, Deadlines

from .stand_ins import run_on_gevent


class Clock:
    """What time it is, as a test says."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock.monotonic)
    monkeypatch.setattr(deadlines, "time", fake)
    return clock


def test_what_is_left_is_never_less_than_nothing(clock: Clock) -> None:
    deadline = Deadline(4.0)
    left = [deadline.left]
    for _ in range(3):
        clock.now += 3.0
        left.append(deadline.left)
    assert left == [4.0, 1.0, 0.0, 0.0]


def test_a_wait_is_fair_while_the_store_can_have_its_part(clock: Clock) -> None:
    deadline = Deadline(4.0)
    assert deadline.is_fair
    clock.now += 4.0 * (1 - FAIR_PART)
    assert deadline.is_fair
    clock.now += 0.1
    assert not deadline.is_fair


def test_within_a_call_the_call_s_own_deadline_holds(clock: Clock) -> None:
    own = Deadlines()
    with own.within(4.0) as call:
        clock.now += 1.0
        with own.within(60.0) as wait:
            assert wait is call
            assert wait.left == 3.0
        assert own.current is call  # A wait's end is not the call's end.
    assert own.current is None


def test_a_call_that_fails_leaves_no_deadline_behind() -> None:
    own = Deadlines()
    with pytest.raises(ZeroDivisionError), own.within(4.0):
        raise ZeroDivisionError
    assert own.current is None


def test_each_thread_has_deadlines_of_its_own() -> None:
    own = Deadlines()
    seen: list[Deadline | None] = []
    with own.within(4.0):
        thread = threading.Thread(target=lambda: seen.append(own.current))
        thread.start()
        thread.join()
    assert seen == [None]


@pytest.mark.parametrize("first", ["", "import flask_sse_lite.brokers.deadline"])
def test_each_greenlet_has_deadlines_of_its_own(first: str) -> None:
    """Also where gevent patches after the import, as under ``--preload``."""
    run_on_gevent(
        """
import gevent
from flask_sse_lite.brokers.deadline import Deadlines

own, seen = Deadlines(), []
with own.within(4.0) as call:
    gevent.spawn(lambda: seen.append(own.current)).join()
    assert own.current is call
assert seen == [None]
""",
        first,
    )
