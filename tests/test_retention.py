"""The bounds of a log: which channels are remembered, and how much is kept of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_sse_lite import Event
from flask_sse_lite.history import retention as module
from flask_sse_lite.history.cursor import Entry
from flask_sse_lite.history.records import Past, Record
from flask_sse_lite.history.retention import HISTORY_BYTES, Keeper
from flask_sse_lite.history.revocations import REVOCATIONS
from flask_sse_lite.history.sizes import STILL_FULL, excesses, goal
from flask_sse_lite.position import BEGINNING, RUN_PREFIX

from .clocks import Clock

HISTORY, AGE, RUNS_BYTES, BUDGET = 4, 10.0, 1000, 500

#: Bytes of each event here.
SIZE = 100


def tell() -> None:
    """A watcher."""


def other() -> None:
    """Another watcher."""


def event(size: int = SIZE) -> Event:
    return Event("x" * (size - Event("").size))


class Kept:
    """A keeper, and what is put into it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keeper = Keeper(HISTORY, AGE, self.clock, RUNS_BYTES)
        self.sequence = BEGINNING

    def put(self, *names: str, size: int | None = SIZE) -> list[bool]:
        """Keep an event of each channel, or (None) its end.

        :returns: for each, whether something was dropped.
        """
        dropped = []
        for name in names:
            self.sequence += 1
            now = self.clock()
            made = None if size is None else event(size)
            entry = Entry(self.sequence, now, name, made)
            before = self.count()
            self.keeper.keep(self.keeper.channel(name), entry, now)
            dropped.append(self.count() <= before)
        return dropped

    def count(self) -> int:
        """How many entries are kept of all channels."""
        return sum(len(c.entries) for c in self.keeper.channels.values())

    def kept(self, name: str) -> list[int]:
        channel = self.keeper.channels.get(name)
        return [entry.sequence for entry in channel.entries] if channel else []

    @property
    def idle(self) -> list[str]:
        return list(self.keeper._idle)

    @property
    def quiet(self) -> list[str]:
        return list(self.keeper._quiet)

    def check(self) -> None:
        """What is counted is what is there."""
        channels = self.keeper.channels.values()
        sizes = [c.size for c in channels if not c.budget]
        assert self.keeper._size == sum(sizes)
        assert sum(c.counted for c in channels) == sum(sizes)


def fill(it: Kept) -> None:
    """Put more than is kept, so that no channel can be larger than 187 bytes: two of
    sixteen then have one event, and the others two."""
    it.keeper.limit(32 * SIZE, RUNS_BYTES)
    it.put(*map(str, range(16)), *map(str, range(16)), "0")
    assert it.keeper._size == 30 * SIZE
    assert len(it.kept("0")) == len(it.kept("1")) == 1


@pytest.fixture
def it() -> Kept:
    return Kept()


