"""The pauses of a burst: how long a writer waits for readers, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from flask_sse_lite.history.channel import Channel
from flask_sse_lite.history.pacing import (
    BREATH,
    BREATHS,
    FEEDER_BREATHS,
    SPARE_BREATH_TAKES,
    SPARE_BREATHS,
    Patience,
    pause_publisher,
)

from .clocks import Clock

HISTORY = 8

#: What happens in a pause, as a test says it.
Meanwhile = Callable[[Callable[[int], object]], list[float]]


@pytest.fixture
def channel() -> Channel:
    """A channel whose readers have read nothing of a whole history."""
    channel = Channel(0, is_whole=True)
    channel.unread = HISTORY
    return channel


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Have something done in each pause, which is told its number.

    :returns: how long each pause is.
    """

    def do(what: Callable[[int], object]) -> list[float]:
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            what(len(pauses))

        stand_in = SimpleNamespace(sleep=sleep)
        monkeypatch.setattr("flask_sse_lite.history.pacing.time", stand_in)
        return pauses

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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patience(clock: Clock) -> Patience:
    return Patience(clock)


def test_a_follower_goes_on_when_half_of_the_history_was_read(
    channel: Channel, patience: Patience, meanwhile: Meanwhile
) -> None:
    def read(pause: int) -> None:
        channel.unread -= 1

    pauses = meanwhile(read)
    patience.pause(channel, HISTORY)
    assert channel.unread == HISTORY // 2
    assert pauses == [BREATH] * (HISTORY // 2)


def test_a_follower_waits_for_a_reader_that_is_late_by_a_tenth_of_a_second(
    channel: Channel, patience: Patience, meanwhile: Meanwhile
) -> None:
    def read(pause: int) -> None:
        if pause == FEEDER_BREATHS + SPARE_BREATHS:
            channel.unread = 0

    pauses = meanwhile(read)
    patience.pause(channel, HISTORY)
    assert channel.unread == 0
    assert sum(pauses) > 0.1


def test_a_follower_gives_readers_up_that_do_not_read_for_some_histories(
    channel: Channel, patience: Patience, meanwhile: Meanwhile
) -> None:
    pauses = meanwhile(lambda pause: None)
    patience.pause(channel, HISTORY)
    assert pauses == [BREATH] * (FEEDER_BREATHS + SPARE_BREATHS)
    channel.unread += FEEDER_BREATHS * HISTORY + HISTORY // 2
    patience.pause(channel, HISTORY)
    assert len(pauses) == FEEDER_BREATHS + SPARE_BREATHS
    channel.unread += 1
    patience.pause(channel, HISTORY)
    assert len(pauses) == 2 * FEEDER_BREATHS + SPARE_BREATHS


def test_a_follower_has_its_spare_breaths_back_one_by_one(
    clock: Clock, patience: Patience, meanwhile: Meanwhile
) -> None:
    pauses = meanwhile(lambda pause: None)

    def spare_breaths() -> int:
        """How many it has spent, on a channel that nobody reads."""
        channel = Channel(0, is_whole=True)
        channel.unread = HISTORY
        pauses.clear()
        patience.pause(channel, HISTORY)
        return len(pauses) - FEEDER_BREATHS

    assert spare_breaths() == SPARE_BREATHS
    assert spare_breaths() == 0
    clock.now += 3.5 * SPARE_BREATH_TAKES
    assert spare_breaths() == 3
    clock.now += 1000 * SPARE_BREATHS * SPARE_BREATH_TAKES
    assert spare_breaths() == SPARE_BREATHS
