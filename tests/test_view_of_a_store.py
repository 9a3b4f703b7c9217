"""The view that a process has of a store: how far it knows the store to be, and what it
says of entries that it cannot read."""

from __future__ import annotations

import logging

import pytest

from flask_sse_lite.brokers.view import LIVES, MAX_UNREADABLE_TOLD, View
from flask_sse_lite.position import RUN_PREFIX, new_epoch

FIRST, SECOND = new_epoch(), new_epoch()


@pytest.fixture
def view() -> View:
    return View("the store")


def read_up_to(view: View, epoch: str, sequence: int) -> None:
    view.log.restart(epoch, sequence, {}, history=9, age=9)


def test_at_first_nothing_was_published(view: View) -> None:
    assert view.published == ("", 0)
    read_up_to(view, FIRST, 5)
    assert view.known() == (FIRST, 5)


def test_a_position_that_comes_late_changes_nothing(view: View) -> None:
    for sequence in (3, 7, 5):
        view.note_published((FIRST, sequence))
    assert view.published == (FIRST, 7)


def test_in_one_life_the_higher_position_is_known(view: View) -> None:
    view.note_published((FIRST, 7))
    read_up_to(view, FIRST, 5)
    assert view.known() == (FIRST, 7)
    read_up_to(view, FIRST, 9)
    assert view.known() == (FIRST, 9)


def test_what_was_published_in_another_life_than_was_read_is_known(view: View) -> None:
    read_up_to(view, FIRST, 9)
    view.note_published((SECOND, 1))
    assert view.known() == (SECOND, 1)


def test_a_thread_that_published_in_the_life_before_lowers_nothing(view: View) -> None:
    view.note_published((FIRST, 7))
    view.note_published((SECOND, 2))
    view.note_published((FIRST, 6))
    view.note_published((SECOND, 1))
    assert view.published == (SECOND, 2)


def test_of_many_lives_only_the_last_are_remembered(view: View) -> None:
    lives = [new_epoch() for _ in range(3 * LIVES)]
    for epoch in lives:
        view.note_published((epoch, 4))
    assert list(view._newest) == lives[-LIVES:]
    assert view.published == (lives[-1], 4)


def test_views_have_names_of_their_own() -> None:
    assert len({View("the store").process for _ in range(9)}) == 9


def unread(view: View, channel: str) -> str | None:
    """The type of what stands for an entry that cannot be read."""
    error = ValueError("geheim")
    record = view.cannot_read(FIRST, 5, 1.5, channel, error)
    assert record[:3] == (5, 1.5, channel)
    assert record.event
    assert record.event.json["channels"] == [channel]
    return record.event.type


def test_a_gap_stands_for_an_entry_that_cannot_be_read(
    view: View, caplog: pytest.LogCaptureFixture
) -> None:
    assert unread(view, "a") == "stream-gap"
    assert "the store has an entry in the channel 'a'" in caplog.text
    assert "ValueError" in caplog.text
    assert "geheim" not in caplog.text


def test_of_each_channel_it_is_said_once_and_not_of_thousands(
    view: View, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(2 * MAX_UNREADABLE_TOLD):
            for _ in range(2):
                unread(view, f"channel {number}")
    assert len(caplog.records) == MAX_UNREADABLE_TOLD


def test_the_name_of_a_run_is_not_shown(
    view: View, caplog: pytest.LogCaptureFixture
) -> None:
    unread(view, f"{RUN_PREFIX}geheim")
    assert "an entry in a run that" in caplog.text
    assert "geheim" not in caplog.text