class TestWhoIsRemembered:
    def test_a_channel_that_holds_something_is_idle_until_it_is_watched(
        self, it: Kept
    ) -> None:
        it.put("a", "b", "a")
        assert it.idle == ["b", "a"]
        it.keeper.watch(["a"], tell)
        assert it.idle == ["b"]
        assert it.keeper.watched == 1
        it.put("a")
        assert it.idle == ["b"]

    def test_one_that_holds_nothing_is_quiet(self, it: Kept) -> None:
        it.keeper.watch(["a", "b"], tell)
        it.keeper.leavers.append((("a", "b", "unknown"), tell))
        it.keeper.let_go(it.clock())
        assert (it.idle, it.quiet, it.keeper.watched) == ([], ["a", "b"], 0)
        assert it.keeper.channels["a"].watchers == {}
        it.keeper.touch("a", it.keeper.channels["a"], it.clock())
        assert it.quiet == ["b", "a"]
        it.put("b")
        assert (it.idle, it.quiet) == (["b"], ["a"])
        it.keeper.watch(["a"], tell)
        assert it.quiet == []

    def test_as_long_as_one_watches_it_is_neither(self, it: Kept) -> None:
        it.keeper.watch(["a"], tell)
        it.keeper.watch(["a"], other)
        it.keeper.leavers.append((("a",), tell))
        it.keeper.let_go(it.clock())
        assert list(it.keeper.channels["a"].watchers) == [other]
        assert (it.idle, it.quiet, it.keeper.watched) == ([], [], 1)

    def test_our_own_watchers_do_not_count(self, it: Kept) -> None:
        it.put(REVOCATIONS)
        assert it.keeper.watched == 0
        it.keeper.watch([REVOCATIONS, "a"], tell)
        assert it.keeper.watched == 1

    def test_when_it_was_touched_is_noted(self, it: Kept) -> None:
        it.clock.now = 3.0
        it.keeper.watch(["a"], tell)
        assert it.keeper.channels["a"].touched == 3.0
        it.clock.now = 4.0
        it.put("a")
        assert it.keeper.channels["a"].touched == 4.0

    def test_one_that_is_not_whole_is_to_be_fed_where_it_is_watched(
        self, it: Kept
    ) -> None:
        it.keeper.watch(["before"], tell)
        assert it.keeper.unfed == set()
        it.keeper.restart(7, HISTORY, AGE)
        assert not it.keeper.channel("a").is_whole
        it.keeper.watch(["a"], tell)
        assert it.keeper.unfed == {"a"}

    def test_what_a_log_that_is_fed_knows_nothing_of_is_not_remembered(
        self, it: Kept
    ) -> None:
        it.keeper.restart(7, HISTORY, AGE)
        it.keeper.watch(["a"], tell)
        it.keeper.leavers.append((("a",), tell))
        it.keeper.let_go(it.clock())
        assert it.keeper.channels == {}
        assert (it.idle, it.quiet) == ([], [])


