"""A channel of the log: what is kept of it, what is dropped, and what is known of a
run there."""

from __future__ import annotations

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.channel import Channel
from flask_sse_lite.history.cursor import Entry
from flask_sse_lite.history.records import Past, Record
from flask_sse_lite.position import BEGINNING

NAME = "a"

#: More entries, and an older time, than any test here has.
MANY, ALWAYS = 100, -1.0

#: Bytes of what ``event`` makes.
SIZE = Event("x").size


def event(text: str = "x") -> Event:
    return Event(text)


def end(sequence: int, time: float = 0.0) -> Entry:
    return Entry(sequence, time, NAME, None)


def entry(sequence: int, time: float = 0.0) -> Entry:
    return Entry(sequence, time, NAME, event())


def channel_of(*entries: Entry, budget: int = 0, start: int = BEGINNING) -> Channel:
    channel = Channel(BEGINNING, is_whole=True)
    if budget:
        channel.hold(budget, start)
    for each in entries:
        channel.append(each, each.time)
    return channel


def sequences(channel: Channel) -> list[int]:
    return [each.sequence for each in channel.entries]


def size_of(channel: Channel) -> int:
    return sum(each.size for each in channel.entries)


def tell() -> None:
    """A watcher."""


class TestANewChannel:
    def test_it_holds_nothing(self) -> None:
        channel = Channel(7, is_whole=False)
        assert (channel.entries, channel.watchers) == ([], {})
        assert (channel.dropped, channel.last) == (7, 7)
        assert not channel.is_whole
        assert (channel.size, channel.counted, channel.unread) == (0, 0, 0)
        assert (channel.budget, channel.touched, channel.ended_when) == (0, 0.0, None)
        assert (channel.start, channel.read_to) == (BEGINNING, BEGINNING)
        assert not channel.is_running
        assert not channel.has_end
        assert not channel.awaits_end


class TestItGrows:
    def test_what_comes_is_counted(self) -> None:
        channel = channel_of(entry(1), entry(2))
        assert channel.size == 2 * SIZE
        assert channel.unread == 2
        assert channel.last == 2

    def test_an_end_has_no_size_and_is_no_runs_end_without_a_run(self) -> None:
        channel = channel_of(entry(1), end(2, 5.0))
        assert channel.size == SIZE
        assert channel.has_end
        assert channel.ended_when is None

    def test_the_end_of_a_run_is_awaited_until_it_comes(self) -> None:
        channel = channel_of(entry(1, 4.0), budget=1000)
        assert channel.awaits_end
        assert channel.is_running
        assert not channel.has_end
        channel.append(end(2), 5.0)
        assert not channel.awaits_end
        assert not channel.is_running
        assert channel.ended_when == 5.0

    def test_another_run_begins_where_one_was_over(self) -> None:
        channel = channel_of(end(2), budget=1000)
        channel.hold(500, 2)
        assert (channel.budget, channel.start, channel.ended_when) == (500, 2, None)
        assert channel.is_running
        assert channel.awaits_end


