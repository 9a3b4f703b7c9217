"""A log that is fed from a store gives its readers the same as one that grows by
itself. What it cannot give, it tells them."""

from __future__ import annotations

import threading

import pytest

from flask_sse_lite import Event
from flask_sse_lite.history.channel import Channel
from flask_sse_lite.history.cursor import Cursor
from flask_sse_lite.history.fed import FedLog
from flask_sse_lite.history.records import Past, Record
from flask_sse_lite.history.retention import MAX_IDLE_CHANNELS, MAX_QUIET_CHANNELS
from flask_sse_lite.history.revocations import LEEWAY, REVOCATIONS, Revocation
from flask_sse_lite.position import RUN_PREFIX

from .batches import data_of
from .clocks import Clock

ALL = 1 << 30
OLD = "0123456789abcdef"
NEW = "fedcba9876543210"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> FedLog:
    """A log of four events per channel, kept for ten seconds. Its store is at position
    100."""
    log = FedLog(clock=clock)
    log.restart(OLD, 100, {}, history=4, age=10)
    assert log.unfed() == [REVOCATIONS]
    return log


def record(
    sequence: int,
    channel: str = "a",
    data: str | None = "",
    age: float = 0,
    epoch: str = OLD,
) -> Record:
    """A record of a store. Its data is its sequence number by default; None makes it an
    end."""
    event = None
    if data is not None:
        id = f"{epoch}-{sequence}"
        event = Event(data or str(sequence), id=id, channel=channel)
    return Record(sequence, age, channel, event)


def past(*sequences: int, channel: str = "a", dropped: int = 0) -> Past:
    return Past(dropped, [record(sequence, channel) for sequence in sequences])


def feed(log: FedLog, *sequences: int, channel: str = "a") -> None:
    for sequence in sequences:
        log.feed(record(sequence, channel))


def read(log: FedLog, cursor: Cursor) -> list[str]:
    """The data of what a cursor reads; the test fails at a gap."""
    batch = log.read(cursor, ALL)
    assert batch.gap is None
    return data_of(batch)


def test_it_stands_where_the_store_does(log: FedLog) -> None:
    assert (log.epoch, log.sequence) == (OLD, 100)
    assert log.position() == f"{OLD}-100"
    assert log.cursor(["a"]).id == f"{OLD}-100"


def test_what_is_fed_is_read_as_it_stands_in_the_store(log: FedLog) -> None:
    log.load({"a": past(), "b": past()})
    cursor = log.cursor(["a", "b"])
    feed(log, 101, 102)
    feed(log, 103, channel="b")
    batch = log.read(cursor, ALL)
    assert [entry.event.id for entry in batch.entries if entry.event] == [
        f"{OLD}-{n}" for n in (101, 102, 103)
    ]
    assert batch.last_id == f"{OLD}-103"
    assert log.sequence == 103


def test_who_watches_a_channel_is_told_of_what_is_fed(log: FedLog) -> None:
    log.load({"a": past(), "b": past()})
    told: list[int] = []
    log.watch(["a"], lambda: told.append(log.sequence))
    feed(log, 101)
    feed(log, 102, channel="b")
    log.feed(record(103, data=None))
    assert told == [101, 103]


def test_the_end_of_a_channel_is_fed_too(log: FedLog) -> None:
    log.load({"a": past()})
    cursor = log.cursor(["a"])
    log.feed(record(101, data=None))
    assert log.read(cursor, ALL).ended
    assert log.is_finished(log.cursor(["a"]))


def test_what_is_loaded_is_resumed_from(log: FedLog) -> None:
    log.load({"a": past(90, 95), "b": past(93, 99, channel="b")})
    cursor = log.cursor(["a", "b"], f"{OLD}-91")
    feed(log, 101)
    assert read(log, cursor) == ["93", "95", "99", "101"]


def test_what_the_store_dropped_is_a_gap(log: FedLog) -> None:
    log.load({"a": past(90, 95, dropped=80)})
    assert read(log, log.cursor(["a"], f"{OLD}-80")) == ["90", "95"]
    batch = log.read(log.cursor(["a"], f"{OLD}-79"), ALL)
    assert batch.gap is not None
    assert batch.gap.id == f"{OLD}-80"
    assert data_of(batch) == ["90", "95"]


