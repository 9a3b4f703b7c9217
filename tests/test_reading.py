"""What a log tells of what it keeps: to readers, to runs, to those who come back."""

from __future__ import annotations

import threading

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.cursor import NO_FLOORS
from flask_sse_lite.history.log import Log
from flask_sse_lite.history.reading import SHARED_CHARACTERS
from flask_sse_lite.position import BEGINNING, RUN_PREFIX, position_id

from .batches import data_of, lost_in
from .clocks import Clock
from .patience import patient

EPOCH, OTHER_EPOCH = "0123456789abcdef", "fedcba9876543210"
HISTORY, AGE, BUDGET = 4, 10.0, 10_000
ALL = 1 << 30

#: Seconds after which a thread counts as one that waits.
TOO_LONG = patient(30.0)

SIZE = len(Event("1").published("a", f"{EPOCH}-1").encode())


def tell() -> None:
    """A watcher."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> Log:
    return Log(history=HISTORY, age=AGE, epoch=EPOCH, clock=clock)


def publish(log: Log, channel: str, *texts: str) -> None:
    for text in texts:
        log.append(channel, Event(text))


class TestWatching:
    def test_there_is_room_for_so_many(self, log: Log) -> None:
        log.watch(["a", "b"], tell)
        assert log.has_room(["c"], 3)
        # Whoever still has room waits for no lock.
        with log._lock:
            thread = threading.Thread(target=log.has_room, args=(["c"], 3))
            thread.start()
            thread.join(TOO_LONG)
            assert not thread.is_alive()
        assert not log.has_room(["c"], 2)
        assert not log.has_room(["c", "d"], 3)

    def test_who_is_watched_already_needs_no_room(self, log: Log) -> None:
        log.watch(["a", "b"], tell)
        assert log.has_room(["a", "b"], 2)
        assert log.has_room(["a"], 1)
        assert log.has_room(["a", "c"], 3)
        assert not log.has_room(["a", "c"], 2)
        publish(log, "kept", "1")
        assert not log.has_room(["kept"], 2)

    def test_who_has_left_makes_room(self, log: Log) -> None:
        log.watch(["a"], tell)
        with log._lock:
            # The lock is taken, so that the one who leaves does not wait for it.
            log.unwatch(["a"], tell)
            assert log._keeper.watched == 1
        assert log.has_room(["b"], 1)

    def test_who_leaves_is_removed_at_once_where_nobody_is_in_the_way(
        self, log: Log
    ) -> None:
        log.watch(iter(["a"]), tell)
        log.unwatch(iter(["a"]), tell)
        assert log._keeper.watched == 0
        assert not log._keeper.leavers

    def test_revocations_are_asked_for_by_number(self, log: Log) -> None:
        assert log.revoked_since(log.revocations.newest) == []

    def test_a_lower_bound_ends_what_readers_share(self, log: Log) -> None:
        publish(log, "a", "1", "2", "3")
        first, second = log.cursor(["a"], last=9), log.cursor(["a"], last=9)
        first.floors = second.floors = NO_FLOORS
        log.read(first, ALL)
        log.limit(1, ALL)
        batch = log.read(second, ALL)
        assert lost_in(batch) == ["a"]


class TestRuns:
    def test_nothing_is_known_where_none_was(self, log: Log) -> None:
        publish(log, "a", "1")
        for channel in ("a", "unknown"):
            assert log.run_start(channel) is None
            assert log.is_running(channel) is False
            assert log.has_been_read(channel) is False
            assert log.was_ended(channel, 1) is False
        assert log.unread("unknown") == 0
        assert (log.remembers("a"), log.remembers("unknown")) == (True, False)

    def test_a_run_that_has_said_nothing_is_known(self, log: Log) -> None:
        publish(log, "b", "1", "2")
        assert log.hold("a", BUDGET) == 2
        assert log.run_start("a") == 2
        assert log.is_running("a") is True
        assert log.remembers("a") is True
        assert (log.unread("a"), log.has_been_read("a")) == (0, False)

    def test_what_was_read_is_noted(self, log: Log) -> None:
        start = log.hold("a", BUDGET)
        assert start is not None
        cursor = log.cursor(["a"])
        for text in ("1", "2"):
            log.say("a", start, Event(text))
        assert log.unread("a") == 2 * SIZE
        assert log.has_been_read("a") is False
        log.read(cursor, 1)
        assert log.unread("a") == SIZE
        assert log.has_been_read("a") is True
        log.read(log.cursor(["a"], since=f"{EPOCH}-0"), 1)
        log.read(log.cursor(["a"], since=f"{EPOCH}-1"), ALL)
        assert log.unread("a") == 0
        # One who reads it again does not make it unread.
        log.read(log.cursor(["a"], since=f"{EPOCH}-0"), 1)
        assert log.unread("a") == 0

    def test_an_end_is_the_end_of_the_run_that_went_on(self, log: Log) -> None:
        start = log.hold("a", BUDGET)
        assert start is not None
        assert log.was_ended("a", start) is False
        log.end("a")
        assert log.was_ended("a", start) is True
        assert log.was_ended("a", start + 1) is False
        publish(log, "a", "behind it")
        assert log.was_ended("a", start) is True
        later = log.hold("a", BUDGET)
        assert later is not None
        assert log.was_ended("a", start) is True
        assert log.was_ended("a", later) is False

    def test_what_is_long_over_is_forgotten(self, log: Log, clock: Clock) -> None:
        log.hold("a", BUDGET)
        log.end("a")
        publish(log, "b", "1")
        clock.now += AGE + 1
        assert log.run_start("a") is None
        assert log.remembers("a") is False
        assert log.remembers("b") is False


class TestComing:
    def test_a_position_is_an_id(self, log: Log) -> None:
        assert log.position() == f"{EPOCH}-0"
        publish(log, "a", "1")
        assert log.position() == f"{EPOCH}-1"
        assert log.position(0) == f"{EPOCH}-0"
        assert log.position(7) == f"{EPOCH}-7"

    def test_names_are_shared_unless_they_are_long(self, log: Log) -> None:
        def names(length: int) -> tuple[str, ...]:
            return log.cursor(["x" * (length - 1), "y"]).channels

        assert names(SHARED_CHARACTERS) is names(SHARED_CHARACTERS)
        assert names(SHARED_CHARACTERS + 1) is not names(SHARED_CHARACTERS + 1)

    def test_a_name_counts_once(self, log: Log) -> None:
        assert log.cursor(["b", "a", "b"]).channels == ("b", "a")

    @pytest.mark.parametrize(
        ("last", "data"),
        [
            (-1, []),
            (0, []),
            (1, ["3", "5"]),
            (2, ["1", "3", "5"]),
            (9, ["1", "3", "5"]),
        ],
    )
    def test_a_newcomer_gets_the_last_of_each_channel(
        self, log: Log, last: int, data: list[str]
    ) -> None:
        publish(log, "a", "1")
        log.end("a")
        publish(log, "a", "3")
        log.end("b")
        publish(log, "b", "5")
        publish(log, "other", "6")
        cursor = log.cursor(["a", "b", "empty"], last=last)
        batch = log.read(cursor, ALL)
        assert batch.gap is None
        assert data_of(batch) == data
        assert cursor.position == 6

    def test_an_end_that_it_has_behind_it_is_known(self, log: Log) -> None:
        log.end("a")
        publish(log, "b", "2")
        log.end("b")
        assert log.cursor(["a", "b", "c"]).ended == {"a", "b"}
        assert log.cursor(["a", "b"], last=1).ended == {"a"}
        assert log.cursor(["a", "b"], since=f"{EPOCH}-2").ended == {"a"}

    def test_whether_a_new_cursor_is_finished(self, log: Log) -> None:
        log.end("a")
        assert log.is_finished(log.cursor(["a"]))
        assert log.is_finished(log.cursor(["a", "b"])) is False
        publish(log, "b", "2")
        log.end("b")
        assert log.is_finished(log.cursor(["a", "b"]))
        assert not log.is_finished(log.cursor(["a", "b"], last=1))
        cursor = log.cursor(["a"])
        cursor.epoch = OTHER_EPOCH
        assert not log.is_finished(cursor)
        behind = log.cursor(["b"])
        behind.position = 1
        assert not log.is_finished(behind)


class TestComingBack:
    @pytest.mark.parametrize(
        ("id", "known"),
        [
            (f"{EPOCH}-0", True),
            (f"{EPOCH}-2", True),
            (f"{EPOCH}-3", False),
            (f"{OTHER_EPOCH}-1", False),
            ("own", True),
            (" own ", True),
            ("unknown", False),
            ("", False),
        ],
    )
    def test_an_id_is_known(self, log: Log, id: str, known: bool) -> None:
        log.append("a", Event("1", id=" own"))
        publish(log, "a", "2")
        assert log.knows(["a"], id) is known

    def test_an_id_is_known_in_its_own_channels(self, log: Log) -> None:
        log.append("a", Event("1", id="own"))
        log.end("a")
        assert log.knows(["b", "unknown", "a"], "own")
        assert not log.knows(["b"], "own")

    def test_of_two_with_an_id_the_newer_counts(self, log: Log) -> None:
        for text in ("1", "2"):
            log.append("a", Event(text, id="own"))
        publish(log, "a", "3")
        assert data_of(log.read(log.cursor(["a"], since="own"), ALL)) == ["3"]

    def test_what_it_came_with_is_told_once(self, log: Log) -> None:
        cursor = log.cursor(["a"], since="unknown")
        gap = log.read(cursor, ALL).gap
        assert gap is not None
        assert gap.json["since"] == "unknown"
        assert cursor.since == ""
        assert cursor.epoch is log.epoch
        assert log.read(cursor, ALL).gap is None


class TestReading:
    def test_it_is_told_where_there_is_more(self, log: Log) -> None:
        cursor = log.cursor(["a"])
        publish(log, "a", "1", "2", "3")
        batch = log.read(cursor, 1)
        assert (data_of(batch), batch.more, cursor.position) == (["1"], True, 1)
        batch = log.read(cursor, ALL)
        assert (data_of(batch), batch.more, cursor.position) == (["2", "3"], False, 3)

    @pytest.mark.parametrize("until", [1, 2, 3, 9])
    def test_it_is_read_up_to_a_position(self, log: Log, until: int) -> None:
        cursor, other = log.cursor(["a", "b"]), log.cursor(["a", "b"])
        publish(log, "a", "1")
        publish(log, "b", "2")
        publish(log, "a", "3")
        batch = log.read(cursor, ALL, until)
        assert data_of(batch) == ["1", "2", "3"][:until]
        assert cursor.position == min(until, 3)
        assert not batch.more
        assert data_of(log.read(other, ALL)) == ["1", "2", "3"]

    def test_those_at_one_place_share_a_step(self, log: Log) -> None:
        first, second = log.cursor(["a"]), log.cursor(["a"])
        second.since = "something"
        publish(log, "a", "1")
        publish(log, "b", "2")
        batch = log.read(first, ALL)
        assert log.read(second, ALL) is batch
        assert second.position == first.position == 2
        assert second.since == ""

    def test_those_elsewhere_share_none(self, log: Log) -> None:
        cursors = [log.cursor(["a"]) for _ in range(7)]
        first, further, bounded, short, old, floored, ended = cursors
        other = log.cursor(["b"])
        publish(log, "a", "1", "2")
        further.position = 1
        old.epoch = OTHER_EPOCH
        floored.floors = {"a": 1}
        ended.ended = frozenset({"a"})
        batch = log.read(first, ALL)
        assert data_of(log.read(further, ALL)) == ["2"]
        log.read(log.cursor(["a"], since=f"{EPOCH}-0"), ALL)
        assert data_of(log.read(bounded, ALL, 1)) == ["1"]
        assert data_of(log.read(short, ALL - 1)) == ["1", "2"]
        assert lost_in(log.read(old, ALL)) == ["a"]
        assert data_of(log.read(floored, ALL)) == ["2"]
        again = log.read(ended, ALL)
        assert again is not batch
        assert ended.ended == frozenset()
        assert data_of(log.read(other, ALL)) == []

    def test_nobody_shares_a_step_to_where_the_log_no_longer_is(self, log: Log) -> None:
        first, second = log.cursor(["a"]), log.cursor(["a"])
        publish(log, "a", "1")
        log.read(first, ALL)
        publish(log, "a", "2")
        assert data_of(log.read(second, ALL)) == ["1", "2"]

    def test_nobody_shares_a_step_over_what_is_too_old(
        self, log: Log, clock: Clock
    ) -> None:
        first, second = log.cursor(["a"]), log.cursor(["a"])
        publish(log, "a", "1")
        log.read(first, ALL)
        clock.now += AGE + 1
        log.remembers("a")
        assert lost_in(log.read(second, ALL)) == ["a"]

    def test_one_who_reads_what_is_too_old_ends_what_others_share(
        self, log: Log, clock: Clock
    ) -> None:
        first, second, third = (log.cursor(["a"]) for _ in range(3))
        publish(log, "a", "1")
        log.read(first, ALL)
        clock.now += AGE + 1
        third.floors = {"a": 1}
        log.read(third, ALL)
        assert lost_in(log.read(second, ALL)) == ["a"]

    def test_the_output_of_a_run_that_is_read_is_kept_for_longer(
        self, log: Log
    ) -> None:
        cursor = log.cursor(["a"])
        for name in ("a", "b"):
            start = log.hold(name, BUDGET)
            assert start is not None
            log.say(name, start, Event("1"))
        log.read(cursor, ALL)
        log.limit(ALL, SIZE)
        assert (log.unread("b"), log.run_start("a")) == (0, 0)
        assert data_of(log.read(log.cursor(["a"], last=1), ALL)) == ["1"]

    def test_an_operator_is_shown_what_there_is(self, log: Log) -> None:
        publish(log, "a", "1")
        assert len(log.glances({}, 9)) == 1

    def test_events_of_several_channels_are_in_order(self, log: Log) -> None:
        cursor = log.cursor(["a", "b", "c"])
        publish(log, "b", "1")
        publish(log, "a", "2")
        publish(log, "b", "3")
        assert data_of(log.read(cursor, ALL)) == ["1", "2", "3"]

    def test_the_end_of_all_is_told(self, log: Log) -> None:
        cursor = log.cursor(["a", "b"])
        log.end("a")
        assert not log.read(cursor, ALL).ended
        log.end("b")
        publish(log, "b", "3")
        batch = log.read(cursor, ALL)
        assert (batch.ended, batch.more, cursor.position) == (True, False, 2)

    def test_how_far_it_is_behind(self, log: Log) -> None:
        cursor = log.cursor(["a", "b", "unknown"])
        assert log.behind(cursor) == 0
        publish(log, "a", "1", "2")
        log.end("b")
        publish(log, "other", "4")
        assert log.behind(cursor) == 2
        cursor.floors = {"a": 1}
        assert log.behind(cursor) == 1
        cursor.position = 99
        assert log.behind(cursor) == 0
        cursor.epoch = OTHER_EPOCH
        assert log.behind(cursor) == 2


class TestGaps:
    def test_what_is_lost_of_which_channel(self, log: Log) -> None:
        cursor = log.cursor(["a", "b"])
        publish(log, "b", "1")
        publish(log, "a", *map(str, range(HISTORY + 1)))
        batch = log.read(cursor, ALL)
        assert lost_in(batch) == ["a"]
        assert batch.gap is not None
        assert batch.gap.json["since"] == f"{EPOCH}-0"
        # Who comes back with the gap's id gets what comes behind the gap.
        assert batch.gap.id == f"{EPOCH}-0"
        assert data_of(batch) == ["1", "1", "2", "3", "4"]
        assert log.read(cursor, ALL).gap is None

    def test_the_gap_of_a_run_has_an_id_of_the_run(self, log: Log) -> None:
        name = RUN_PREFIX + "Ab_-" * 5 + "yz"
        cursor = log.cursor([name, "b"], since="unknown")
        gap = log.read(cursor, ALL).gap
        assert gap is not None
        assert gap.id == position_id(EPOCH, BEGINNING, name)

    def test_what_was_dropped_before_it_came_is_not_lost(self, log: Log) -> None:
        publish(log, "a", *map(str, range(HISTORY + 1)))
        dropped = f"{EPOCH}-1"
        assert log.read(log.cursor(["a"], since=dropped), ALL).gap is None
        assert log.read(log.cursor(["a"], since=f"{EPOCH}-0"), ALL).gap is not None

    def test_what_was_lost_has_not_ended(self, log: Log) -> None:
        log.end("a")
        cursor = log.cursor(["a", "b"])
        publish(log, "a", *map(str, range(HISTORY + 1)))
        log.end("b")
        batch = log.read(cursor, ALL)
        assert lost_in(batch) == ["a"]
        assert cursor.ended == {"b"}
        assert not batch.ended

    def test_a_channel_that_was_forgotten_is_lost(self, log: Log, clock: Clock) -> None:
        publish(log, "a", "1")
        publish(log, "b", "2")
        clock.now += AGE + 1
        publish(log, "c", "3")
        assert lost_in(log.read(log.cursor(["a"], since=f"{EPOCH}-1"), ALL)) == ["a"]
        assert lost_in(log.read(log.cursor(["a"], since=f"{EPOCH}-2"), ALL)) == []

    def test_what_is_not_known_of_a_channel_can_be_lost(self, log: Log) -> None:
        log.watch(["a"], tell)
        cursor = log.cursor(["a"])
        log._channels["a"].is_whole = False
        log._keeper.forgotten = 7
        batch = log.read(cursor, ALL)
        assert lost_in(batch) == ["a"]
        assert cursor.floor("a") == 7
