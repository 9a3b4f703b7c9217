"""The pauses of a burst: how long a writer waits for readers, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_lite.history.channel import Channel
from flask_sse_lite.history.pacing import (
    BREATH,
    BREATHS,
    FEEDER_BREATHS,
    SPARE_SECONDS,
    SPARE_SHARE,
    Patience,
    pause_publisher,
)

HISTORY = 8

#: What happens in a pause, as a test says it.
Meanwhile = Callable[[Callable[[int], object]], list[float]]


@pytest.fixture
def channel() -> Channel:
    """A channel whose readers have read nothing of a whole history."""
    return unread_channel()


def unread_channel() -> Channel:
    channel = Channel(0, is_whole=True)
    channel.watchers[lambda: None] = None
    channel.unread = HISTORY
    return channel


class Times:
    """Stands in for the module ``time``: only what sleeps, and a test, moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        #: Seconds that each sleep takes too long.
        self.oversleep = 0.0
        self.pauses: list[float] = []
        self.in_pause: Callable[[int], object] = lambda pause: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.oversleep
        self.pauses.append(seconds)
        self.in_pause(len(self.pauses))


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    times = Times()
    monkeypatch.setattr("flask_sse_lite.history.pacing.time", times)
    return times


@pytest.fixture
def meanwhile(times: Times) -> Meanwhile:
    """Have something done in each pause, which is told its number.

    :returns: how long each pause is.
    """

    def do(what: Callable[[int], object]) -> list[float]:
        times.in_pause = what
        return times.pauses

    return do


def test_a_publisher_goes_on_when_a_reader_has_read(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    def read(pause: int) -> None:
        if pause == 2:
            channel.unread = 0

    pauses = meanwhile(read)
    pause_publisher(channel)
    assert pauses == [BREATH] * 2


def test_a_publisher_goes_on_when_nobody_reads_and_counts_anew(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    pauses = meanwhile(lambda pause: None)
    pause_publisher(channel)
    assert pauses == [BREATH] * BREATHS
    assert channel.unread == 0


def test_where_a_publisher_cannot_sleep_it_goes_on_at_once(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    def refuse(pause: int) -> None:
        raise AssertionError("Impossible to call blocking function in the event loop")

    pauses = meanwhile(refuse)
    pause_publisher(channel)
    assert len(pauses) == 1
    assert channel.unread == HISTORY


def test_a_follower_goes_on_when_half_of_the_history_was_read(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    def read(pause: int) -> None:
        channel.unread -= 1

    pauses = meanwhile(read)
    Patience().pause(channel, HISTORY)
    assert channel.unread == HISTORY // 2
    assert pauses == [BREATH] * (HISTORY // 2)


def test_a_follower_waits_for_a_reader_that_is_late_by_a_tenth_of_a_second(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    def read(pause: int) -> None:
        if sum(pauses) > SPARE_SECONDS:
            channel.unread = 0

    pauses = meanwhile(read)
    Patience().pause(channel, HISTORY)
    assert channel.unread == 0


@pytest.mark.parametrize("late", [1, FEEDER_BREATHS, FEEDER_BREATHS + 3])
def test_a_follower_goes_on_as_soon_as_a_late_reader_has_read_half(
    channel: Channel, meanwhile: Meanwhile, late: int
) -> None:
    def read(pause: int) -> None:
        if pause == late:
            channel.unread = HISTORY // 2

    pauses = meanwhile(read)
    Patience().pause(channel, HISTORY)
    assert len(pauses) == late
    assert channel.unread == HISTORY // 2


def test_a_follower_spends_no_more_than_its_spare_seconds(
    channel: Channel,
    meanwhile: Meanwhile,
    times: Times,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_sse_lite.history.pacing.SPARE_SECONDS", 2 / 16)
    pauses = meanwhile(lambda pause: None)
    times.oversleep = 1 / 16 - BREATH
    Patience().pause(channel, HISTORY)
    assert len(pauses) == FEEDER_BREATHS + 2


@pytest.mark.parametrize("leaves", [1, FEEDER_BREATHS + 3])
def test_a_follower_goes_on_when_the_last_reader_has_left(
    channel: Channel, meanwhile: Meanwhile, leaves: int
) -> None:
    def leave(pause: int) -> None:
        if pause == leaves:
            channel.watchers.clear()

    pauses = meanwhile(leave)
    Patience().pause(channel, HISTORY)
    assert len(pauses) == leaves


def test_a_run_needs_none_of_a_followers_spare_seconds(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    channel.budget = 1000
    pauses = meanwhile(lambda pause: None)
    patience = Patience()
    patience.pause(channel, HISTORY)
    assert len(pauses) == FEEDER_BREATHS
    pauses.clear()
    patience.pause(unread_channel(), HISTORY)
    assert sum(pauses) > SPARE_SECONDS


def test_a_process_that_was_suspended_has_its_patience_back_soon(
    meanwhile: Meanwhile, times: Times
) -> None:
    def suspend(pause: int) -> None:
        if pause == FEEDER_BREATHS + 1:
            times.now += 3600

    pauses = meanwhile(suspend)
    patience = Patience()
    patience.pause(unread_channel(), HISTORY)
    assert len(pauses) == FEEDER_BREATHS + 1
    times.now += 2 * SPARE_SECONDS / SPARE_SHARE
    pauses.clear()
    meanwhile(lambda pause: None)
    patience.pause(unread_channel(), HISTORY)
    assert sum(pauses) > SPARE_SECONDS


def test_a_follower_gives_readers_up_that_do_not_read_for_some_histories(
    channel: Channel, meanwhile: Meanwhile
) -> None:
    pauses = meanwhile(lambda pause: None)
    patience = Patience()
    patience.pause(channel, HISTORY)
    paused = FEEDER_BREATHS * BREATH + SPARE_SECONDS
    assert sum(pauses) == pytest.approx(paused, abs=2 * BREATH)
    channel.unread += FEEDER_BREATHS * HISTORY + HISTORY // 2
    pauses.clear()
    patience.pause(channel, HISTORY)
    assert not pauses
    channel.unread += 1
    patience.pause(channel, HISTORY)
    assert len(pauses) >= FEEDER_BREATHS


@pytest.mark.parametrize("sleeps", [BREATH, 1.3 * BREATH, 20 * BREATH, 0.3])
def test_readers_that_never_read_hold_a_follower_up_for_a_tenth_of_its_time(
    meanwhile: Meanwhile, times: Times, sleeps: float
) -> None:
    """The system can wake who sleeps far too late."""
    pauses = meanwhile(lambda pause: None)
    times.oversleep = sleeps - BREATH
    patience = Patience()
    count, began = 1000, times.now
    for _ in range(count):
        patience.pause(unread_channel(), HISTORY)
        times.now += 0.02
    worked = count * 0.02
    spare = len(pauses) * sleeps - count * FEEDER_BREATHS * sleeps
    took = times.now - began
    assert spare <= SPARE_SECONDS + SPARE_SHARE * took + sleeps
    if sleeps < 0.3:
        assert spare >= SPARE_SHARE * worked
