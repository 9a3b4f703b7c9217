"""The pauses of a loop that fails."""

from __future__ import annotations

import time

import pytest

from flask_sse_lite.system.backoff import CALM, Backoff


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_each_pause_is_twice_the_one_before_up_to_the_longest(
    clock: list[float],
) -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5


def test_behind_a_calm_the_next_failure_is_the_first(clock: list[float]) -> None:
    backoff = Backoff(0.5, 3.0)
    backoff.next()
    backoff.next()
    clock[0] += CALM
    assert backoff.next() == 2.0
    clock[0] += CALM + 0.1
    assert backoff.next() == 0.5
    assert backoff.failures == 1


def test_a_loop_that_never_recovers_has_no_number_without_end(
    clock: list[float],
) -> None:
    backoff = Backoff(0.5, float("inf"))
    for _ in range(2000):
        pause = backoff.next()
    assert pause == 0.5 * 2**30