class TestItIsFilled:
    def test_what_it_had_gives_way_to_what_a_store_has(self) -> None:
        channel = channel_of(entry(1), budget=1000)
        channel.read_to = 1
        records = [Record(n, age, NAME, event()) for n, age in ((5, 3.0), (6, -2.0))]
        channel.fill(Past(4, records), until=6, now=10.0)
        assert channel.is_whole
        assert sequences(channel) == [5, 6]
        # What is younger than now is as old as now: clocks differ.
        assert [each.time for each in channel.entries] == [7.0, 10.0]
        assert [each.channel for each in channel.entries] == [NAME, NAME]
        assert channel.size == 2 * SIZE
        assert (channel.dropped, channel.unread) == (4, 0)
        assert (channel.budget, channel.start, channel.read_to) == (0, 0, BEGINNING)

    def test_what_came_later_is_left_out(self) -> None:
        records = [Record(n, 1.0, NAME, event()) for n in (5, 6, 7)]
        channel = Channel(BEGINNING, is_whole=False)
        channel.fill(Past(0, records, start=7, budget=1000), until=6, now=10.0)
        assert sequences(channel) == [5, 6]
        assert channel.budget == 0

    @pytest.mark.parametrize("is_over", [False, True])
    def test_a_run_goes_on_unless_its_end_is_there(self, is_over: bool) -> None:
        records = [
            Record(4, 9.0, NAME, None),
            Record(5, 9.0, NAME, None, budget=1000),
            Record(6, 8.0, NAME, event()),
            *([Record(7, 6.0, NAME, None)] if is_over else []),
        ]
        channel = Channel(BEGINNING, is_whole=False)
        channel.fill(Past(0, records, start=5, budget=1000), until=7, now=10.0)
        # The beginning of a run is no entry, and the end before it is not the run's.
        assert sequences(channel) == [4, 6, 7][: 2 + is_over]
        assert (channel.budget, channel.start) == (1000, 5)
        assert channel.is_running is channel.awaits_end is not is_over
        assert channel.ended_when == (4.0 if is_over else None)

    def test_a_run_that_began_last_is_seen(self) -> None:
        channel = Channel(BEGINNING, is_whole=False)
        channel.fill(Past(0, [], start=5, budget=1000), until=5, now=10.0)
        assert channel.is_running

    @pytest.mark.parametrize("last", [None, event()])
    def test_the_end_of_a_run_that_the_store_forgot_is_seen(
        self, last: Event | None
    ) -> None:
        channel = channel_of(budget=1000)
        records = [Record(5, 1.0, NAME, None), Record(6, 1.0, NAME, last)]
        channel.fill(Past(0, records), until=6, now=10.0)
        assert channel.awaits_end is (last is not None)

    def test_the_end_is_awaited_where_the_store_has_nothing(self) -> None:
        channel = channel_of(budget=1000)
        channel.fill(Past(0, []), until=6, now=10.0)
        assert channel.awaits_end


class TestItIsEmptied:
    def test_nothing_is_known_then(self) -> None:
        channel = channel_of(entry(1), end(2, 5.0), budget=1000, start=1)
        channel.read_to = 2
        channel.empty()
        assert channel.entries == []
        assert not channel.is_whole
        assert (channel.budget, channel.start, channel.size) == (0, BEGINNING, 0)
        assert (channel.read_to, channel.ended_when) == (BEGINNING, None)

    def test_what_a_store_has_lost_goes(self) -> None:
        channel = channel_of(entry(1), entry(2), entry(3))
        channel.lose(2)
        assert channel.dropped == 2
        assert sequences(channel) == [3]
        assert channel.size == SIZE


class TestItSheds:
    @pytest.mark.parametrize(
        ("excess", "kept"),
        [(0, [1, 2, 3]), (1, [2, 3]), (SIZE, [2, 3]), (SIZE + 1, [3]), (10**6, [])],
    )
    def test_the_oldest_go_and_no_more_than_must(
        self, excess: int, kept: list[int]
    ) -> None:
        channel = channel_of(entry(1), entry(2), entry(3))
        channel.shed(excess)
        assert sequences(channel) == kept
        assert channel.size == size_of(channel)
        assert channel.dropped == (BEGINNING if not excess else 3 - len(kept))

    def test_the_end_stays(self) -> None:
        channel = channel_of(entry(1), end(2))
        channel.shed(10**6)
        assert sequences(channel) == [2]
        assert (channel.size, channel.dropped) == (0, 1)

    def test_an_end_before_the_last_goes_only_with_what_is_behind_it(self) -> None:
        channel = channel_of(entry(1), end(2), end(3))
        channel.shed(10**6)
        assert sequences(channel) == [2, 3]

    def test_the_last_stays_where_it_must(self) -> None:
        channel = channel_of(entry(1), entry(2))
        channel.shed(10**6, keeps_last=True)
        assert sequences(channel) == [2]
        assert channel.size == SIZE

    def test_where_the_last_is_all_nothing_goes(self) -> None:
        channel = channel_of(entry(1))
        channel.shed(10**6, keeps_last=True)
        assert sequences(channel) == [1]
        assert channel.dropped == BEGINNING