def test_what_was_published_since_the_last_feed_is_left_to_the_next(
    log: FedLog,
) -> None:
    log.load({"a": past(99, 101, 102)})
    cursor = log.cursor(["a"], f"{OLD}-98")
    assert read(log, cursor) == ["99"]
    feed(log, 101, 102)
    assert read(log, cursor) == ["101", "102"]


def test_the_age_in_the_store_counts(log: FedLog, clock: Clock) -> None:
    log.load({"a": Past(0, [record(98, age=11), record(99, age=8)])})
    assert data_of(log.read(log.cursor(["a"], f"{OLD}-97"), ALL)) == ["99"]
    log.feed(record(101, age=1))
    clock.now += 3
    assert data_of(log.read(log.cursor(["a"], f"{OLD}-97"), ALL)) == ["101"]
    clock.now += 7
    assert data_of(log.read(log.cursor(["a"], f"{OLD}-97"), ALL)) == []


def test_an_event_from_the_future_is_new(log: FedLog, clock: Clock) -> None:
    log.load({"a": past()})
    log.feed(record(101, age=-1000))
    clock.now += 10
    assert read(log, log.cursor(["a"], f"{OLD}-100")) == ["101"]
    clock.now += 1
    assert log.read(log.cursor(["a"], f"{OLD}-100"), ALL).gap


def test_the_stores_retention_holds(log: FedLog) -> None:
    log.load({"a": past(91, 92, 93, 94, 95)})
    batch = log.read(log.cursor(["a"], f"{OLD}-90"), ALL)
    assert batch.gap
    assert data_of(batch) == ["92", "93", "94", "95"]


def test_it_says_which_channels_are_to_be_loaded(log: FedLog) -> None:
    assert log.missing(["a", "b"]) == ["a", "b"]
    log.load({"b": past()})
    assert log.missing(["a", "b"]) == ["a"]
    assert (log.holds("a"), log.holds("b")) == (False, True)
    assert log.held() == ["b"]


def test_a_channel_that_is_only_watched_is_still_to_be_loaded(log: FedLog) -> None:
    told: list[bool] = []
    log.watch(["a"], lambda: told.append(True))
    cursor = log.cursor(["a"], f"{OLD}-95")
    assert log.missing(["a"]) == ["a"]
    log.load({"a": past(96)})
    assert told == [True]
    assert read(log, cursor) == ["96"]


def test_what_is_wanted_stays_for_its_age(log: FedLog, clock: Clock) -> None:
    log.load({"a": past()})
    clock.now += 9
    assert log.missing(["a"]) == []
    clock.now += 9
    log.load({"b": past()})
    log.unwatch([], print)
    assert log.holds("a")
    clock.now += 2
    log.unwatch([], print)
    assert not log.holds("a")


def test_a_channel_that_was_forgotten_is_not_taken_for_complete(
    log: FedLog, clock: Clock
) -> None:
    log.load({"a": past()})
    cursor = log.cursor(["a"])
    clock.now += 11
    log.unwatch([], print)
    assert not log.holds("a")
    feed(log, 101)
    log.watch(["a"], lambda: None)
    batch = log.read(cursor, ALL)
    assert batch.gap is not None
    assert batch.gap.json == {"since": f"{OLD}-100", "channels": ["a"]}
    log.load({"a": past(101)})
    assert read(log, log.cursor(["a"], f"{OLD}-100")) == ["101"]


def test_what_was_passed_over_is_not_taken_for_nothing(log: FedLog) -> None:
    cursor = log.cursor(["a"])
    log.advance(105)
    assert log.read(cursor, ALL).gap
    assert log.sequence == 105


def test_what_is_held_is_complete_where_nothing_was_fed_of_it(log: FedLog) -> None:
    log.load({"a": past()})
    cursor = log.cursor(["a"])
    log.advance(105)
    assert read(log, cursor) == []
    assert cursor.id == f"{OLD}-105"


def test_a_hole_is_a_gap_for_who_stands_before_it(log: FedLog) -> None:
    log.load({"a": past(99), "b": past()})
    before, behind, other = (
        log.cursor(["a"], f"{OLD}-99"),
        log.cursor(["a"]),
        log.cursor(["b"]),
    )
    log.lose("a", 110)
    feed(log, 111)
    for cursor in (before, behind):
        batch = log.read(cursor, ALL)
        assert batch.gap is not None
        assert batch.gap.id == f"{OLD}-110"
        assert data_of(batch) == ["111"]
    assert read(log, other) == []
    assert read(log, log.cursor(["a"], f"{OLD}-110")) == ["111"]


