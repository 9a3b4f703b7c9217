"""A cursor steps over entries, and what it is given says where a client goes on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.cursor import NO_FLOORS, NONE_ENDED, Batch, Cursor, Entry
from flask_sse_lite.position import RUN_PREFIX, parse_position

EPOCH = "0123456789abcdef"
SIZE = len(Event("x").encode())
RUN = RUN_PREFIX + "Ab_-" * 5 + "yz"


def entry(sequence: int, channel: str = "a", *, is_end: bool = False) -> Entry:
    return Entry(sequence, 0.0, channel, None if is_end else Event("x"))


def cursor_at(
    position: int, floors: Mapping[str, int] = NO_FLOORS, channels: str = "ab"
) -> Cursor:
    cursor = Cursor(tuple(channels), EPOCH, position, "id")
    cursor.floors = floors
    return cursor


def test_an_entry_is_as_large_as_its_event() -> None:
    assert entry(1).size == Event("x").size
    assert entry(1, is_end=True).size == 0


class TestABatch:
    def made(self, gap: Event | None, *ids: str | None) -> Batch:
        entries = [
            Entry(n, 0.0, "a", Event("x", id=id) if id else None)
            for n, id in enumerate(ids)
        ]
        return Batch(gap, entries, ended=False, more=False)

    def test_its_id_is_that_of_what_it_has_last(self) -> None:
        gap = Event("lost", id="gap")
        assert self.made(gap, "1", "2").last_id == "2"
        assert self.made(gap).last_id == "gap"

    def test_without_an_event_there_is_no_id(self) -> None:
        assert self.made(None).last_id is None
        assert self.made(Event("lost", id="gap"), "1", None).last_id is None


class TestACursor:
    def test_its_id_names_the_run_of_its_first_channel(self) -> None:
        for channels, run in (((RUN, "b"), RUN), (("b", RUN), None)):
            position = parse_position(Cursor(channels, EPOCH, 7).id)
            assert position is not None
            assert (position.epoch, position.sequence) == (EPOCH, 7)
            assert position.run == (run and run.removeprefix(RUN_PREFIX))

    def test_a_floor_is_never_below_its_position(self) -> None:
        cursor = cursor_at(5, {"a": 7, "b": 3})
        assert [cursor.floor(name) for name in ("a", "b", "c")] == [7, 5, 5]
        assert cursor_at(5).floor("a") == 5

    def test_floors_that_it_has_reached_are_forgotten(self) -> None:
        cursor = cursor_at(5, {"a": 7, "b": 9})
        cursor.arrive(7)
        assert cursor.position == 7
        assert cursor.floors == {"b": 9}
        cursor.arrive(6)
        assert cursor.position == 7
        cursor.arrive(9)
        assert cursor.floors is NO_FLOORS

    def test_a_copy_is_at_the_same_place(self) -> None:
        cursor = cursor_at(5, {"a": 7})
        cursor.ended = frozenset({"b"})
        copy = cursor.copy()
        assert copy is not cursor
        for name in Cursor.__slots__:
            assert getattr(copy, name) == getattr(cursor, name)

    def test_one_that_begins_anew_knows_nothing(self) -> None:
        cursor = cursor_at(5, {"a": 7})
        cursor.ended = frozenset({"b"})
        cursor.begin("fedcba9876543210", 1)
        assert (cursor.epoch, cursor.position) == ("fedcba9876543210", 1)
        assert (cursor.floors, cursor.ended) == (NO_FLOORS, NONE_ENDED)

    @pytest.mark.parametrize(
        ("limit", "taken"), [(1, 1), (SIZE, 1), (SIZE + 1, 2), (9 * SIZE, 3)]
    )
    def test_it_steps_up_to_so_many_bytes(self, limit: int, taken: int) -> None:
        cursor, pending = cursor_at(0), [entry(n) for n in (1, 2, 3)]
        assert cursor.advance(pending, limit) == (pending[:taken], False)
        assert cursor.position == taken

    def test_it_stops_where_all_its_channels_have_ended(self) -> None:
        cursor = cursor_at(0)
        pending = [
            entry(1, "a", is_end=True),
            entry(2, "b"),
            entry(3, "b", is_end=True),
            entry(4, "b"),
        ]
        assert cursor.advance(pending, 10**6) == (pending[:3], True)
        assert cursor.position == 3
        assert cursor.ended == {"a", "b"}

    def test_a_channel_that_goes_on_has_not_ended(self) -> None:
        cursor = cursor_at(0)
        pending = [
            entry(1, "a", is_end=True),
            entry(2, "a"),
            entry(3, "b", is_end=True),
        ]
        assert cursor.advance(pending, 10**6) == (pending, False)
        assert cursor.ended == {"b"}

    def test_an_end_has_no_bytes(self) -> None:
        cursor = cursor_at(0)
        pending = [entry(1, "a", is_end=True), entry(2), entry(3)]
        assert cursor.advance(pending, SIZE + 1) == (pending, False)

    def test_it_reaches_up_to_its_highest_floor(self) -> None:
        assert cursor_at(5).reach == 5
        assert cursor_at(5, {"a": 7, "b": 3}).reach == 7