class TestItEvicts:
    @pytest.mark.parametrize(
        ("history", "oldest", "kept"),
        [
            (MANY, ALWAYS, [1, 2, 3]),
            (3, 1.0, [1, 2, 3]),
            (2, ALWAYS, [2, 3]),
            (MANY, 1.5, [2, 3]),
            (2, 2.5, [3]),
            (1, 9.0, []),
        ],
    )
    def test_events_go_by_number_and_age(
        self, history: int, oldest: float, kept: list[int]
    ) -> None:
        channel = channel_of(*(entry(n, float(n)) for n in (1, 2, 3)))
        assert channel.evict(history, oldest) is (len(kept) < 3)
        assert sequences(channel) == kept
        assert channel.size == size_of(channel)
        assert channel.dropped == 3 - len(kept)

    @pytest.mark.parametrize(
        ("budget", "kept"),
        [(3 * SIZE, [1, 2, 3]), (3 * SIZE - 1, [2, 3]), (2 * SIZE, [2, 3]), (1, [])],
    )
    def test_a_runs_output_goes_by_its_budget_alone(
        self, budget: int, kept: list[int]
    ) -> None:
        channel = channel_of(entry(1), entry(2), entry(3), budget=budget)
        assert channel.evict(history=1, oldest=99.0) is (len(kept) < 3)
        assert sequences(channel) == kept
        assert channel.size == size_of(channel)
        assert channel.dropped == 3 - len(kept)

    def test_a_run_that_is_long_over_is_kept_as_events_are(self) -> None:
        channel = channel_of(entry(1, 5.0), end(2, 5.0), budget=1000)
        assert not channel.evict(history=1, oldest=5.0)
        assert channel.budget == 1000
        assert channel.evict(history=1, oldest=5.5)
        assert (channel.budget, channel.ended_when) == (0, None)
        assert sequences(channel) == []

    def test_a_run_that_goes_on_is_never_long_over(self) -> None:
        channel = channel_of(entry(1), budget=1000)
        assert not channel.evict(history=1, oldest=99.0)
        assert channel.is_running

    @pytest.mark.parametrize(
        ("level", "kept"),
        [
            (3 * SIZE, [1, 2, 3]),
            (3 * SIZE - 1, [2, 3]),
            (SIZE, [3]),
            (0, [3]),
        ],
    )
    def test_what_is_more_than_a_level_goes_but_never_the_last(
        self, level: int, kept: list[int]
    ) -> None:
        channel = channel_of(entry(1), entry(2), entry(3))
        assert channel.evict(MANY, ALWAYS, level) is (len(kept) < 3)
        assert sequences(channel) == kept
        assert channel.size == size_of(channel)
        assert channel.dropped == kept[0] - 1

    def test_no_level_takes_what_the_readers_of_a_channel_have_not_been_given(
        self,
    ) -> None:
        channel = channel_of(*map(entry, range(1, 6)))
        channel.unread = 3
        channel.watchers[tell] = None
        assert channel.evict(MANY, ALWAYS, 0)
        assert sequences(channel) == [3, 4, 5]
        channel.watchers.clear()
        assert channel.evict(MANY, ALWAYS, 0)
        assert sequences(channel) == [5]

    def test_the_last_stays_for_readers_that_were_given_up(self) -> None:
        channel = channel_of(entry(1), entry(2))
        channel.unread = -MANY
        channel.watchers[tell] = None
        assert channel.evict(MANY, ALWAYS, 0)
        assert sequences(channel) == [2]

    def test_what_is_too_much_and_what_is_above_a_level_go_together(self) -> None:
        channel = channel_of(*map(entry, range(1, 6)))
        assert channel.evict(4, ALWAYS, 2 * SIZE)
        assert sequences(channel) == [4, 5]
        assert channel.size == size_of(channel)

    def test_a_run_has_no_level_but_its_budget(self) -> None:
        channel = channel_of(entry(1), entry(2), budget=MANY * SIZE)
        assert not channel.evict(MANY, ALWAYS, 0)


class TestItIsAsked:
    @pytest.mark.parametrize(
        ("position", "found"), [(0, [2, 4]), (2, [4]), (3, [4]), (4, []), (9, [])]
    )
    def test_what_is_behind_a_position(self, position: int, found: list[int]) -> None:
        channel = channel_of(entry(2), entry(4))
        assert [each.sequence for each in channel.after(position)] == found

    def test_it_ended_where_the_last_entry_is_the_end(self) -> None:
        channel = channel_of(entry(2), end(4), entry(6), end(8))
        answers = {n: channel.ended_at(n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9)}
        assert [n for n, has_ended in answers.items() if has_ended] == [4, 5, 8, 9]

    def test_where_a_run_goes_on_it_has_not_ended(self) -> None:
        channel = channel_of(end(2))
        channel.hold(1000, 2)
        assert channel.ended_at(2) is False
        channel.append(end(3), 1.0)
        assert channel.ended_at(3)

    def test_it_has_no_end_where_it_holds_nothing_or_goes_on(self) -> None:
        assert channel_of().has_end is False
        assert channel_of(end(1), entry(2)).has_end is False
        assert channel_of().ended_at(9) is False