def test_who_watches_is_told_of_a_hole(log: FedLog) -> None:
    told: list[bool] = []
    log.load({"a": past()})
    log.watch(["a"], lambda: told.append(True))
    log.lose("a", 110)
    assert told == [True]
    for channel, dropped in (("a", 110), ("a", 109), ("never", 110)):
        log.lose(channel, dropped)
    assert told == [True]


def test_nothing_is_fed_twice(log: FedLog) -> None:
    with pytest.raises(ValueError, match="comes behind"):
        feed(log, 100)


def test_to_advance_to_where_it_stands_changes_nothing(log: FedLog) -> None:
    log.advance(100)
    assert log.sequence == 100
    assert read(log, log.cursor(["a"], f"{OLD}-100")) == []


def test_the_highest_position_that_was_dropped_is_told(log: FedLog) -> None:
    assert log.dropped("a") == 0
    log.load({"a": past(90, dropped=80)})
    assert log.dropped("a") == 80


def test_between_the_positions_of_a_void_nothing_is_known(log: FedLog) -> None:
    log.load({"a": past(dropped=10)})
    log.voids.append((20, 30))
    known = [n for n in (10, 19, 20, 21, 29, 30, 31) if log.knows(["a"], f"{OLD}-{n}")]
    assert known == [10, 19, 20, 30, 31]


def test_a_channel_that_is_watched_no_more_need_not_be_loaded(log: FedLog) -> None:
    watcher = lambda: None  # noqa: E731
    log.watch(["a", "b"], watcher)
    log.unwatch(["a"], watcher)
    assert log.unfed() == ["b"]


# Runs


def begin_run(log: FedLog, sequence: int, channel: str) -> None:
    log.feed(Record(sequence, 0.0, channel, None, budget=1000))


def test_a_run_is_fed_from_its_beginning_to_its_end(log: FedLog) -> None:
    log.load({"a": past()})
    told: list[int] = []
    log.watch(["a"], lambda: told.append(log.sequence))
    feed(log, 101)
    assert not log.is_running("a")
    begin_run(log, 102, "a")
    assert log.is_running("a")
    # Of a run more is kept than of a channel.
    feed(log, *range(103, 113))
    log.feed(record(113, data=None))
    assert not log.is_running("a")
    assert told == list(range(101, 114))
    batch = log.read(log.cursor(["a"], f"{OLD}-102"), ALL)
    assert (batch.gap, batch.ended) == (None, True)
    assert data_of(batch) == [str(n) for n in range(103, 113)]


def test_only_what_is_watched_and_belongs_to_a_run_awaits_its_end(log: FedLog) -> None:
    names = ["events", "job", f"{RUN_PREFIX}1", f"{RUN_PREFIX}2"]
    log.load({name: past() for name in [*names, "other", f"{RUN_PREFIX}3"]})
    log.watch(names, lambda: None)
    feed(log, 101, channel="events")
    for sequence, name in enumerate(("job", "other"), 102):
        begin_run(log, sequence, name)
    assert log.awaiting_end() == ["job", *names[2:]]
    for sequence, name in enumerate(("job", f"{RUN_PREFIX}2"), 104):
        log.feed(record(sequence, name, data=None))
    assert log.awaiting_end() == [f"{RUN_PREFIX}1"]


# Bytes


def test_no_more_is_loaded_than_there_is_room_for(log: FedLog) -> None:
    size = record(99).event.size  # type: ignore[union-attr]
    log.limit(4 * size, ALL)
    log.load({"a": past(97, 98, 99)})
    assert read(log, log.cursor(["a"], f"{OLD}-96")) == ["97", "98", "99"]
    log.load({"b": past(95, 96, channel="b")})
    assert log.read(log.cursor(["a", "b"], f"{OLD}-94"), ALL).gap
    log.watch(["a"], lambda: None)
    log.restart(NEW, 99, {"a": past(*range(95, 100))}, history=9, age=10)
    assert log.read(log.cursor(["a"], f"{NEW}-94"), ALL).gap


# Revocations