class TestWhoIsForgotten:
    def test_the_old_are(self, it: Kept) -> None:
        it.clock.now = 100.0
        it.put("a", "b")
        it.keeper.let_go(100.0 + AGE)
        assert it.idle == ["a", "b"]
        it.keeper.let_go(100.0 + AGE + 1)
        assert it.idle == []
        assert it.keeper.channels == {}
        assert it.keeper.forgotten == 2
        it.check()

    def test_the_quiet_are_too(self, it: Kept) -> None:
        it.clock.now = 100.0
        it.keeper.touch("a", it.keeper.channel("a"), it.clock())
        it.keeper.let_go(100.0 + AGE + 1)
        assert it.keeper.channels == {}

    @pytest.mark.parametrize("holds", [True, False])
    def test_those_untouched_for_longest_are_where_there_are_too_many(
        self, it: Kept, monkeypatch: pytest.MonkeyPatch, holds: bool
    ) -> None:
        name = "MAX_IDLE_CHANNELS" if holds else "MAX_QUIET_CHANNELS"
        monkeypatch.setattr(module, name, 2)
        for each in ("a", "b", "c"):
            if holds:
                it.put(each)
            else:
                it.keeper.touch(each, it.keeper.channel(each), it.clock())
        it.keeper.let_go(it.clock())
        assert (it.idle if holds else it.quiet) == ["b", "c"]
        it.check()

    def test_no_more_at_once_than_a_publisher_can_bear(
        self, it: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it.put("a", "b", "c")
        monkeypatch.setattr(module, "MAX_FORGOTTEN_AT_ONCE", 2)
        it.keeper.let_go(it.clock() + AGE + 1)
        assert it.idle == ["c"]

    def test_the_highest_position_of_them_is_noted(self, it: Kept) -> None:
        it.put("a", "b", "a")
        it.clock.now += AGE + 1
        it.keeper.let_go(it.clock())
        assert it.keeper.forgotten == 3
        assert it.keeper.channel("a").dropped == 3

    def test_what_was_counted_of_their_output_is_forgotten(self, it: Kept) -> None:
        it.keeper.begin_run("a", BUDGET, 0)
        it.put("a")
        assert it.keeper.outputs.excess == SIZE - RUNS_BYTES
        it.clock.now += AGE + 1
        it.keeper.let_go(it.clock())
        assert it.keeper.outputs.excess == -RUNS_BYTES


class TestWhatIsKept:
    def test_too_many_go(self, it: Kept) -> None:
        assert it.put(*"aaaaa") == [False] * 4 + [True]
        assert it.kept("a") == [2, 3, 4, 5]
        it.check()

    def test_the_old_go_before_they_are_read(self, it: Kept) -> None:
        it.put("a", "b")
        it.clock.now += AGE
        assert it.keeper.evict(["a", "b", "unknown"]) is False
        it.keeper.channels["a"].unread = 5
        it.clock.now += 0.5
        it.keeper.channels["b"].touched = it.clock()
        assert it.keeper.evict(["a", "unknown"]) is True
        assert it.keeper.channels["a"].unread == 0
        assert (it.kept("a"), it.kept("b")) == ([], [2])
        assert (it.idle, it.quiet) == (["b"], ["a"])
        it.check()

    def test_a_channel_that_still_holds_something_stays_idle(self, it: Kept) -> None:
        it.put("a")
        it.clock.now += AGE
        it.put("a")
        it.clock.now += 1
        assert it.keeper.evict(["a"]) is True
        assert it.idle == ["a"]
        it.check()

    def test_a_run_that_is_long_over_counts_as_events(self, it: Kept) -> None:
        it.keeper.begin_run("a", BUDGET, 0)
        it.keeper.watch(["a"], tell)
        it.put("a")
        it.put("a", size=None)
        it.clock.now += AGE - 1
        it.put("a")
        assert it.keeper._size == 0
        it.clock.now += 2
        it.keeper.evict(["a"])
        assert it.kept("a") == [3]
        assert it.keeper._size == SIZE
        assert it.keeper.outputs.excess == -RUNS_BYTES
        it.check()

    def test_what_a_store_has_is_taken_over(self, it: Kept) -> None:
        it.clock.now = 100.0
        it.keeper.restart(9, HISTORY, AGE)
        records = [Record(n, 20.0 - n, "a", event()) for n in (5, 15, 16)]
        channel = it.keeper.fill("a", Past(4, records), 16, it.clock())
        assert it.kept("a") == [15, 16]
        assert channel is it.keeper.channels["a"]
        assert channel.touched == 100.0
        assert it.idle == ["a"]
        it.check()
        it.keeper.lose("a", channel, 15)
        assert it.kept("a") == [16]
        it.check()

    def test_output_of_which_a_store_has_nothing_counts_no_longer(
        self, it: Kept
    ) -> None:
        it.keeper.begin_run("a", BUDGET, 0)
        it.put("a")
        it.keeper.fill("a", Past(1, []), 1, it.clock())
        assert it.keeper.outputs.excess == -RUNS_BYTES
        it.check()

    def test_a_store_begins_anew(self, it: Kept) -> None:
        it.put("a", "b")
        it.keeper.touch("quiet", it.keeper.channel("quiet"), it.clock())
        it.keeper.begin_run("run", BUDGET, 0)
        it.put("run")
        it.keeper.watch(["b", "run"], tell)
        it.keeper.restart(9, 2, 5.0)
        assert list(it.keeper.channels) == ["b", "run"]
        assert (it.idle, it.quiet, it.keeper.forgotten) == ([], [], 9)
        assert (it.kept("b"), it.kept("run")) == ([], [])
        assert not it.keeper.channels["b"].is_whole
        assert it.keeper.outputs.excess == -RUNS_BYTES
        it.check()
        assert it.put("b", "b", "b") == [False, False, True]


class TestBytes:
    def test_of_events_the_oldest_of_the_largest_channel_go(self, it: Kept) -> None:
        it.put(*"aaab")
        assert it.keeper.limit(4 * SIZE, RUNS_BYTES) is False
        assert it.keeper.limit(4 * SIZE - 1, RUNS_BYTES) is True
        assert it.kept("b") == [4]
        assert it.kept("a")[-1:] == [3]
        assert it.keeper._size < 4 * SIZE
        it.check()

    def test_the_newest_stays(self, it: Kept) -> None:
        it.keeper.limit(2 * SIZE, RUNS_BYTES)
        assert it.put("a", "a") == [False, False]
        assert it.put("a") == [True]
        assert it.kept("a")[-1:] == [3]
        assert it.put("b", size=9 * SIZE) == [True]
        assert it.kept("b") == [4]
        it.check()

    def test_revocations_stay(self, it: Kept) -> None:
        it.put(REVOCATIONS, REVOCATIONS, REVOCATIONS, "a")
        it.keeper.limit(SIZE, RUNS_BYTES)
        assert it.kept(REVOCATIONS) == [1, 2, 3]
        assert it.kept("a") == []

    def test_of_runs_the_output_that_was_read_longest_ago_goes(self, it: Kept) -> None:
        for name in ("a", "b"):
            it.keeper.begin_run(name, 10 * RUNS_BYTES, it.sequence)
            it.keeper.watch([name], tell)
        assert it.put(*"abab") == [False] * 4
        it.keeper.outputs.note_read("a")
        assert it.keeper.limit(HISTORY_BYTES, 4 * SIZE - 1) is True
        assert it.kept("b") == [4]
        assert it.kept("a") == [1, 3]
        assert it.keeper.channels["b"].is_running
        it.check()

    def test_a_run_that_is_over_and_has_lost_all_is_forgotten(self, it: Kept) -> None:
        it.keeper.begin_run("a", BUDGET, 0)
        it.put("a")
        it.put("a", size=None)
        assert it.keeper.limit(HISTORY_BYTES, 0) is True
        channel = it.keeper.channels["a"]
        assert (channel.entries, channel.budget, channel.dropped) == ([], 0, 2)
        assert channel.is_whole
        assert (it.idle, it.quiet, it.keeper.forgotten) == ([], ["a"], BEGINNING)

    def test_a_run_that_goes_on_can_lose_all(self, it: Kept) -> None:
        it.keeper.begin_run("a", BUDGET, 0)
        it.put("a")
        assert it.keeper.limit(HISTORY_BYTES, 0) is True
        assert it.kept("a") == []
        assert it.keeper.channels["a"].is_running

    def test_no_more_is_dropped_than_up_to_the_goal(self, it: Kept) -> None:
        names = [f"channel-{number}" for number in range(17)]
        it.put(*names)
        it.keeper.limit(16 * SIZE, RUNS_BYTES)
        assert it.keeper._size == 15 * SIZE
        it.check()

    def test_as_long_as_it_is_full_a_publish_looks_at_its_own_channel_only(
        self, it: Kept, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = []

        def counted(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
            looks.append(sizes)
            return excesses(sizes, limit)

        monkeypatch.setattr(module, "excesses", counted)
        it.keeper.history = 99
        it.keeper.limit(32 * SIZE, RUNS_BYTES)
        it.put("small", *["large"] * 32)
        assert len(looks) == 1
        for _ in range(50):
            assert it.put("large") == [True]
            assert 28 * SIZE < it.keeper._size <= 32 * SIZE
        assert len(looks) == 1
        assert it.kept("small") == [1]
        assert it.kept("large")[-1:] == [83]
        it.check()

    def test_a_channel_that_is_cut_keeps_what_is_new(self, it: Kept) -> None:
        fill(it)
        assert it.put("1", size=190) == [True]
        assert it.kept("1") == [34]
        it.check()

    @pytest.mark.parametrize(("lost", "is_cut"), [("23", True), ("234", False)])
    def test_a_channel_is_cut_as_long_as_so_much_is_taken(
        self, it: Kept, lost: str, is_cut: bool
    ) -> None:
        fill(it)
        for name in lost:
            channel = it.keeper.channels[name]
            it.keeper.lose(name, channel, channel.entries[0].sequence)
        assert (it.keeper._size >= 32 * SIZE * STILL_FULL) is is_cut
        assert it.put("1", size=190) == [is_cut]
        it.check()

    def test_revocations_are_not_cut(self, it: Kept) -> None:
        fill(it)
        assert it.put(REVOCATIONS, REVOCATIONS, size=95) == [False, False]
        assert it.kept(REVOCATIONS) == [34, 35]

    def test_where_others_have_gone_it_can_grow_to_the_limit(self, it: Kept) -> None:
        it.keeper.history = 99
        it.keeper.limit(32 * SIZE, RUNS_BYTES)
        it.put(*["old"] * 16)
        it.clock.now += AGE / 2
        it.put(*["new"] * 17)
        assert it.put("new") == [True]
        it.clock.now += AGE / 2 + 1
        it.keeper.let_go(it.clock())
        kept = len(it.kept("new"))
        assert it.put(*["new"] * (32 - kept)) == [False] * (32 - kept)
        it.check()

    def test_where_the_limit_is_raised_it_can_grow_at_once(self, it: Kept) -> None:
        it.keeper.history = 99
        it.keeper.limit(32 * SIZE, RUNS_BYTES)
        it.put(*["a"] * 33)
        it.keeper.limit(34 * SIZE, RUNS_BYTES)
        assert it.put("a") == [False]

    @given(puts=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(10, 300))))
    def test_the_limit_holds_and_no_channel_loses_of_its_share(
        self, puts: list[tuple[str, int]]
    ) -> None:
        it = Kept()
        it.keeper.history = 99
        it.keeper.limit(10 * SIZE, RUNS_BYTES)
        for name, size in puts:
            before = {n: list(c.entries) for n, c in it.keeper.channels.items()}
            it.put(name, size=size)
            assert it.keeper._size <= 10 * SIZE
            share = goal(10 * SIZE) / len(it.keeper.channels)
            for other, channel in it.keeper.channels.items():
                had = before.get(other, [])
                had += [e for e in channel.entries if e not in had]
                lost = had[: len(had) - len(channel.entries)]
                assert channel.entries == had[len(lost) :]
                if lost:
                    assert channel.dropped == lost[-1].sequence
                    assert sum(entry.size for entry in had) > share
            it.check()

    def test_where_a_store_has_it_it_can_be_loaded_anew(self, it: Kept) -> None:
        it.keeper.restart(0, HISTORY, AGE)
        it.keeper.begin_run("a", BUDGET, 0)
        it.put("a")
        it.put("a", size=None)
        it.keeper.limit(HISTORY_BYTES, 0)
        assert it.keeper.channels == {}
        assert it.keeper.forgotten == 2


class TestRuns:
    def test_one_begins_where_none_goes_on(self, it: Kept) -> None:
        it.clock.now = 5.0
        assert it.keeper.begin_run("a", BUDGET, 3) is True
        channel = it.keeper.channels["a"]
        assert (channel.budget, channel.start, channel.touched) == (BUDGET, 3, 5.0)
        assert it.idle == ["a"]
        assert it.keeper.begin_run("a", 7, 4) is False
        assert (channel.budget, channel.start) == (BUDGET, 3)

    @pytest.mark.parametrize(
        ("name", "dropped"), [(f"{RUN_PREFIX}new", BEGINNING), ("jobs", 7)]
    )
    def test_a_name_that_was_drawn_was_never_forgotten(
        self, it: Kept, name: str, dropped: int
    ) -> None:
        it.keeper.forgotten = 7
        it.keeper.begin_run(name, BUDGET, 7)
        assert it.keeper.channels[name].dropped == dropped

    def test_a_name_that_is_known_keeps_what_is_known_of_it(self, it: Kept) -> None:
        name = f"{RUN_PREFIX}known"
        it.keeper.forgotten = 7
        it.keeper.watch([name], tell)
        it.keeper.begin_run(name, BUDGET, 7)
        assert it.keeper.channels[name].dropped == 7

    def test_what_was_kept_of_events_is_kept_of_the_run(self, it: Kept) -> None:
        it.put("a")
        it.keeper.begin_run("a", BUDGET, 1)
        assert it.keeper._size == 0
        assert it.keeper.outputs.excess == SIZE - RUNS_BYTES
        it.put("a")
        assert it.keeper.outputs.excess == 2 * SIZE - RUNS_BYTES
        it.check()