def revoked(*ages: float, dropped: int = 0) -> dict[str, Past]:
    """The past of a store in which ann was revoked so many seconds ago."""
    event = Revocation("ann", None).to_event()
    records = [Record(n, age, REVOCATIONS, event) for n, age in enumerate(ages, 90)]
    return {REVOCATIONS: Past(dropped, records)}


def concerned(log: FedLog, identity: str, seconds: float, seen: int = -1) -> bool:
    """Whether a client that was let in so many seconds ago must be let in anew."""
    return log.revocations.concern(
        identity, ("a",), log._clock() - seconds + LEEWAY, seen
    )


def test_nobody_is_sent_off_where_a_process_begins(log: FedLog) -> None:
    assert log.revocations.newest == 0
    log.load({"a": past()})
    assert log.revocations.newest == 0


def test_revocations_are_known_for_as_long_as_they_are_retained(log: FedLog) -> None:
    log.load(revoked(7, 5))
    assert concerned(log, "ann", 5)
    assert not concerned(log, "ann", 4.9)
    assert concerned(log, "bob", 10)
    assert not concerned(log, "bob", 9.9)


@pytest.mark.parametrize(
    ("ages", "dropped", "since"),
    [
        ([8, 7, 6, 5], 1, 8),  # There were more than a channel keeps.
        ([8, 7, 6, 5], 0, 10),
        ([8, 7, 6], 1, 10),  # What was dropped was older than what is retained.
    ],
)
def test_where_there_were_too_many_nothing_is_known_of_those_before_them(
    log: FedLog, ages: list[float], dropped: int, since: float
) -> None:
    log.load(revoked(*ages, dropped=dropped))
    assert concerned(log, "bob", since)
    assert not concerned(log, "bob", since - 0.1)


def test_another_life_that_retains_all_revocations_sends_nobody_off(
    log: FedLog, clock: Clock
) -> None:
    log.load(revoked())
    seen = log.revocations.newest
    clock.now += 10
    log.restart(NEW, 100, revoked(), history=4, age=10)
    assert not concerned(log, "bob", 10, seen)
    log.restart(OLD, 100, revoked(7), history=4, age=10)
    assert not concerned(log, "bob", 10, seen)
    assert concerned(log, "ann", 7, seen)


def test_whose_revocation_can_be_lost_between_two_lives_is_sent_off(
    log: FedLog, clock: Clock
) -> None:
    log.load(revoked())
    seen = log.revocations.newest
    log.restart(NEW, 100, revoked(8, 7, 6, 5, dropped=1), history=4, age=10)
    assert concerned(log, "bob", 8, seen)
    assert not concerned(log, "bob", 7, seen)
    seen = log.revocations.newest
    clock.now += 11
    log.restart(OLD, 100, revoked(), history=4, age=10)
    assert concerned(log, "bob", 11, seen)
    assert not concerned(log, "bob", 9, seen)


def test_a_revocation_that_is_fed_is_known(log: FedLog, clock: Clock) -> None:
    log.load({"a": past(), **revoked()})
    event = Revocation("ann", None).to_event()
    feed(log, 101)
    assert log.revocations.newest == 0
    log.feed(Record(102, 0.0, REVOCATIONS, event))
    assert concerned(log, "ann", 0, 0)
    assert not concerned(log, "bob", 5, 0)


def test_revocations_that_are_lost_send_everybody_off(log: FedLog) -> None:
    log.load({"a": past(), **revoked()})
    log.lose("a", 110)
    assert log.revocations.newest == 0
    log.lose(REVOCATIONS, 111)
    assert concerned(log, "bob", 0, 0)
    assert not concerned(log, "bob", -0.1, 0)


def test_a_channel_that_was_forgotten_before_it_was_watched_is_to_be_loaded(
    log: FedLog, clock: Clock
) -> None:
    log.load({"a": past(99)})
    cursor = log.cursor(["a"], f"{OLD}-98")
    assert log.unfed() == []
    clock.now += 11
    log.unwatch([], print)
    log.watch(["a"], lambda: None)
    assert log.has_unfed
    assert log.unfed() == ["a"]
    assert log.unfed() == []
    log.load({"a": past(99)})
    feed(log, 101)
    assert read(log, cursor) == ["99", "101"]


# Another life


def test_a_live_reader_is_told_of_another_life_by_a_gap(log: FedLog) -> None:
    log.load({"a": past(), "b": past()})
    told: list[bool] = []
    cursor = log.cursor(["a", "b"])
    log.watch(["a", "b"], lambda: told.append(True))
    feed(log, 101)
    assert read(log, cursor) == ["101"]
    pasts = {
        "a": Past(1, [record(2, epoch=NEW), record(5, epoch=NEW)]),
        "b": Past(0, []),
    }
    told.clear()
    log.restart(NEW, 5, pasts, history=4, age=10)
    assert told == [True]
    batch = log.read(cursor, ALL)
    assert batch.gap is not None
    assert batch.gap.json == {"since": f"{OLD}-101", "channels": ["a", "b"]}
    assert batch.gap.id == f"{NEW}-0"
    assert data_of(batch) == ["2", "5"]
    assert read(log, cursor) == []
    assert cursor.id == f"{NEW}-5"


def test_all_who_read_together_are_told_of_another_life(log: FedLog) -> None:
    log.load({"a": past()})
    watcher = lambda: None  # noqa: E731
    log.watch(["a"], watcher)
    cursors = [log.cursor(["a"]) for _ in range(3)]
    # The number is the same as before, so that it alone would not show the other life.
    log.restart(NEW, 100, {"a": past()}, history=4, age=10)
    for cursor in cursors:
        assert log.read(cursor, ALL).gap
    log.feed(record(101, epoch=NEW))
    for cursor in cursors:
        assert read(log, cursor) == ["101"]


def test_who_comes_from_another_life_does_not_follow_who_is_at_home(
    log: FedLog,
) -> None:
    log.load({"a": past()})
    stranger = log.cursor(["a"])
    log.restart(NEW, 100, {"a": past()}, history=4, age=10)
    native = log.cursor(["a"])
    log.feed(record(101, epoch=NEW))
    assert read(log, native) == ["101"]
    # Its number and its channels are those of the native.
    assert log.read(stranger, ALL).gap


def test_a_newcomer_of_another_life_that_asked_for_the_last_gets_all(
    log: FedLog,
) -> None:
    log.load({"a": past(98, 99)})
    cursor = log.cursor(["a"], last=1)
    log.restart(NEW, 3, {"a": past(1, 2, 3)}, history=4, age=10)
    batch = log.read(cursor, ALL)
    assert batch.gap
    assert data_of(batch) == ["1", "2", "3"]


def test_a_channel_that_had_ended_goes_on_in_another_life(log: FedLog) -> None:
    log.load({"a": Past(0, [record(99, data=None)])})
    cursor = log.cursor(["a"])
    assert log.is_finished(cursor)
    log.restart(NEW, 3, {"a": past()}, history=4, age=10)
    assert not log.is_finished(cursor)
    batch = log.read(cursor, ALL)
    assert batch.gap
    assert not batch.ended


def test_an_id_of_another_life_is_a_gap(log: FedLog) -> None:
    log.restart(NEW, 200, {"a": past(150)}, history=4, age=10)
    assert not log.knows(["a"], f"{OLD}-100")
    batch = log.read(log.cursor(["a"], f"{OLD}-100"), ALL)
    assert batch.gap is not None
    assert batch.gap.json["since"] == f"{OLD}-100"
    assert data_of(batch) == ["150"]


def test_in_another_life_everything_is_to_be_loaded_anew(log: FedLog) -> None:
    log.load({"a": past(99), "b": past()})
    log.watch(["a"], lambda: None)
    assert log.wanted() == [REVOCATIONS, "a"]
    log.restart(NEW, 3, {}, history=4, age=10)
    assert log.missing(["a", "b"]) == ["a", "b"]
    assert sorted(log.unfed()) == [REVOCATIONS, "a"]
    log.load({"a": past(2)})
    assert read(log, log.cursor(["a"], f"{NEW}-1")) == ["2"]


def test_another_life_may_keep_more_or_less(log: FedLog) -> None:
    log.restart(NEW, 10, {"a": past(6, 7, 8, 9)}, history=2, age=10)
    assert data_of(log.read(log.cursor(["a"], f"{NEW}-5"), ALL)) == ["8", "9"]


# Many


def test_channels_that_nobody_wants_cost_no_memory(log: FedLog) -> None:
    for n in range(2 * MAX_IDLE_CHANNELS):
        log.feed(record(101 + n, f"channel {n}"))
    assert log.held() == []
    assert log.missing(["channel 1"]) == ["channel 1"]


def test_channels_that_were_wanted_once_are_forgotten_in_time(log: FedLog) -> None:
    for n in range(2 * MAX_IDLE_CHANNELS):
        log.load({f"channel {n}": past(99, channel=f"channel {n}")})
    assert len(log.held()) == MAX_IDLE_CHANNELS
    assert log.holds(f"channel {2 * MAX_IDLE_CHANNELS - 1}")


def test_channels_of_which_a_store_has_nothing_displace_no_others(log: FedLog) -> None:
    log.load({"a": past(98, 99)})
    for n in range(2 * MAX_QUIET_CHANNELS):
        log.load({f"channel {n}": past()})
    assert len(log.held()) == 1 + MAX_QUIET_CHANNELS
    assert log.missing(["a", "channel 0"]) == ["channel 0"]
    assert read(log, log.cursor(["a"], f"{OLD}-98")) == ["99"]
    # Forgotten channels are loaded again, and lose nothing.
    log.load({"channel 0": past()})
    cursor = log.cursor(["channel 0", "a"], f"{OLD}-50")
    feed(log, 101, channel="channel 0")
    assert read(log, cursor) == ["98", "99", "101"]


def test_a_channel_that_gets_its_first_event_is_held_as_one_that_has_some(
    log: FedLog,
) -> None:
    log.load({"a": past()})
    feed(log, 101)
    for n in range(MAX_QUIET_CHANNELS + 1):
        log.load({f"channel {n}": past()})
    assert log.holds("a")


def test_an_id_of_the_applications_is_known_where_its_event_is(log: FedLog) -> None:
    event = Event("x", id="order 7", channel="a")
    log.load({"a": Past(0, [Record(99, 0, "a", event)]), "b": past()})
    assert log.knows(["b", "a"], "order 7")
    assert not log.knows(["b"], "order 7")
    assert log.knows(["b"], f"{OLD}-100")
    assert not log.knows(["b"], f"{OLD}-101")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[Channel]:
    """The channels for whose readers a follower has paused."""
    pauses: list[Channel] = []
    monkeypatch.setattr(
        "flask_sse_lite.history.pacing.Patience.pause",
        lambda patience, channel, history: pauses.append(channel),
    )
    return pauses


def test_a_follower_pauses_as_soon_as_half_of_the_history_is_unread(
    log: FedLog, pauses: list[Channel]
) -> None:
    log.load({"a": past()})
    feed(log, *range(101, 106))
    assert not pauses  # Nobody reads.
    log.watch(["a"], lambda: None)
    cursor = log.cursor(["a"])
    feed(log, 106, 107)
    assert not pauses
    feed(log, 108)
    assert len(pauses) == 1
    read(log, cursor)
    feed(log, 109, 110)
    assert len(pauses) == 1


def test_a_follower_does_not_pause_for_revocations(
    clock: Clock, pauses: list[Channel]
) -> None:
    log = FedLog(clock=clock)
    log.restart(OLD, 100, revoked(), history=1, age=10)
    for sequence in (101, 102):
        event = Revocation("ann", None).to_event()
        log.feed(Record(sequence, 0.0, REVOCATIONS, event))
    assert not pauses


def test_a_burst_waits_for_its_readers(
    log: FedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the reader can run late.
    monkeypatch.setattr("flask_sse_lite.history.pacing.FEEDER_BREATHS", 100_000)
    log.load({"a": past()})
    cursor = log.cursor(["a"])
    news, seen = threading.Event(), list[str]()
    log.watch(["a"], news.set)

    def follow() -> None:
        while len(seen) < 300:
            assert news.wait(30)
            news.clear()
            seen.extend(read(log, cursor))

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    feed(log, *range(101, 401))
    reader.join(30)
    assert seen == [str(n) for n in range(101, 401)]


def test_a_reader_that_reads_nothing_does_not_hold_the_others_up(log: FedLog) -> None:
    log.load({"a": past()})
    log.watch(["a"], lambda: None)
    cursor = log.cursor(["a"])
    feed(log, *range(101, 2101))
    assert log.sequence == 2100
    assert log.read(cursor, ALL).gap
